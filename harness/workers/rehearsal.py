"""Small problems that call every kernel of a run, so that the kernels compile before the run."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache, partial

import numpy as np

from harness.data.dataset import Dataset
from harness.plan.device import pick_device
from harness.plan.units import EvaluationUnit, TrainUnit
from harness.run.spec import RunSpec
from harness.workers.evaluating import EvaluateWorker
from harness.workers.training import TrainWorker, trainer_of
from supsup_core.data import ImageSet

_IMAGES = 512  # evenly spaced, so that every class has some


def training_rehearsals(spec: RunSpec, data: Dataset) -> Iterator[Callable[[], object]]:
    """Yield one computation, which trains a task for one step and measures the trained state.

    Args:
        spec: the run's specification.
        data: the run's data set.
    """
    worker = TrainWorker(spec, *_few(spec, data), "rehearsal")
    yield partial(worker.warm_up, TrainUnit("rehearsal", (0,), (0,)))


def evaluation_rehearsals(
    spec: RunSpec, data: Dataset, asked: Iterable[EvaluationUnit]
) -> Iterator[Callable[[], object]]:
    """Yield one computation for each pair of an algorithm and an objective in `asked`.

    A computation infers a task and counts the right labels. If the number of gradients of an
    algorithm is a setting, the algorithm computes only one gradient here.

    Args:
        spec: the run's specification.
        data: the run's data set.
        asked: the evaluation units of the run.
    """
    train, test = _few(spec, data)
    evaluate = replace(spec.config.evaluate, steps=1)
    spec = replace(spec, config=replace(spec.config, evaluate=evaluate))
    worker = EvaluateWorker(spec, test, "rehearsal")

    @cache
    def rows() -> np.ndarray:
        trainer = trainer_of(spec, train, test, pick_device())
        states, _ = next(trainer.stages([spec.task(0)], after=[0]))
        return spec.layout.pack(states)

    def infer(unit: EvaluationUnit) -> object:
        return worker.run(unit, rows())

    for algorithm, objective in dict.fromkeys((one.algorithm, one.objective) for one in asked):
        yield partial(infer, EvaluationUnit(1, algorithm, objective, (0,)))


def _few(spec: RunSpec, data: Dataset) -> tuple[ImageSet, ImageSet]:
    """Return some training images, enough for a batch of a task, and some test images."""
    train, test = _evenly(data.train), _evenly(data.test)
    is_enough = len(spec.task(0).members(train.labels)) >= spec.config.train.batch_size
    return train if is_enough else data.train, test


def _evenly(images: ImageSet) -> ImageSet:
    step = max(1, len(images.labels) // _IMAGES)
    return replace(images, images=images.images[::step], labels=images.labels[::step])
