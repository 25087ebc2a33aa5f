"""Make the queries of an evaluation, and score their answers.

A query consists of some images of one test batch. After inference, the right labels of the whole
batch are counted twice: with the mask of the batch's own task, and with the mask of the inferred
task.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from harness.plan.device import device_name
from harness.plan.evaluation import evaluation_settings
from harness.plan.ownership import BY_NUMBER, Ownership
from harness.plan.units import EvaluationUnit
from harness.run.images import images_of_tasks
from harness.run.spec import RunSpec
from harness.tables.inference import EVALUATIONS
from harness.workers.answers import Answers
from harness.workers.query_rows import query_rows
from supsup_core.data import ImageSet, normalise
from supsup_core.names import GIVEN
from supsup_core.networks.protocol import Floats, Gains
from supsup_core.states.choose import stored_states
from supsup_core.states.protocol import States
from supsup_core.streams import Role, stream
from supsup_core.tasks.protocol import Task
from supsup_core.tasks.shown import ShownImages

# Images are labelled in groups. The images of a group have at most this number of activations,
# which take 256 MB as float32.
_ACTIVATIONS = 2**26


@dataclass(frozen=True)
class TaskQueries:
    """The test batches of one task. One query is made from each batch.

    Attributes:
        task: the task of the batches.
        batches: for each batch, the indices of its images in the test set.
    """

    task: Task
    batches: Sequence[np.ndarray]


@dataclass(frozen=True, eq=False)  # == of tensors has no single truth value
class State:
    """The state of one task, unpacked on a device.

    Attributes:
        gains: a mapping from the name of a masked tensor to its gains.
        floats: a mapping from the name of an array of floats to its values.
    """

    gains: Gains
    floats: Floats

    @classmethod
    def of(cls, states: States, task: int) -> "State":
        """Return the state of one task among stored states."""
        return cls(states.gains(task), states.floats(task))


def queries_of_tasks(spec: RunSpec, test: ImageSet) -> Callable[[int], int]:
    """Return a function from a task number to the number of the task's queries.

    Args:
        spec: the run's specification.
        test: the test images.
    """
    num_images = images_of_tasks(spec, test)
    return lambda task_id: len(_batches(spec, num_images(task_id)))


def _batches(spec: RunSpec, num_images: int) -> list[slice]:
    """Divide a task's test images, in the order of the evaluation, into test batches."""
    evaluate = spec.config.evaluate
    size = evaluate.batch_size
    bounds = [(start, min(start + size, num_images)) for start in range(0, num_images, size)]
    # A network that normalises over a batch cannot use a batch of one image.
    fewest = 2 if spec.network.normalises else 1
    batches = [slice(start, end) for start, end in bounds if end - start >= fewest]
    return batches[: evaluate.batches]


