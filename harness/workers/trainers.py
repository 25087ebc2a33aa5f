"""Training and measuring of one kind of mask each, as a training actor asks for it."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch

from harness.config.schema import UNIT_MASK
from harness.run.spec import RunSpec
from supsup_core.data import ImageSet
from supsup_core.methods import METHODS
from supsup_core.networks.mlp import fixed_weights
from supsup_core.networks.units import UnitNetwork
from supsup_core.tasks import Task
from supsup_core.training.blocks import train_block, train_block_in_stages
from supsup_core.training.measure import measure_form
from supsup_core.training.units import UnitMeasure, train_unit_block, train_unit_block_in_stages

Masks = list[np.ndarray]  # bool, (B, ...) of each layer


class Trainer(Protocol):
    """Trains blocks of tasks, and measures a mask."""

    def train(self, tasks: Sequence[Task], on_step: Callable[[int], None]) -> Masks:
        """Masks of a block; on_step hears how many steps are done."""
        ...

    def stages(self, tasks: Sequence[Task], after: Collection[int]) -> Iterator[Masks]:
        """Masks of a block after each of some numbers of steps, trained as they are asked for."""
        ...

    def measure(self, task: Task, mask: Sequence[np.ndarray]) -> tuple[float, float]:
        """Accuracy and mean cross-entropy (nats) on the task's test images."""
        ...


class WeightTrainer:
    """Of masks over weights.

    Args:
        spec: of the run.
        train, test: images.
        device: where.
    """

    def __init__(
        self, spec: RunSpec, train: ImageSet, test: ImageSet, device: torch.device
    ) -> None:
        self._spec, self._data, self._device = spec, train, device
        self._network = spec.network
        weights = fixed_weights(self._network, spec.config.seed)
        self._measure = measure_form(device)(weights, test, device)

    def train(self, tasks: Sequence[Task], on_step: Callable[[int], None]) -> Masks:
        """Masks of a block, by the method that the configuration names."""
        config = self._spec.config
        return train_block(
            self._network,
            METHODS[config.method],
            tasks,
            self._data,
            self._spec.recipe,
            seed=config.seed,
            dtype=getattr(torch, config.train.dtype),
            device=self._device,
            on_step=on_step,
        )

    def stages(self, tasks: Sequence[Task], after: Collection[int]) -> Iterator[Masks]:
        """Masks of a block on the way."""
        config = self._spec.config
        return train_block_in_stages(
            self._network,
            METHODS[config.method],
            tasks,
            self._data,
            self._spec.recipe,
            stages=after,
            seed=config.seed,
            dtype=getattr(torch, config.train.dtype),
            device=self._device,
        )

    def measure(self, task: Task, mask: Sequence[np.ndarray]) -> tuple[float, float]:
        """Accuracy and mean cross-entropy."""
        return self._measure(task, mask)


class UnitTrainer:
    """Of masks over units; arguments as above."""

    def __init__(
        self, spec: RunSpec, train: ImageSet, test: ImageSet, device: torch.device
    ) -> None:
        self._spec, self._data = spec, train
        self._network = UnitNetwork(spec.network, spec.config.seed, train.std, device)
        self._measure = UnitMeasure(self._network, test)

    def train(self, tasks: Sequence[Task], on_step: Callable[[int], None]) -> Masks:
        """Masks of a block."""
        recipe, seed = self._spec.recipe, self._spec.config.seed
        return train_unit_block(
            self._network, tasks, self._data, recipe, seed=seed, on_step=on_step
        )

    def stages(self, tasks: Sequence[Task], after: Collection[int]) -> Iterator[Masks]:
        """Masks of a block on the way."""
        recipe, seed = self._spec.recipe, self._spec.config.seed
        return train_unit_block_in_stages(
            self._network, tasks, self._data, recipe, stages=after, seed=seed
        )

    def measure(self, task: Task, mask: Sequence[np.ndarray]) -> tuple[float, float]:
        """Accuracy and mean cross-entropy."""
        return self._measure(task, mask)


def make_trainer(spec: RunSpec, train: ImageSet, test: ImageSet, device: torch.device) -> Trainer:
    """The trainer of the run's method."""
    form = UnitTrainer if spec.config.method == UNIT_MASK else WeightTrainer
    return form(spec, train, test, device)
