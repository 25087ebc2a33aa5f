"""A stored run as an object: masks, gains, models, task inference, tables and exports.

The object uses the engines and the tables of the commands, so it gives the same answers. It changes
no file, takes no lock, and does not need the data set.

Shape letters: Q queries, K images of a query, T tasks, N images, R bytes of a packed row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from harness.config.identity import from_yaml
from harness.config.schema import Config
from harness.errors import UserError
from harness.places.places import Place, place
from harness.reading.export import export
from harness.run.shared import weights_after
from harness.run.spec import RunSpec
from harness.storage.arrays import store_exists
from harness.storage.store import MaskStore
from harness.tables.files import read_tables
from harness.tables.schemas import FOLDERS, SCHEMAS
from harness.workers.prepared import CheckpointMasks
from harness.workers.queries import State
from supsup_core.engines.protocol import Engine
from supsup_core.inference.forward import FORWARD_SCORES
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.names import FORWARD_ALGORITHMS, GIVEN
from supsup_core.networks.masked import MaskedModel, Moments, normalised
from supsup_core.networks.protocol import Network
from supsup_core.states.choose import stored_states
from supsup_core.tasks.protocol import Task


@dataclass(frozen=True, eq=False)  # == of tensors has no single truth value
class Inferred:
    """The answers of a task inference.

    Attributes:
        tasks: (Q,) the inferred task of each query.
        scores: (Q, T) one value per task. A task with a smaller value is more likely. The values
            are the slopes at equal coefficients, for algorithms that use gradients. For
            `min_entropy` they are entropies in nats, and for `max_logit` negative logits. With
            `one_shot`, `min_entropy` and `max_logit`, the answer is the task with the smallest
            value. Other algorithms go on from the slopes.
    """

    tasks: Int64[Tensor, " Q"]
    scores: Float[Tensor, "Q T"]


class StoredRun:
    """A run in a run directory. Use `open_run` to get one.

    A run may still be training. The object then has the tasks that were committed when it was made.

    Args:
        directory: the run directory.

    Attributes:
        config: the configuration, with every `auto` resolved.
        task_ids: the numbers of the committed tasks. In scenario nns, these are the numbers of the
            masks that the learner has allocated.

    Raises:
        UserError: the folder holds no run, or its store cannot be read.
    """

    def __init__(self, directory: Place) -> None:
        if not (directory / "config.yaml").exists() or not store_exists(directory):
            raise UserError(
                f"run_dir must be the folder of one run, got {directory}, which has no config.yaml "
                "or no masks.zarr: check the path, or choose a folder such as seed-0 inside it"
            )
        self.config: Config = from_yaml(directory / "config.yaml")
        self._directory = directory
        self._store = MaskStore.open(directory, read_only=True)
        attributes = self._store.attributes
        self._moments: Moments = (
            tuple(attributes["normalisation"]["mean"]),
            tuple(attributes["normalisation"]["std"]),
        )
        shape = tuple(attributes["input_shape"])
        self._spec = RunSpec(self.config, shape, attributes["num_classes"])
        log = self._store.tasks(["task_id", "row_crc32c"])
        self._crcs = dict(
            zip(log["task_id"].to_pylist(), log["row_crc32c"].to_pylist(), strict=True)
        )
        self.task_ids: tuple[int, ...] = tuple(self._crcs)

    def __repr__(self) -> str:
        return f"StoredRun({self._directory}: {len(self.task_ids)} of {self.config.tasks} tasks)"

    @property
    def network(self) -> Network:
        """The fixed network."""
        return self._spec.network

    def rows(self, task_ids: Sequence[int]) -> UInt8[np.ndarray, "B R"]:
        """Read packed rows, and check each row against its checksum.

        Args:
            task_ids: the numbers of B committed tasks.

        Raises:
            ValueError: a task is not committed.
            CorruptMask: a row does not match its checksum.
        """
        for task_id in task_ids:
            if task_id not in self._crcs:
                raise ValueError(
                    f"task_id must be a committed task, one of {len(self.task_ids)} tasks up to "
                    f"{max(self.task_ids, default=None)}, got {task_id}: choose one of run.task_ids"
                )
        return self._store.read(task_ids, [self._crcs[i] for i in task_ids])

    def gains(self, task_id: int) -> dict[str, Tensor]:
        """Return the gains of a task: the factors that multiply the fixed weights.

        Returns:
            A mapping from the name of each masked tensor to float32 gains with the tensor's shape.

        Raises:
            ValueError, CorruptMask: see rows.
        """
        return dict(self._state(task_id).gains)

    def mask(self, task_id: int) -> dict[str, Tensor]:
        """Return the mask of a task: which weights it keeps.

        A weight is kept if its gain is not zero.

        Returns:
            A mapping from the name of each masked tensor to booleans with the tensor's shape.

        Raises:
            ValueError, CorruptMask: see rows.
        """
        return {name: gain != 0 for name, gain in self.gains(task_id).items()}

    def model(self, task_id: int, device: str | torch.device = "cpu") -> MaskedModel:
        """Make a module that classifies the images of a task.

        Args:
            task_id: the number of a committed task.
            device: the device of the module.

        Returns:
            A module in evaluation mode. It takes pixels of uint8 or normalised inputs, changed as
            the task changes them; see `task`. If tasks train the weights, the weights are those
            after the last task for which the store keeps them.

        Raises:
            ValueError, CorruptMask: see rows.
        """
        state = self._state(task_id)
        weights = self._spec.weights_for(task_id, self._weights)
        made = MaskedModel(self.network, weights, state.gains, state.floats, self._moments)
        return made.eval().to(device)

    def task(self, task_id: int) -> Task:
        """Make a task of the run: `task.images(pixels)` changes images as the task does."""
        return self._spec.task(task_id)

    def infer(
        self,
        images: Tensor | np.ndarray,
        algorithm: str = "one_shot",
        objective: str | None = "H",
        num_tasks: int | None = None,
    ) -> Inferred:
        """Infer to which task images belong.

        Args:
            images: (Q, K, *input_shape) the images of Q queries, or (K, *input_shape) those of one
                query. The K images of a query belong to one task, and one image may be enough.
                Pixels of uint8 are normalised; other inputs must be normalised already.
            algorithm: the algorithm; see `evaluate.algorithms`.
            objective: the objective, for algorithms that use gradients; see `evaluate.objectives`.
            num_tasks: infer among the tasks 0 to num_tasks - 1; None: among all tasks up to the
                first one that is not committed.

        Raises:
            ValueError: the shape, the algorithm, the objective or num_tasks is not possible.
            CorruptMask: a row does not match its checksum.
        """
        self._check(algorithm, objective)
        shape = self.network.input_shape
        given = torch.as_tensor(images)
        if (
            given.ndim not in (len(shape) + 1, len(shape) + 2)
            or given.shape[-len(shape) :] != shape
        ):
            raise ValueError(
                f"images must have the shape (Q, K, *{shape}) or (K, *{shape}), got "
                f"{tuple(given.shape)}: add an axis for the images of a query"
            )
        queries = given if given.ndim == len(shape) + 2 else given[None]
        inputs = normalised(queries, self._moments).to(torch.float32)
        engine = self._engine(self._num_leading if num_tasks is None else num_tasks)
        found = [
            self._infer(engine, some, algorithm, objective)
            for some in inputs.split(engine.queries_together(inputs.shape[1]))
        ]
        return Inferred(
            torch.cat([one.tasks for one in found]), torch.cat([one.scores for one in found])
        )

    def table(self, name: str) -> pa.Table:
        """Read a table of the run: tasks, evaluations, queries, reservoir and others.

        Returns:
            All rows that the run has written so far. The table is empty if there are none.

        Raises:
            ValueError: the table is unknown, or a file is damaged.
            UserError: another version of the program wrote a file.
        """
        if name not in SCHEMAS:
            raise ValueError(f"table must be one of {', '.join(SCHEMAS)}, got {name!r}")
        folder = self._directory / FOLDERS[name]
        return read_tables(folder, SCHEMAS[name], run_id=self._store.run_id)

    def export(self, task_id: int, path: str | Path) -> None:
        """Write the mask, the gains and the floats of a task to a file in the format safetensors.

        The file has an array of booleans `mask.NAME` for each masked tensor. If some gains are
        neither 0 nor 1, it also has `gain.NAME`. The floats of the task have the names
        `float.NAME`.

        Raises:
            ValueError, CorruptMask: see rows.
            OSError: the file cannot be written.
        """
        config = self.config
        about = {
            "run_id": self._store.run_id,
            "task": str(task_id),
            "network": config.network,
            "method": config.method,
            "seed": str(config.seed),
        }
        state = self._state(task_id)
        export(Path(path), state.gains, state.floats, about)

    def _state(self, task_id: int) -> State:
        rows = self.rows([task_id])
        return State.of(stored_states(self._spec.layout, rows, torch.device("cpu")), 0)

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        """The weights of the network: those of the seed, or the trained ones."""
        spec = self._spec
        weights = spec.weights()
        if not spec.trained_weights:
            return weights
        last = next((k for k in range(self._num_leading, 0, -1) if self._keeps(k)), None)
        if last is None:
            raise UserError(
                f"{self._directory} must keep trained weights, got none yet: wait until the first "
                "checkpoint"
            )
        trained = self._store.shared.read(weights_after(spec, last))
        return weights | {n: torch.from_numpy(trained[n]) for n in spec.trained_weights}

    def _keeps(self, num_tasks: int) -> bool:
        return self._store.shared.has(weights_after(self._spec, num_tasks))

    @cached_property
    def _num_leading(self) -> int:
        """The number of committed tasks before the first task that is not committed."""
        return next(i for i in range(len(self._crcs) + 1) if i not in self._crcs)

    @cached_property
    def _prepared(self) -> CheckpointMasks:
        return CheckpointMasks(self._spec, self._weights, torch.device("cpu"))

    def _engine(self, num_tasks: int) -> Engine:
        if not 1 <= num_tasks <= self._num_leading:
            raise ValueError(
                f"num_tasks must lie in [1, {self._num_leading}], the number of committed tasks "
                f"without a gap, got {num_tasks}"
            )
        return self._prepared.of(self.rows(range(num_tasks))).engine

    def _check(self, algorithm: str, objective: str | None) -> None:
        known = sorted(self._spec.capabilities.supports - {GIVEN})
        if algorithm not in known:
            raise ValueError(
                f"algorithm must be one of {', '.join(known) or 'none'} for this run, got "
                f"{algorithm!r}"
            )
        if algorithm not in FORWARD_ALGORITHMS and objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")

    def _infer(
        self, engine: Engine, inputs: Tensor, algorithm: str, objective: str | None
    ) -> Inferred:
        spec = self._spec
        if algorithm in FORWARD_ALGORITHMS:
            found = engine.infer(inputs, algorithm, None, spec.options)
            score = FORWARD_SCORES[algorithm]
            scores = score(self.network, self._weights, engine.stored, inputs, spec.num_real).T
            return Inferred(found.tasks, scores)
        assert objective is not None
        minimised = OBJECTIVES[objective]
        found = engine.infer(inputs, algorithm, minimised, spec.options)
        gradient = engine.gradient(inputs, minimised)
        num_tasks = gradient.num_tasks
        return Inferred(found.tasks, gradient(torch.full((1, num_tasks), 1 / num_tasks)))


def open_run(run_dir: str | Path) -> StoredRun:
    """Open a run to read it from Python.

    Args:
        run_dir: the folder of one run, or a URL such as s3://BUCKET/FOLDER.

    Raises:
        UserError: the folder holds no run, or its store cannot be read.
    """
    return StoredRun(place(str(run_dir)))
