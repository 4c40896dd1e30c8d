"""What `lethax data prepare` tells of a folder of pictures: how large the classes are, and which pictures are there twice."""

from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from lethax.data.store import Store, open_store
from lethax.progress import console, say
from lethax.text import shown


def tell(name: str, root: Path | None) -> None:
    """Print the sizes of the classes of each split, unless all are equal, and the duplicates, if there are any."""
    store = open_store(name, root)
    counts = {split: np.diff(part.starts) for split, part in store.splits.items()}
    if len({int(count) for of_split in counts.values() for count in of_split}) > 1:
        _sizes(store, counts)
    found = store.manifest["source"].get("duplicates", {})
    if found.get("first"):
        _duplicates(found, store.folder / found["file"])


def _sizes(store: Store, counts: dict[str, np.ndarray]) -> None:
    def extreme(split: str, place: int) -> str:
        return f"{counts[split][place]:,} ({shown(store.splits[split].classes[place], 40)})"

    rows = [
        [split, f"{len(n):,}", extreme(split, int(n.argmin())), f"{np.median(n):,.0f}", extreme(split, int(n.argmax()))]
        for split, n in counts.items()
    ]
    _print("Pictures of a class", ["split", "classes", "fewest", "median", "most"], rows)


def _duplicates(found: dict, report: Path) -> None:
    places = list(next(iter(found["pairs"].values())))
    rows = [[likeness, *(f"{n:,}" for n in numbers.values())] for likeness, numbers in found["pairs"].items()]
    _print("Pairs of duplicates", ["", *places], rows)
    for pair in found["first"]:
        say(f"  {shown(pair, 400)}")
    done = "left out" if found["rule"] == "drop" else "kept: --duplicates drop leaves them out"
    most = "of each kind as many as are kept, and there may be more"
    say(f"{shown(report)} lists {'all of them' if found['whole'] else most}. They are {done}.")


def _print(title: str, names: list[str], rows: list[list[str]]) -> None:
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False
    )
    for name in names:
        table.add_column(name, justify="left" if name in ("split", "") else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
