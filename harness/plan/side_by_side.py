"""Number of blocks that a training worker trains at the same time."""

from harness.config.schema import AUTO, Config

# A GPU is busy with this number of tasks of LeNet 300-100: with twice as many, an H100 trains 2 %
# more tasks per second (benchmarks/gpu.py). Larger networks need fewer.
_TASKS_ON_A_GPU = 256


def blocks_side_by_side(config: Config, num_workers: int, on_gpus: bool, num_tasks: int) -> int:
    """Choose how many blocks a work unit has.

    On a CPU, one block after another is fastest. On a GPU, `auto` takes as many blocks as keep the
    GPU busy, but no more than give every worker a unit. The worker itself divides the blocks if
    they do not fit into the memory of its GPU.

    Args:
        config: the configuration, with a resolved block.
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
