"""Episodes drawn in PyTorch, from the distributions of Lethax."""

from math import pi

import numpy as np
import torch
from torch import Tensor

from lethax.benchmark import IMAGES, Case, random_images

Episode = tuple[Tensor, ...]  # support inputs and targets, query inputs and targets


class Draw:
    """Draw episodes of a case: sinusoids, or images that are gathered from memory and normalised."""

    def __init__(self, case: Case) -> None:
        self.case = case
        if case.px:
            self.images = torch.tensor(np.ascontiguousarray(random_images(case.px).transpose(0, 1, 4, 2, 3)))

    def __call__(self) -> Episode:
        return self._images() if self.case.px else self._sinusoid()

    def _sinusoid(self) -> Episode:
        shot = self.case.shot
        amplitude, frequency, phase = torch.rand(3) * torch.tensor([4.9, 0.4, pi]) + torch.tensor([0.1, 0.8, 0.0])
        x = torch.rand(shot + self.case.query, 1) * 10 - 5
        y = amplitude * torch.sin(frequency * x + phase)
        return x[:shot], y[:shot], x[shot:], y[shot:]

    def _images(self) -> Episode:
        case = self.case
        classes = torch.randperm(len(self.images))[: case.way, None]
        places = torch.rand(case.way, IMAGES).topk(case.shot + case.query).indices
        x = (self.images[classes, places].float() / 255.0 - 0.5) / 0.25
        labels = torch.arange(case.way)[:, None]
        support, query = x[:, : case.shot].flatten(0, 1), x[:, case.shot :].flatten(0, 1)
        return support, labels.repeat(1, case.shot).flatten(), query, labels.repeat(1, case.query).flatten()
