"""What runs inside a training and an evaluation actor: plain classes, which know no Ray.

The serial executor calls them in this process; the Ray executor makes actors of
them. Both hold the data set and one thread; neither touches the store.
"""

import time
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import torch

from harness import results
from harness.config import Config
from harness.plan import EvaluationUnit, TrainUnit
from supsup_core.data import ImageSet, normalise
from supsup_core.inference import (
    FORWARD_ALGORITHMS,
    GRADIENT_ALGORITHMS,
    Inference,
    PackedGradient,
)
from supsup_core.masks import MaskLayout, density
from supsup_core.measure import measure_form
from supsup_core.methods import METHODS
from supsup_core.networks import Network, fixed_weights, forward, make_network
from supsup_core.objectives import OBJECTIVES
from supsup_core.streams import Role, stream
from supsup_core.superposition import PackedMasks
from supsup_core.tasks import Task, make_task
from supsup_core.training import Recipe, train_block

# Float32 gradients of the queries inferred together: 32 of LeNet 300-100; binary holds
# as much again for their superpositions.
GRADIENT_BYTES = 41_000_000


@dataclass(frozen=True)
class Job:
    """What every worker of a run has to know.

    Attributes:
        config: with every `auto` resolved.
        side: pixels of a side of the images.
        num_classes: of the data set, the real neurons.
    """

    config: Config
    side: int
    num_classes: int

    @property
    def network(self) -> Network:
        """The fixed network's specification."""
        config = self.config
        return make_network(config.network, self.side**2, config.outputs, config.hidden)

    def task(self, task_id: int) -> Task:
        """One task of the run."""
        return make_task(
            self.config.family,
            task_id,
            seed=self.config.seed,
            num_tasks=self.config.tasks,
            side=self.side,
            num_classes=self.num_classes,
        )

    @property
    def recipe(self) -> Recipe:
        """How masks are trained."""
        train = self.config.train
        return Recipe(
            steps=train.steps,
            batch_size=train.batch_size,
            learning_rate=train.learning_rate,
            smoothing=train.smoothing,
            decay=train.decay,
            temperature=train.temperature,
            optimizer=train.optimizer,
            momentum=train.momentum,
        )


def _own(data: ImageSet) -> ImageSet:
    """Copy arrays that came read-only from Ray's object store: torch wants to own them."""
    return replace(data, images=data.images.copy(), labels=data.labels.copy())


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """What the tables call a device: "cpu", or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


# The table `tasks` but for the checksums, which the store computes as it writes.
TRAINED = results.TASKS.remove(results.TASKS.get_field_index("row_crc32c"))


@dataclass(frozen=True)
class TrainedUnit:
    """The masks of a unit's missing tasks: packed rows (B, R), and their rows of `tasks`."""

    unit: TrainUnit
    rows: np.ndarray
    tasks: pa.Table


class TrainWorker:
    """Trains blocks of tasks.

    Args:
        job: of the run.
        train: the training images.
        test: the test images, for the accuracy in the table `tasks`.
        name: of this worker, for the table.
    """

    def __init__(self, job: Job, train: ImageSet, test: ImageSet, name: str) -> None:
        torch.set_num_threads(1)  # results depend on it, and Ray may have said otherwise
        self._job, self._name = job, name
        self._train = _own(train)
        self._device = _device()
        self._network = job.network
        self._layout = MaskLayout.of(self._network)
        weights = fixed_weights(self._network, job.config.seed)
        self._measure = measure_form(self._device)(weights, _own(test), self._device)
        self._steps_done = 0

    def progress(self) -> float:
        """Share of the current unit that is done; asked from another thread."""
        return self._steps_done / self._job.config.train.steps

    def run(self, unit: TrainUnit) -> TrainedUnit:
        """Train a block; pack and measure the masks that are missing.

        The whole block is trained even where some of its masks exist: a block is
        what makes a mask reproducible bit for bit.
        """
        started = time.perf_counter()
        config = self._job.config
        tasks = [self._job.task(i) for i in unit.task_ids]
        masks = train_block(
            self._network,
            METHODS[config.method],
            tasks,
            self._train,
            self._job.recipe,
            seed=config.seed,
            dtype=getattr(torch, config.train.dtype),
            device=self._device,
            on_step=self._on_step,
        )
        seconds = (time.perf_counter() - started) / len(tasks)
        self._steps_done = 0
        wanted = [unit.task_ids.index(i) for i in unit.missing]
        rows = self._layout.pack([mask[wanted] for mask in masks])
        measured = [self._measure(tasks[i], [mask[i] for mask in masks]) for i in wanted]
        table = pa.table(
            {
                "task_id": list(unit.missing),
                "method": [config.method] * len(wanted),
                "accuracy": [accuracy for accuracy, _ in measured],
                "loss": [loss for _, loss in measured],
                "steps": [config.train.steps] * len(wanted),
                "train_seconds": [seconds] * len(wanted),
                "density": density(self._layout, rows),
                "mask_bytes": [self._layout.row_bytes] * len(wanted),
                "worker": [self._name] * len(wanted),
                "device": [device_name(self._device)] * len(wanted),
                "finished_at": [datetime.now(UTC)] * len(wanted),
            },
            schema=TRAINED,
        )
        return TrainedUnit(unit, rows, table)

    def _on_step(self, done: int) -> None:
        self._steps_done = done


@dataclass(frozen=True)
class _Query:
    """One test batch of one task: what is asked, and what is scored with the answer."""

    task_id: int
    images: torch.Tensor  # (N, P), normalised
    labels: torch.Tensor  # (N,)


