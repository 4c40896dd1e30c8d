"""MAML with the packages `higher` and `torchopt`, as their documentation shows it."""

from collections.abc import Mapping

import higher
import numpy as np
import torch
import torchopt
from torch import Tensor, nn

from lethax.benchmark import Case

from .by_hand import RATE, TorchPeer
from .problem import moves
from .torch_nets import loss
from .torch_tasks import Episode


class Parts(nn.Module):
    """Parameters by name."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, weight in weights.items():
            self.register_parameter(name, nn.Parameter(weight.detach()))
        self.names = list(weights)

    def all(self) -> dict[str, Tensor]:
        """The parameters as they are now."""
        return {name: getattr(self, name) for name in self.names}


class Net(nn.Module):
    """A network as a module, whose parameters are those that the inner loop moves, and others. Its output is the loss."""

    def __init__(self, case: Case, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.case = case
        self.moving = Parts({name: w for name, w in weights.items() if moves(name)})
        self.fixed = Parts({name: w for name, w in weights.items() if not moves(name)})

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss."""
        return loss(self.case, {**self.moving.all(), **self.fixed.all()}, x, y)


class OfModule(TorchPeer):
    """A peer whose weights are the parameters of a module."""

    def __init__(self, case: Case, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__(case, weights)
        self.net = Net(case, self.weights)
        self.weights = {**self.net.moving.all(), **self.net.fixed.all()}
        self.adam = torch.optim.Adam(self.net.parameters(), lr=1e-3)


class Higher(OfModule):
    """`higher.innerloop_ctx`."""

    def __init__(self, case: Case, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__(case, weights)
        self.inner = torch.optim.SGD(self.net.moving.parameters(), lr=RATE)

    def differentiate(self, episodes: list[Episode]) -> list[Tensor]:
        """Tasks one after another."""
        losses = []
        for episode in episodes:
            with higher.innerloop_ctx(self.net, self.inner, copy_initial_weights=False) as (net, inner):
                for _ in range(self.case.steps):
                    inner.step(net(*episode[:2]))
                losses.append(net(*episode[2:]))
                (losses[-1] / len(episodes)).backward()
        return losses


class TorchOpt(OfModule):
    """`torchopt.MetaSGD`."""

    def __init__(self, case: Case, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__(case, weights)
        self.inner = torchopt.MetaSGD(self.net.moving, lr=RATE)

    def differentiate(self, episodes: list[Episode]) -> list[Tensor]:
        """Tasks one after another, each from the state before the first."""
        losses = []
        net, inner = (torchopt.extract_state_dict(one, by="reference") for one in (self.net, self.inner))
        for episode in episodes:
            for _ in range(self.case.steps):
                self.inner.step(self.net(*episode[:2]))
            losses.append(self.net(*episode[2:]))
            (losses[-1] / len(episodes)).backward()
            torchopt.recover_state_dict(self.net, net)
            torchopt.recover_state_dict(self.inner, inner)
        return losses
