"""MAML with torch.func: `grad` of `grad`, in a loop over tasks or under `vmap`."""

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vmap

from .by_hand import RATE, TorchPeer
from .problem import moves
from .torch_nets import loss, outputs
from .torch_tasks import Episode


class Loop(TorchPeer):
    """Tasks one after another."""

    def _split(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The weights that the inner loop moves, and the others."""
        plain = {name: w.detach() for name, w in self.weights.items()}
        moving = {name: w for name, w in plain.items() if moves(name)}
        return moving, {name: w for name, w in plain.items() if name not in moving}

    def _adapted(self, weights: tuple[dict[str, Tensor], dict[str, Tensor]], episode: Episode) -> dict[str, Tensor]:
        fast, fixed = weights
        of_support = grad(lambda w: loss(self.case, {**w, **fixed}, *episode[:2]))
        for _ in range(self.case.steps):
            gradient = of_support(fast)
            fast = {name: w - RATE * gradient[name] for name, w in fast.items()}
        return {**fast, **fixed}

    def _loss(self, weights: tuple[dict[str, Tensor], dict[str, Tensor]], episode: Episode) -> Tensor:
        return loss(self.case, self._adapted(weights, episode), *episode[2:])

    def _all(self, episodes: list[Episode]) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """The losses, and the gradient of each task."""
        found = [grad_and_value(self._loss)(self._split(), episode) for episode in episodes]
        return torch.stack([value for _, value in found]), [{**moving, **fixed} for (moving, fixed), _ in found]

    def differentiate(self, episodes: list[Episode]) -> list[Tensor]:
        """The mean of the gradients of the tasks."""
        losses, grads = self._all(episodes)
        for name, weight in self.weights.items():
            weight.grad = sum(one[name] for one in grads) / len(episodes)
        return list(losses)

    def judge(self, episodes: list[Episode]) -> list[tuple[Tensor, Tensor]]:
        """One after another."""
        return [(e[3], outputs(self.case, self._adapted(self._split(), e), e[2])) for e in episodes]


class Vmap(Loop):
    """All tasks in one call."""

    def _all(self, episodes: list[Episode]) -> tuple[Tensor, list[dict[str, Tensor]]]:
        stacked = tuple(torch.stack(parts) for parts in zip(*episodes, strict=True))
        (moving, fixed), losses = vmap(grad_and_value(self._loss), in_dims=(None, 0))(self._split(), stacked)
        total = {name: g.sum(0) for name, g in {**moving, **fixed}.items()}
        return losses, [total]