class EvaluateWorker:
    """Infers the tasks of test batches and scores the batches with the inferred masks.

    Args:
        job: of the run.
        test: the test images.
        name: of this worker.
    """

    def __init__(self, job: Job, test: ImageSet, name: str) -> None:
        torch.set_num_threads(1)
        self._job, self._test = job, _own(test)
        self._device = _device()
        self._layout = MaskLayout.of(job.network)
        self._weights = [w.to(self._device) for w in fixed_weights(job.network, job.config.seed)]
        self._steps_done = 0.0

    def progress(self) -> float:
        """Share of the current unit that is done; asked from another thread."""
        return self._steps_done

    def run(self, unit: EvaluationUnit, rows: np.ndarray) -> pa.Table:
        """Evaluate a unit among the masks in rows (k, R): rows of the table `evaluations`."""
        masks = PackedMasks(self._layout, rows, self._device)
        queries = [query for i in unit.task_ids for query in self._queries(self._job.task(i))]
        inferred: list[int] = []
        started = time.perf_counter()
        at_once = max(1, GRADIENT_BYTES // (4 * self._layout.row_bits))
        for start in range(0, len(queries), at_once):
            found = self._infer(unit, masks, queries[start : start + at_once])
            inferred += found.tasks.tolist()
            self._steps_done = len(inferred) / len(queries)
        seconds = (time.perf_counter() - started) / len(queries)
        self._steps_done = 0.0
        return self._score(unit, masks, queries, inferred, seconds, found.num_gradients)

    def _queries(self, task: Task) -> list[_Query]:
        """The task's test batches, in an order of its own: tasks are independent samples."""
        evaluate = self._job.config.evaluate
        members = task.members(self._test.labels)
        generator = stream(self._job.config.seed, Role.EVALUATION_ORDER, task.task_id)
        order = generator.permutation(len(members))
        found: list[_Query] = []
        for start in range(0, len(order), evaluate.batch_size):
            if evaluate.batches is not None and len(found) == evaluate.batches:
                break
            index = members[order[start : start + evaluate.batch_size]]
            pixels = torch.from_numpy(task.images(self._test.images[index])).to(self._device)
            labels = torch.from_numpy(self._test.labels[index]).to(self._device)
            found.append(
                _Query(task.task_id, normalise(pixels, self._test.mean, self._test.std), labels)
            )
        return found

    def _infer(self, unit: EvaluationUnit, masks: PackedMasks, queries: list[_Query]) -> Inference:
        # A last batch may hold fewer images than a query should; it repeats its first ones.
        num_images = self._job.config.evaluate.num_images
        picks = [torch.arange(num_images) % len(query.images) for query in queries]
        images = torch.stack([q.images[p] for q, p in zip(queries, picks, strict=True)])
        num_real = self._job.num_classes
        if unit.algorithm in FORWARD_ALGORITHMS:
            return FORWARD_ALGORITHMS[unit.algorithm](self._weights, masks, images, num_real)
        assert unit.objective is not None
        gradient = PackedGradient(
            self._weights, masks, images, OBJECTIVES[unit.objective], num_real
        )
        return GRADIENT_ALGORITHMS[unit.algorithm](gradient)

    def _score(
        self,
        unit: EvaluationUnit,
        masks: PackedMasks,
        queries: list[_Query],
        inferred: list[int],
        seconds: float,
        num_gradients: int,
    ) -> pa.Table:
        """Count right labels with the true and with the inferred mask, a row a task."""
        asked: dict[int, list[tuple[_Query, int]]] = defaultdict(list)
        for query, task in zip(queries, inferred, strict=True):
            asked[query.task_id].append((query, task))
        columns: dict[str, list[object]] = defaultdict(list)
        for task_id, answers in asked.items():
            num_images = sum(len(query.labels) for query, _ in answers)
            given = [self._num_right(masks, query, task_id) for query, _ in answers]
            used = [
                right if task == task_id else self._num_right(masks, query, task)
                for right, (query, task) in zip(given, answers, strict=True)
            ]
            hit = [task == task_id for _, task in answers]
            columns["task_id"].append(task_id)
            columns["num_batches"].append(len(answers))
            columns["task_accuracy"].append(sum(hit) / len(hit))
            columns["accuracy_gg"].append(sum(given) / num_images)
            columns["accuracy_gns"].append(sum(used) / num_images)
            columns["accuracy_gnu"].append(
                sum(right for right, h in zip(used, hit, strict=True) if h) / num_images
            )
        same = {
            "num_tasks": unit.num_tasks,
            "algorithm": unit.algorithm,
            "objective": unit.objective,
            "num_images": self._job.config.evaluate.num_images,
            "seconds_per_inference": seconds,
            "num_gradients": num_gradients,
            "bits_read_fraction": 1.0,
            "device": device_name(self._device),
        }
        columns |= {name: [value] * len(asked) for name, value in same.items()}
        ordered = {name: columns[name] for name in results.EVALUATIONS.names}
        return pa.table(ordered, schema=results.EVALUATIONS)

    def _num_right(self, masks: PackedMasks, query: _Query, task_id: int) -> int:
        """Images of a batch that one mask labels rightly."""
        alone = PackedMasks(masks.layout, masks.rows[task_id : task_id + 1], masks.device)
        one = torch.ones((1, 1), device=masks.device)
        weights = [w[0] for w in alone.effective_weights(self._weights, one)]
        return int((forward(weights, query.images).argmax(dim=1) == query.labels).sum())
