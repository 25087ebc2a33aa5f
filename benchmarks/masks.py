"""Load masks for the inference benchmarks: trained masks, distractors, and queries."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from commandline import need_memory
from jobs import compose

from harness.config.identity import from_yaml
from harness.config.schema import Config
from harness.data.catalogue import load_dataset
from harness.data.dataset import Dataset
from harness.errors import UserError
from harness.run.spec import RunSpec
from harness.storage.store import MaskStore
from harness.workers.prepared import with_distractors
from supsup_core.data import normalise

ROOT = Path(__file__).resolve().parent.parent
# Options of the run that is trained if no run is named. Training takes about a minute.
FALLBACK = ["tasks=64", "train=fast", "evaluate.checkpoints=[]", "run_dir=runs/benchmark-inference"]


@dataclass(frozen=True, eq=False)  # == of arrays has no single truth value
class Masks:
    """The masks among which a benchmark infers tasks.

    Attributes:
        spec: the specification of the run that trained the masks.
        data: the run's data set.
        rows: T packed masks of R bytes, (T, R): first the trained masks, then distractors.
        num_trained: number of trained masks. Queries come from the tasks of these masks.
    """

    spec: RunSpec
    data: Dataset
    rows: np.ndarray
    num_trained: int

    def first(self, num_masks: int) -> "Masks":
        """Return the first `num_masks` of these masks."""
        return Masks(self.spec, self.data, self.rows[:num_masks], min(self.num_trained, num_masks))

    def weights(self) -> list[torch.Tensor]:
        """Return the fixed weights of each layer."""
        return list(self.spec.weights().values())

    def queries(self, count: int, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
        """Draw test images of random trained tasks.

        Returns:
            The images of Q queries with P pixels, (Q, 1, P), and their task numbers, (Q,).
        """
        generator = np.random.default_rng(seed)
        truth = generator.integers(0, self.num_trained, count)
        test = self.data.test
        pixels = []
        for task_id in truth.tolist():
            task = self.spec.task(task_id)
            index = generator.choice(task.members(test.labels), 1)
            pixels.append(task.images(test.flat[index]))
        shown = torch.from_numpy(np.concatenate(pixels))
        return normalise(shown, test.mean, test.std)[:, None], truth


def train_some() -> Path:
    """Train the masks of FALLBACK if they do not exist yet, and return the run's folder."""
    config = compose(FALLBACK)
    folder = ROOT / str(config.run_dir)
    command = [sys.executable, str(ROOT / "harness" / "scale.py"), *FALLBACK, "quiet=true"]
    # The job prints to stderr, because stdout is for the benchmark's figures.
    subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr)
    return folder


def load_masks(run: Path | None, num_masks: int) -> Masks:
    """Read the masks of a run's first tasks, and add distractors until there are enough masks.

    Args:
        run: the run's folder, or None to train the masks of FALLBACK.
        num_masks: T, the number of masks.

    Raises:
        UserError: the committed tasks are not 0 to k - 1, no task is committed, or the masks do
            not fit into memory.
    """
    run = run or train_some()
    config: Config = from_yaml(run / "config.yaml")
    data = load_dataset(config.data)
    spec = RunSpec(config, data.input_shape, data.num_classes)
    need_memory(num_masks * spec.layout.row_bytes, "--tasks")
    store = MaskStore.open(run, read_only=True)
    tasks = store.tasks().slice(0, num_masks)
    ids = tasks["task_id"].to_numpy()
    if not len(ids) or (ids != np.arange(len(ids))).any():
        raise UserError(
            f"run directory {run} must have committed tasks 0 to k - 1, got {ids.tolist()[:9]} and "
            "so on: finish the run first"
        )
    rows = store.read(ids, tasks["row_crc32c"].to_numpy())
    return Masks(spec, data, with_distractors(spec, rows, num_masks - len(rows)), len(rows))
