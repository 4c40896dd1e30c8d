"""The names of the tasks that lethax makes itself, for which nothing is prepared."""

# Options of the command line that no section of a recipe can have.
COMMAND_LINE = ("data", "recipe", "resume", "out", "overwrite", "root", "plugin", "distributed", "help", "version")
DATA_NAME = r"[a-z0-9][a-z0-9_-]*"  # of prepared data sets, which are folders of that name
CURVES = ("sinusoid", "sinusoid_shift", "sinusoid_maml", "sinusoid_reptile", "modes2", "modes3", "modes5")
NAVIGATION = ("navigation", "navigation_b", "navigation_c", "navigation_d")
LOCOMOTION = ("cheetah_dir", "cheetah_vel", "ant_dir", "ant_goal", "ant_vel")
METADATASET = "metadataset"  # its sources together; each of them is a prepared data set "metadataset-SOURCE"
PRETRAINED = ("efficientnet-lite0",)  # backbones whose weights a package ships
PRETRAINED_SIZE = 96  # pixels a side of the pictures that they read, unless another size is given
MADE = (*CURVES, *NAVIGATION, *LOCOMOTION)


def navigation_setting(data: str) -> str:
    """ "a" of "navigation", "b" of "navigation_b"."""
    return data.partition("_")[2] or "a"
