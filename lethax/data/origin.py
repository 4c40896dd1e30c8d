"""How features were made of pictures, as a data set of features, a file of them, and a run on them keep it."""

from typing import Any, NamedTuple

from lethax.errors import DataError
from lethax.text import shown

_LETTERS, _SIDE = 60, 1 << 16


class Origin(NamedTuple):
    """The pretrained backbone that made features, and of what.

    backbone: its name. size: the side in pixels to which pictures were enlarged for it. pictures: their shape [height, width,
    channels] before. of: `Store.identity` of the data set of pictures.
    """

    backbone: str
    size: int
    pictures: tuple[int, int, int]
    of: str

    def record(self) -> dict[str, Any]:
        """The origin as JSON has it."""
        return {**self._asdict(), "pictures": list(self.pictures)}


def read_origin(value: Any, where: str) -> Origin | None:
    """Read what `Origin.record` wrote; None of None. DataError for anything else."""
    if value is None:
        return None
    match value:
        case {
            "backbone": str() as backbone,
            "size": int() as size,
            "pictures": [int(), int(), int()] as pictures,
            "of": str() as of,
        }:
            sides = [size, *pictures]
            if 0 < len(backbone) <= _LETTERS and len(of) <= _LETTERS + 4 and all(0 < side < _SIDE for side in sides):
                return Origin(backbone, size, (pictures[0], pictures[1], pictures[2]), of)
    raise DataError(
        f"{where} says of its features that they were made by {shown(value, 80)}, which is no record of a backbone."
    )
