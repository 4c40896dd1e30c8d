"""MAML written by hand in PyTorch: tasks one after another on all threads, or one thread a task."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from lethax.benchmark import Case

from .problem import moves
from .torch_nets import as_torch, episode_as_torch, from_torch, loss, outputs
from .torch_tasks import Draw, Episode

RATE, OUTER_RATE = 0.01, 1e-3


class TorchPeer:
    """What all peers in PyTorch share: weights, Adam, drawing, and the form of their answers."""

    steps = 1

    def __init__(self, case: Case, weights: Mapping[str, np.ndarray]) -> None:
        self.case, self.draw = case, Draw(case)
        self.weights = {name: w.requires_grad_() for name, w in as_torch(case, weights).items()}
        self.adam = torch.optim.Adam(list(self.weights.values()), lr=OUTER_RATE)

    def call(self) -> None:
        """Take one outer step, or judge episodes."""
        if self.case.judged:
            for query, found in self.judge([self.draw() for _ in range(self.steps)]):
                (found.argmax(1) == query).float().mean().item()
            return
        self.adam.zero_grad()
        self.differentiate([self.draw() for _ in range(self.case.batch)])
        self.adam.step()

    def differentiate(self, episodes: list[Episode]) -> list[Tensor]:
        """Set the gradient of each weight to that of the mean query loss. Returns the losses."""
        raise NotImplementedError

    def judge(self, episodes: list[Episode]) -> list[tuple[Tensor, Tensor]]:
        """The targets and the outputs of the queries of each episode, after adaptation without second order."""
        raise NotImplementedError

    def answer(self, episodes: list[tuple[np.ndarray, ...]]) -> dict[str, np.ndarray]:
        """The outputs of the queries, or the losses and the meta-gradient, in the layout of Lethax."""
        given = [episode_as_torch(self.case, episode) for episode in episodes]
        if self.case.judged:
            return {"outputs": np.stack([found.numpy() for _, found in self.judge(given)])}
        losses = torch.stack([one.detach() for one in self.differentiate(given)]).numpy()
        grads = {name: from_torch(self.case, name, w.grad.numpy()) for name, w in self.weights.items()}
        return {"losses": losses, **grads}


class Eager(TorchPeer):
    """Tasks one after another; every operation may use all threads."""

    def adapted(self, episode: Episode) -> dict[str, Tensor]:
        """The weights after the inner steps, with their graph where they are trained."""
        fast, graph = dict(self.weights), not self.case.judged
        moving = [name for name in fast if moves(name)]
        for _ in range(self.case.steps):
            value = loss(self.case, fast, *episode[:2])
            grads = torch.autograd.grad(value, [fast[name] for name in moving], create_graph=graph)
            new = [fast[name] - RATE * g for name, g in zip(moving, grads, strict=True)]
            fast |= dict(zip(moving, new if graph else [w.detach().requires_grad_() for w in new], strict=True))
        return fast

    def differentiate(self, episodes: list[Episode]) -> list[Tensor]:
        """One graph after another, each freed by its backward pass."""
        losses = []
        for episode in episodes:
            losses.append(loss(self.case, self.adapted(episode), *episode[2:]))
            (losses[-1] / len(episodes)).backward()
        return losses

    def judged(self, episode: Episode) -> tuple[Tensor, Tensor]:
        """The targets and outputs of one episode."""
        fast = self.adapted(episode)
        with torch.no_grad():
            return episode[3], outputs(self.case, fast, episode[2])

    def judge(self, episodes: list[Episode]) -> list[tuple[Tensor, Tensor]]:
        """One after another."""
        return [self.judged(episode) for episode in episodes]


class Threads(Eager):
    """Each task in a thread of its own, whose operations use that thread alone."""

    def __init__(self, case: Case, weights: Mapping[str, np.ndarray]) -> None:
        torch.set_num_threads(1)
        super().__init__(case, weights)
        self.pool = ThreadPoolExecutor(os.cpu_count())
        self.steps = os.cpu_count() or 1 if case.judged else 1

    def _one(self, episode: Episode) -> tuple[Tensor, tuple[Tensor, ...]]:
        value = loss(self.case, self.adapted(episode), *episode[2:])
        return value.detach(), torch.autograd.grad(value, list(self.weights.values()))

    def differentiate(self, episodes: list[Episode]) -> list[Tensor]:
        """The gradients of the threads are added where all are done."""
        losses, grads = zip(*self.pool.map(self._one, episodes), strict=True)
        for weight, parts in zip(self.weights.values(), zip(*grads, strict=True), strict=True):
            weight.grad = sum(parts[1:], start=parts[0]) / len(parts)
        return list(losses)

    def judge(self, episodes: list[Episode]) -> list[tuple[Tensor, Tensor]]:
        """All at once."""
        return list(self.pool.map(self.judged, episodes))
