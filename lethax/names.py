"""Data sets and tasks that are made, not prepared, by name."""

REGRESSION = ("sinusoid", "sinusoid_shift", "sinusoid_maml", "sinusoid_reptile", "modes2", "modes3", "modes5")
NAVIGATION = ("navigation", "navigation_b", "navigation_c", "navigation_d")
LOCOMOTION = ("cheetah_dir", "cheetah_vel", "ant_dir", "ant_goal", "ant_vel")
CONTROL = (*NAVIGATION, *LOCOMOTION)


def navigation_setting(data: str) -> str:
    """ "a" of "navigation", "b" of "navigation_b"."""
    return data.partition("_")[2] or "a"
