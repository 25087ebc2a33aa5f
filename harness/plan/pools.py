"""Number of actors in each pool, and the CPUs and GPUs that they reserve."""

from dataclasses import dataclass

from harness.config.schema import AUTO, Config

TRAIN, EVALUATE = "train", "evaluate"  # names of pools


@dataclass(frozen=True)
class PoolSize:
    """The number of actors in a pool, and the reservation of one actor.

    Attributes:
        actors: number of actors while both pools may work.
        actors_alone: number of actors after training has ended.
        cpus: CPUs reserved per actor.
        gpus: GPUs reserved per actor; may be a fraction.
    """

    actors: int
    actors_alone: int
    cpus: float
    gpus: float


def pool_sizes(config: Config, *, cpus: int, gpus: float) -> tuple[PoolSize, PoolSize]:
    """Divide the CPUs and GPUs of Ray between training and evaluation.

    With up to 7 CPUs, every CPU has a training actor, and an evaluation actor shares the CPUs
    without a reservation, because a reserved CPU would cost training more than an eighth of its
    rate. With 8 CPUs or more, one CPU in eight is kept for evaluation. With GPUs, an actor takes a
    share of a GPU, and one share in eight is kept for evaluation: at least one share, unless there
    is only one.

    Args:
        config: the configuration.
        cpus: number of CPUs that Ray found.
        gpus: number of GPUs that Ray found; 0 means that the actors work on CPUs.

    Returns:
        The sizes of the training pool and of the evaluation pool.

    Raises:
        ValueError: actors.train is larger than the number of actors that Ray can start.
    """
    # The share of an actor must lie on one GPU: two GPUs in shares of 0.4 serve 4 actors, not 5.
    slots = int(gpus) * int(1 / config.actors.gpus + 1e-9) if gpus else cpus
    kept = slots // 8 if not gpus else min(max(1, slots // 8), slots - 1)
    train, evaluate = config.actors.train, config.actors.evaluate
    num_train = max(1, slots - kept) if train == AUTO else int(train)
    num_evaluate = max(1, kept) if evaluate == AUTO else int(evaluate)
    if config.actors.shards > 1:
        num_evaluate = config.actors.shards
    if num_train > slots:
        found = f"{gpus:g} GPUs in shares of {config.actors.gpus}" if gpus else f"{cpus} CPUs"
        raise ValueError(
            f"actors.train must be at most {slots}, because Ray has {found}, got {num_train}: "
            "try actors.train=auto"
        )
    reserves = kept and num_train + num_evaluate <= slots
    share = config.actors.gpus if gpus else 0.0
    return (
        PoolSize(num_train, num_train, cpus=0.0 if gpus else 1.0, gpus=share),
        PoolSize(
            num_evaluate,
            max(num_evaluate, slots) if reserves or not gpus else num_evaluate,
            cpus=1.0 if reserves and not gpus else 0.0,
            gpus=share if reserves else 0.0,
        ),
    )
