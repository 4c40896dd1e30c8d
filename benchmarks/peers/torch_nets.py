"""The networks of the cases as functions of flat weights in PyTorch, and weights and images in PyTorch's layout."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lethax.benchmark import Case

from .problem import SLOPES

Weights = Mapping[str, Tensor]


def outputs(case: Case, w: Weights, x: Tensor) -> Tensor:
    """The outputs of the network of a case."""
    return {"mlp": _mlp, "conv4": _conv4, "resnet12": _resnet12}[case.net](w, x)


def loss(case: Case, w: Weights, x: Tensor, y: Tensor) -> Tensor:
    """Squared error of curves, cross entropy of images."""
    found = outputs(case, w, x)
    return F.mse_loss(found, y) if case.net == "mlp" else F.cross_entropy(found, y)


def _mlp(w: Weights, x: Tensor) -> Tensor:
    x = F.relu(F.linear(x, w["layer0/weight"], w["layer0/bias"]))
    x = F.relu(F.linear(x, w["layer1/weight"], w["layer1/bias"]))
    return F.linear(x, w["layer2/weight"], w["layer2/bias"])


def _normed(w: Weights, x: Tensor, kernel: str, norm: str) -> Tensor:
    """A convolution that keeps the size, and a batch norm with the moments of the batch."""
    weight = w[f"{kernel}/weight"]
    x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    return F.batch_norm(x, None, None, w[f"{norm}/scale"], w[f"{norm}/shift"], training=True, eps=1e-5)


def _conv4(w: Weights, x: Tensor) -> Tensor:
    for stage in range(4):  # pooling first: the same function, a quarter of the work
        x = F.leaky_relu(F.max_pool2d(_normed(w, x, f"conv{stage}", f"norm{stage}"), 2), SLOPES["conv4"])
    return F.linear(x.flatten(1), w["head/weight"], w["head/bias"])


def _resnet12(w: Weights, x: Tensor) -> Tensor:
    for block in range(4):
        at = f"block{block}"
        y = F.relu(_normed(w, x, f"{at}/conv0", f"{at}/norm0"))
        y = F.relu(_normed(w, y, f"{at}/conv1", f"{at}/norm1"))
        y = _normed(w, y, f"{at}/conv2", f"{at}/norm2") + _normed(w, x, f"{at}/shortcut", f"{at}/shortcut_norm")
        x = F.relu(y if block == 3 else F.max_pool2d(y, 2, padding=1 if block == 2 else 0))
    return F.linear(x.mean((2, 3)), w["head/weight"], w["head/bias"])


def to_torch(case: Case, name: str, array: np.ndarray) -> np.ndarray:
    """A weight in PyTorch's layout: kernels [out, in, height, width], matrices [out, in]; features channel after channel."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if name == "head/weight" and case.net == "conv4":
        size = case.px // 16
        array = array.reshape(size, size, case.filters, -1).transpose(2, 0, 1, 3).reshape(-1, case.way)
    return array.T


def from_torch(case: Case, name: str, array: np.ndarray) -> np.ndarray:
    """The inverse of `to_torch`."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    array = array.T
    if name == "head/weight" and case.net == "conv4":
        size = case.px // 16
        array = array.reshape(case.filters, size, size, -1).transpose(1, 2, 0, 3).reshape(-1, case.way)
    return array


def as_torch(case: Case, weights: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Weights as tensors, contiguous in their layout."""
    return {name: torch.tensor(np.ascontiguousarray(to_torch(case, name, w))) for name, w in weights.items()}


def episode_as_torch(case: Case, episode: tuple[np.ndarray, ...]) -> tuple[Tensor, ...]:
    """An episode as tensors, images [n, channels, height, width]."""
    return tuple(torch.tensor(np.ascontiguousarray(a.transpose(0, 3, 1, 2)) if a.ndim == 4 else a) for a in episode)
