"""Number of blocks that a training worker trains at the same time."""

from harness.config.names import AUTO
from harness.config.schema import Config

# A GPU is busy with this number of tasks of LeNet 300-100: with twice as many, an H100 trains 2 %
# more tasks per second (benchmarks/gpu.py). Larger networks need fewer tasks.
_TASKS_ON_A_GPU = 256


def blocks_side_by_side(config: Config, num_workers: int, on_gpus: bool, num_tasks: int) -> int:
    """Choose how many blocks a work unit has.

    On a CPU, `auto` means one block, because it is fastest to train one block after another. On a
    GPU, `auto` means enough blocks to keep the GPU busy, but so few that every worker gets a unit.
    If the blocks of a unit do not fit into the memory of its GPU, the worker divides them.

    Args:
        config: the configuration. train.block is a number, not auto.
        num_workers: the largest number of training workers.
        on_gpus: whether the workers have GPUs.
        num_tasks: number of tasks that have no mask yet.
    """
    wanted, block = config.actors.side_by_side, int(config.train.block)
    if wanted != AUTO:
        return int(wanted)
    if not on_gpus:
        return 1
    per_worker = -(-num_tasks // (num_workers * block))
    return max(1, min(per_worker, _TASKS_ON_A_GPU // block))
