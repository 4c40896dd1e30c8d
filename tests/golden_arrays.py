"""The authors' own arrays as episodes and trees of this package; see tests/golden/README.md for their layout."""

import json
from pathlib import Path

import jax
import numpy as np

from lethax import trees
from lethax.records import Episode, Split


class Arrays(dict[str, np.ndarray]):
    """Arrays by name, which notes the names that were asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__(np.load(path, allow_pickle=False))
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        self.asked.add(name)
        return super().__getitem__(name)


class Golden:
    def __init__(self, name: str):
        self.arrays = Arrays(Path(__file__).parent / "golden" / f"{name}.npz")
        self.settings = json.loads(str(self.arrays["meta_json"]))

    def episodes(self, dtype) -> Episode:
        def flat(x, y):
            x = np.moveaxis(x, -3, -1).astype(dtype)
            return Split(x.reshape(x.shape[0], -1, *x.shape[3:]), y.reshape(y.shape[0], -1))

        a = self.arrays
        return Episode(flat(a["x_support"], a["y_support"]), flat(a["x_query"], a["y_query"]))

    def check_adapted(self, variant: str, extent: int | None, weights: dict, **close) -> None:
        """The first task's weights after the last inner step, where they are stored."""
        stored = self.tree(f"{variant}/adapted_task0/", extent)
        ours = dict(zip(trees.names(weights), jax.tree.leaves(weights), strict=True))
        for name, leaf in zip(trees.names(stored), jax.tree.leaves(stored), strict=True):
            np.testing.assert_allclose(ours[name], leaf, err_msg=name, **close)

    def check_complete(self, variant: str) -> None:
        """Every array of a variant was asked for, but running moments, which no output reads, and sums of what is there whole."""
        whole = {name.replace("/grad/", "/gradsum/") for name in self.arrays if "/grad/" in name}
        left = {name for name in self.arrays if name.startswith(f"{variant}/") and "/after/" not in name}
        assert left - whole - self.arrays.asked == set()

    def path(self, name: str) -> tuple[str, ...]:
        """`layer0.conv1.conv.weight` -> ("block0", "conv0", "weight")."""
        parts = name.split(".")
        leaf = {"weights": "weight"}.get(parts[-1], parts[-1])
        norm = {"weight": "scale", "bias": "shift"}
        if parts[0] == "linear":
            return "head", leaf
        if parts[0] == "attenuator":
            return "attenuator", f"layer{int(parts[1]) // 2}", leaf
        if parts[0].startswith("layer"):
            block = f"block{parts[0][5:]}"
            if parts[1] == "norm_layer":
                return block, "norm2", norm[leaf]
            if parts[1].startswith("shortcut"):
                return (block, "shortcut_norm", norm[leaf]) if "norm" in parts[1] else (block, "shortcut", "weight")
            number = int(parts[1][4:]) - 1
            return (block, f"norm{number}", norm[leaf]) if "norm_layer" in parts else (block, f"conv{number}", "weight")
        number = parts[0][4:]
        return (f"norm{number}", norm[leaf]) if "norm_layer" in parts else (f"conv{number}", "weight")

    def value(self, name: str, array: np.ndarray, extent: int | None) -> np.ndarray:
        """Kernels to [height, width, in, out]; the head to [row, column, channel] order and [features, way]."""
        array = np.asarray(array, np.float64)
        if name == "linear.weights":
            if extent:
                array = (
                    array.reshape(array.shape[0], -1, extent, extent).transpose(0, 2, 3, 1).reshape(array.shape[0], -1)
                )
            return array.T
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array

    def tree(self, prefix: str, extent: int | None, names=None) -> dict:
        tree: dict = {}
        for name in names or [k[len(prefix) :] for k in self.arrays if k.startswith(prefix)]:
            at = tree
            *above, leaf = self.path(name)
            for key in above:
                at = at.setdefault(key, {})
            at[leaf] = self.value(name, self.array(prefix, name), extent)
        return tree

    def array(self, prefix: str, name: str) -> np.ndarray:
        if prefix + name in self.arrays:
            return self.arrays[prefix + name]
        number, shape = next((i, s) for i, (n, s) in enumerate(self.settings["param_order"]) if n == name)
        draw = np.random.RandomState(1000 + number).standard_normal(shape)
        return np.round(draw * np.sqrt(2 / np.prod(shape[1:])), 6)

    def meta(self, extent: int | None, attenuate: bool, names: list[str]) -> dict:
        """Meta-parameters of our learner; gates are reordered from the stored order to `names`."""
        order = self.settings.get("param_order")
        tree = self.tree("param/", extent, [name for name, _ in order] if order else None)
        return {
            "start": self.attenuator(tree.pop("attenuator"), names) if attenuate else {},
            "rule": {},
            "weights": tree,
        }

    def attenuator(self, params: dict, names: list[str]) -> dict:
        ours = self.permutation(names)
        first, last = params["layer0"], params["layer1"]
        return {
            "layer0": {"weight": first["weight"][:, ours], "bias": first["bias"]},
            "layer1": {"weight": last["weight"][ours], "bias": last["bias"][ours]},
        }

    def permutation(self, names: list[str]) -> list[int]:
        """Where our gate number i stands in the stored order."""
        stored = ["/".join(self.path(name)) for name in self.settings["inner_order"]]
        return [stored.index(name) for name in names]