class Queries:
    """The queries for each task of a run. An object of this class also scores the answers.

    Args:
        spec: the run's specification.
        test: the test images.
        device: the device on which images are classified.

    Attributes:
        device: the device on which images are classified.
        weights: a mapping from name to the network's fixed weights, on the device.
    """

    def __init__(self, spec: RunSpec, test: ImageSet, device: torch.device) -> None:
        self._spec, self._test, self.device = spec, test, device
        self._shown = ShownImages(test, device)
        self.weights = {name: weight.to(device) for name, weight in spec.weights().items()}
        # The checkpoint whose weights are used; None for the fixed weights of the network.
        self._checkpoint: int | None = None
        # For each task, the number of right labels in each batch with the task's own mask. With
        # fixed weights, the numbers are the same at every checkpoint, so they are computed once.
        self._given: dict[int, list[int]] = {}

    def use_weights(self, num_tasks: int, weights: Mapping[str, np.ndarray]) -> None:
        """Classify images with the trained weights of a checkpoint.

        Args:
            num_tasks: k, the checkpoint.
            weights: a mapping from name to weights. Other weights of the network stay unchanged.
        """
        if num_tasks == self._checkpoint:
            return
        self._checkpoint = num_tasks
        self._given.clear()
        for name in self._spec.trained_weights:
            self.weights[name] = torch.from_numpy(weights[name].copy()).to(self.device)

    def of(self, task_id: int) -> TaskQueries:
        """Return the task's test batches.

        Each task has its own random order of the test images, so that the tasks of a checkpoint
        are independent samples. Every checkpoint and every algorithm gets the same batches.
        """
        task = self._spec.task(task_id)
        members = task.members(self._test.labels)
        order = stream(self._spec.config.seed, Role.EVALUATION_ORDER, task_id).permutation(
            len(members)
        )
        batches = [members[order[one]] for one in _batches(self._spec, len(members))]
        return TaskQueries(task, batches)

    def images(self, asked: Sequence[TaskQueries]) -> torch.Tensor:
        """Return the normalised images of all queries.

        Args:
            asked: the test batches of some tasks. Each batch gives one query.

        Returns:
            (Q, K, *shape) the images: Q queries of K images each. An image has the shape `shape`.
        """
        num_images = int(self._spec.config.evaluate.num_images)  # resolved: no longer auto
        # A task's last batch may have fewer images than a query needs. Then the query repeats the
        # first images of the batch.
        parts = [
            self.shown(one.task, np.concatenate([np.resize(b, num_images) for b in one.batches]))
            for one in asked
        ]
        shown: torch.Tensor = torch.cat(parts).unflatten(0, (-1, num_images))
        return shown

    def shown(self, task: Task, index: np.ndarray) -> torch.Tensor:
        """Return some test images as the task changes them, for example with permuted pixels.

        The images are normalised after this change.

        Args:
            task: the task.
            index: indices of the images in the test set.
        """
        return normalise(self._shown.of(task, index), self._test.mean, self._test.std)

    def score(
        self,
        unit: EvaluationUnit,
        asked: Sequence[TaskQueries],
        answers: Answers,
        state_of: Callable[[int], State],
        own: Ownership = BY_NUMBER,
    ) -> dict[str, pa.Table]:
        """Count the right labels of each batch twice, and make one row for each query.

        One count uses the mask of the true task. The other count uses the mask of the inferred
        task. If a learner on a stream has no mask for a task, no label of the first count is right.

        Args:
            unit: the evaluation unit.
            asked: the test batches of the unit's tasks.
            answers: the inferred masks of these batches.
            state_of: a function that takes the number of a mask, and returns the mask's state.
            own: the tasks that the masks belong to.

        Returns:
            Rows of the table `evaluations`, one row per task. If the tasks were inferred, also rows
            of the table `queries`. The keys are the names of the tables.
        """
        same = self._settings(unit)
        tables = {"evaluations": self._counted(same, asked, answers, state_of, own)}
        if unit.algorithm != GIVEN:
            tables["queries"] = self._query_rows(same, asked, answers, own)
        return tables

    def _settings(self, unit: EvaluationUnit) -> dict[str, object]:
        """Return the values that all rows of a unit have in both tables, by column."""
        return {
            "num_tasks": unit.num_tasks + unit.num_distractors,
            "num_distractors": unit.num_distractors,
            "algorithm": unit.algorithm,
            "objective": unit.objective,
            **evaluation_settings(self._spec.config.evaluate, unit.algorithm, unit.num_tasks),
        }

    def _query_rows(
        self,
        same: Mapping[str, object],
        asked: Sequence[TaskQueries],
        answers: Answers,
        own: Ownership,
    ) -> pa.Table:
        every = [(one.task, i, batch) for one in asked for i, batch in enumerate(one.batches)]
        return query_rows(same, every, answers, own, self._shown)

    def _counted(
        self,
        same: Mapping[str, object],
        asked: Sequence[TaskQueries],
        answers: Answers,
        state_of: Callable[[int], State],
        own: Ownership,
    ) -> pa.Table:
        """Make the rows of the table `evaluations`; see `score`."""
        columns: dict[str, list[object]] = defaultdict(list)
        inferred = iter(answers.tasks)
        for one in asked:
            found = [next(inferred) for _ in one.batches]
            self._add_row(columns, one, found, state_of, own)
        same = {
            **same,
            "seconds_per_inference": answers.seconds,
            "num_gradients": answers.found.num_gradients,
            "bits_read_fraction": answers.found.bits_read_fraction,
            "agreement": answers.agreement,
            "device": device_name(answers.device),
        }
        columns |= {name: [value] * len(asked) for name, value in same.items()}
        ordered = {name: columns[name] for name in EVALUATIONS.names}
        return pa.table(ordered, schema=EVALUATIONS)

    def _add_row(
        self,
        columns: dict[str, list[object]],
        asked: TaskQueries,
        inferred: list[int],
        state_of: Callable[[int], State],
        own: Ownership,
    ) -> None:
        task_id = asked.task.task_id
        given_mask = own.mask_of(task_id)
        given = self._right_with_own_mask(asked, state_of, given_mask)
        hit = [own.task_of(mask) == task_id for mask in inferred]
        used = [
            right if mask == given_mask else self.num_right(asked.task, [batch], state_of(mask))[0]
            for right, batch, mask in zip(given, asked.batches, inferred, strict=True)
        ]
        num_images = sum(len(batch) for batch in asked.batches)
        columns["task_id"].append(task_id)
        columns["num_batches"].append(len(inferred))
        columns["task_accuracy"].append(sum(hit) / len(hit))
        columns["accuracy_gg"].append(sum(given) / num_images)
        columns["accuracy_gns"].append(sum(used) / num_images)
        columns["accuracy_gnu"].append(
            sum(right for right, h in zip(used, hit, strict=True) if h) / num_images
        )

    def _right_with_own_mask(
        self, asked: TaskQueries, state_of: Callable[[int], State], mask: int | None
    ) -> list[int]:
        if mask is None:
            return [0] * len(asked.batches)
        task_id = asked.task.task_id
        if task_id not in self._given:
            self._given[task_id] = self.num_right(asked.task, asked.batches, state_of(mask))
        return self._given[task_id]

    def state(self, row: np.ndarray) -> State:
        """Unpack one packed row, an array of bytes, into a state on the device."""
        return State.of(stored_states(self._spec.layout, row[None], self.device), 0)

    def num_right(self, task: Task, batches: Sequence[np.ndarray], state: State) -> list[int]:
        """Count, for each batch, the images that get the right label with a state.

        If the network normalises over a batch, it uses the mean and variance that are stored in the
        state. If the state has no such values, the network uses those of the batch.

        Args:
            task: the task of the batches.
            batches: for each batch, the indices of its images in the test set.
            state: the state that labels the images.
        """
        network = self._spec.network
        gains, floats = state.gains, state.floats or None
        shares_statistics = network.normalises and floats is None
        # Several batches are labelled together, as many as _ACTIVATIONS allows. But each batch is
        # labelled alone if it is normalised with its own statistics.
        fitting = _ACTIVATIONS // (network.num_activations * len(batches[0]))
        size = 1 if shares_statistics else max(1, fitting)
        together = [np.concatenate(batches[i : i + size]) for i in range(0, len(batches), size)]
        with torch.no_grad():
            # The weights depend on the task only if tasks are given, and not inferred.
            weights = self._spec.weights_for(task.task_id, self.weights)
            chosen = [
                network.logits(weights, gains, self.shown(task, index), floats)
                .argmax(dim=1)
                .cpu()
                .numpy()
                for index in together
            ]
        right = np.concatenate(chosen) == task.labels(self._test.labels[np.concatenate(batches)])
        ends = np.cumsum([len(batch) for batch in batches])[:-1]
        return [int(part.sum()) for part in np.split(right, ends)]
