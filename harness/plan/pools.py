"""How many actors each pool has, and what they reserve."""

from dataclasses import dataclass

from harness.config.schema import AUTO, Config

TRAIN, EVALUATE = "train", "evaluate"  # names of pools


@dataclass(frozen=True)
class PoolSize:
    """How many actors a pool has, and what one of them reserves.

    Attributes:
        actors: while the other pool may be at work.
        actors_alone: once training is over.
        cpus, gpus: reserved for one actor.
    """

    actors: int
    actors_alone: int
    cpus: float
    gpus: float


def pool_sizes(config: Config, *, cpus: int, gpus: float) -> tuple[PoolSize, PoolSize]:
    """Divide what Ray found between training and evaluation.

    On few CPUs every one trains, and an evaluation actor shares them without a
    reservation; from 8 on, one in eight is kept for evaluation. With GPUs an actor
    takes its share of one, and evaluation keeps one share in eight, at least one.

    Returns:
        The training pool's size and the evaluation pool's.

    Raises:
        ValueError: more actors asked for than Ray would ever start.
    """
    # An actor's share lies on one GPU: two GPUs in shares of 0.4 serve four actors, not five.
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
            f"actors.train must be at most {slots}, for Ray has {found}, got {num_train}: "
            "lower it, or leave it at auto"
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
