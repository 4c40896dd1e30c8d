"""The three products of a convolution: our native kernels, what XLA makes of our other forms, and oneDNN, as PyTorch calls it.

    pip install -e ".[bench]"
    python benchmarks/native_kernels.py [--out docs/results/native-kernels.json]

The layers are those of the 4-conv and of ResNet12, with 25 images of float32. The three take turns and use all cores, after they
were found to compute the same. They have huge pages, as the `lethax` program does.
"""

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight

from lethax import native
from lethax.__main__ import huge_pages
from lethax.files import to_json
from lethax.hardware import processor
from lethax.nets.convolution import conv

LAYERS = (  # side, inputs, outputs
    (84, 3, 64), (42, 64, 64), (21, 64, 64), (10, 64, 64), (32, 3, 64), (16, 64, 64), (8, 64, 64), (84, 64, 64),
    (42, 64, 128), (42, 128, 128), (21, 128, 256), (21, 256, 256), (10, 256, 512), (10, 512, 512), (32, 3, 48), (16, 48, 48),
    (8, 48, 48),
)  # fmt: skip
IMAGES, TURNS = 25, 7
WARM = 0.05  # seconds before a timed call, in which the threads of the other side stop waiting
NAMES = ("result", "of pictures", "of the kernel")


def ours(x: Any, w: Any, g: Any) -> list[Callable[[], Any]]:
    """The convolution and its two derivatives, compiled."""
    products = (
        jax.jit(lambda x, w: conv(x, w)),
        jax.jit(lambda w, g: jax.vjp(lambda x: conv(x, w), jnp.zeros_like(x))[1](g)[0]),
        jax.jit(lambda x, g: jax.vjp(lambda w: conv(x, w), jnp.zeros_like(w))[1](g)[0]),
    )
    given = ((x, w), (w, g), (x, g))
    compiled = [p.lower(*a).compile() for p, a in zip(products, given, strict=True)]
    return [lambda p=p, a=a: jax.block_until_ready(p(*a)) for p, a in zip(compiled, given, strict=True)]


def plain(x: Any, w: Any, g: Any) -> list[Callable[[], Any]]:
    """The same without native kernels."""
    with native.off():
        return ours(x, w, g)


def theirs(x: Any, w: Any, g: Any) -> list[Callable[[], Any]]:
    """The same in PyTorch, with channels last, which is best for it."""
    last = torch.channels_last
    x, g = (torch.tensor(np.asarray(a)).permute(0, 3, 1, 2).contiguous(memory_format=last) for a in (x, g))
    w = torch.tensor(np.asarray(w)).permute(3, 2, 0, 1).contiguous(memory_format=last)
    return [
        lambda: functional.conv2d(x, w, padding=1).permute(0, 2, 3, 1),
        lambda: conv2d_input(x.shape, w, g, padding=1).permute(0, 2, 3, 1),
        lambda: conv2d_weight(x, w.shape, g, padding=1).permute(2, 3, 1, 0),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    huge_pages()
    rows, random = [], np.random.default_rng(0)
    for side, inputs, outputs in LAYERS:
        x, w, g = (
            jnp.asarray(random.standard_normal(shape), jnp.float32)
            for shape in ((IMAGES, side, side, inputs), (3, 3, inputs, outputs), (IMAGES, side, side, outputs))
        )
        flop = 2 * IMAGES * side**2 * 9 * inputs * outputs
        sides = {"native": ours(x, w, g), "xla": plain(x, w, g), "oneDNN": theirs(x, w, g)}
        for name, *calls in zip(NAMES, *sides.values(), strict=True):
            each = dict(zip(sides, calls, strict=True))
            mine, *others = (np.asarray(call()) for call in calls)
            for other in others:
                assert np.abs(mine - other).max() < 1e-4 * np.abs(other).max(), (side, inputs, outputs, name)
            times: dict[str, list[float]] = {key: [] for key in each}
            for _ in range(TURNS):
                for key, call in each.items():
                    begun = time.perf_counter()
                    while time.perf_counter() < begun + WARM:
                        call()
                    begun = time.perf_counter()
                    call()
                    times[key].append(time.perf_counter() - begun)
            medians = {f"{key}_ms": 1e3 * statistics.median(found) for key, found in times.items()}
            speeds = {f"{key}_gflop_per_s": flop / statistics.median(found) / 1e9 for key, found in times.items()}
            rows.append({"side": side, "inputs": inputs, "outputs": outputs, "product": name, **medians, **speeds})
            print(json.dumps(rows[-1]), flush=True)
    if args.out:
        made = {
            "command": shlex.join(["python", *sys.argv]), "processor": processor(), "torch": torch.__version__,
            "jax": jax.__version__, "threads": torch.get_num_threads(), "images": IMAGES, "rows": rows,
        }  # fmt: skip
        args.out.write_text(to_json(made) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
