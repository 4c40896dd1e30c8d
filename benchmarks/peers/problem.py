"""Weights and episodes that all implementations are compared on, in NumPy, with names and layouts of Lethax."""

from dataclasses import replace
from math import prod

import numpy as np

from lethax.benchmark import Case

SLOPES = {"conv4": 0.01, "resnet12": 0.0}  # of the activations


def small(case: Case) -> Case:
    """The same computation in sizes that float64 does in a moment; 36 px leave odd rows, as 84 px do."""
    if case.net == "mlp":
        return case
    return replace(case, px=36 if case.px % 32 else 32, filters=8, way=2, shot=min(case.shot, 2), query=3, steps=2)


def widths(case: Case) -> tuple[int, ...]:
    """The channels of the blocks of ResNet12."""
    return tuple(case.filters * 2**block for block in range(4))


def widths_of_layers(case: Case) -> tuple[int, ...]:
    """The inputs, hidden units and outputs of the fully connected net."""
    return 1, case.filters, case.filters, 1


def shapes(case: Case) -> dict[str, tuple[int, ...]]:
    """The shape of every weight: kernels [height, width, in, out], matrices [in, out]."""
    found: dict[str, tuple[int, ...]] = {}
    if case.net == "mlp":
        sizes = widths_of_layers(case)
        for i in range(len(sizes) - 1):
            found |= {f"layer{i}/weight": sizes[i : i + 2], f"layer{i}/bias": (sizes[i + 1],)}
        return found
    inputs, features = 3, case.filters * (case.px // 16) ** 2
    if case.net == "conv4":
        for stage in range(4):
            found[f"conv{stage}/weight"] = (3, 3, inputs, case.filters)
            found |= _norm(f"norm{stage}", case.filters)
            inputs = case.filters
    else:
        for block, width in enumerate(widths(case)):
            for i in range(3):
                found[f"block{block}/conv{i}/weight"] = (3, 3, width if i else inputs, width)
                found |= _norm(f"block{block}/norm{i}", width)
            found[f"block{block}/shortcut/weight"] = (1, 1, inputs, width)
            found |= _norm(f"block{block}/shortcut_norm", width)
            inputs = features = width
    return found | {"head/weight": (features, case.way), "head/bias": (case.way,)}


def _norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/scale": (channels,), f"{name}/shift": (channels,)}


def weights(case: Case) -> dict[str, np.ndarray]:
    """Random weights in float64; no bias is 0, and no scale 1, so that a check sees them."""
    random, made = np.random.default_rng(0), {}
    for name, shape in shapes(case).items():
        around = 1.0 if name.endswith("scale") else 0.0
        spread = (6.0 / (shape[-2] + shape[-1]) / prod(shape[:-2])) ** 0.5 if len(shape) > 1 else 0.1
        made[name] = around + random.uniform(-spread, spread, shape)
    return made


def moves(name: str) -> bool:
    """Whether the inner loop moves a weight: all but those of norms."""
    return "norm" not in name


def episodes(case: Case) -> list[tuple[np.ndarray, ...]]:
    """Support inputs and targets, and those of the queries, of each episode of a meta-batch, in float64."""
    random, found = np.random.default_rng(1), []
    for _ in range(case.batch):
        parts: list[np.ndarray] = []
        for count in (case.shot, case.query):
            if case.net == "mlp":
                parts += [random.uniform(-5, 5, (count, 1)), random.normal(size=(count, 1))]
            else:
                parts += [
                    random.normal(size=(case.way * count, case.px, case.px, 3)),
                    np.repeat(np.arange(case.way), count),
                ]
        found.append(tuple(parts))
    return found
