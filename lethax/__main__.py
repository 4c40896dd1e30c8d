"""Start the `lethax` program, also as `python -m lethax`."""

import os
import sys

from lethax import signals

_ON_REQUEST = "/sys/kernel/mm/transparent_hugepage/enabled"


def huge_pages() -> None:
    """Start the program anew with its arrays in huge pages, where Linux gives them on request.

    XLA asks for the memory of every call anew; to fault it in by pages of 4 KiB took a quarter of an outer step on images. glibc
    reads its tunables before Python runs, so only another start can set them. $GLIBC_TUNABLES that name hugetlb stay as they are.
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or "glibc.malloc.hugetlb" in given or not os.path.isfile(_ON_REQUEST):
        return
    with open(_ON_REQUEST) as file:  # no pathlib here: it takes longer than all before the program listens to signals
        chosen = file.read()
    if "[madvise]" in chosen:
        os.environ["GLIBC_TUNABLES"] = f"{given}:glibc.malloc.hugetlb=1".lstrip(":")
        os.execv(sys.executable, sys.orig_argv)


def entry() -> None:
    """Run the `lethax` program."""
    signals.hold()
    huge_pages()
    signals.listen()
    try:
        from lethax import cli  # after the start anew: not twice
    except Exception as error:  # of a dependency that is broken or missing
        from lethax import doctor

        sys.exit(doctor.rescue(sys.argv[1:], error))
    cli.entry()


if __name__ == "__main__":
    entry()
