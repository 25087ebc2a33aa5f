"""Compute the number of actors in each pool, and the CPUs and GPUs that an actor reserves."""

from dataclasses import dataclass

from harness.config.schema import AUTO, Config, is_streamed

TRAIN, EVALUATE = "train", "evaluate"  # names of pools


@dataclass(frozen=True)
class PoolSize:
    """The number of actors in a pool, and the CPUs and GPUs that one actor reserves.

    Attributes:
        actors: number of actors while training and evaluation may run at the same time.
        actors_alone: number of actors after training has ended.
        cpus: CPUs that Ray reserves for one actor; 0 if the actor shares CPUs with other actors.
        gpus: GPUs that Ray reserves for one actor; may be a fraction.
    """

    actors: int
    actors_alone: int
    cpus: float
    gpus: float


def pool_sizes(config: Config, *, cpus: int, gpus: float) -> tuple[PoolSize, PoolSize]:
    """Divide the CPUs and GPUs of Ray between the actors of training and of evaluation.

    Each actor needs a slot. A slot is one CPU or, if there are GPUs, the fraction `actors.gpus` of
    a GPU. If `actors.train` and `actors.evaluate` are auto, the slots are divided like this:

    - With 8 slots or more, evaluation gets one eighth of them, rounded down. Training gets the
      other slots.
    - With 1 to 7 CPUs, training gets all of them, because the loss of one CPU would slow training
      by more than an eighth. One evaluation actor uses the same CPUs and reserves none.
    - With 2 to 7 slots on GPUs, evaluation gets one slot. Training gets the other slots.
    - With one slot on a GPU, training gets this slot. One evaluation actor works on a CPU.

    With GPUs, there are at most as many slots as CPUs, because each actor needs one thread.

    If a learner follows a stream, one training actor on a CPU is enough, and evaluation gets the
    other slots.

    Args:
        config: the configuration.
        cpus: number of CPUs that Ray found.
        gpus: number of GPUs that Ray found; 0 means that the actors work on CPUs.

    Returns:
        The sizes of the training pool and of the evaluation pool.

    Raises:
        ValueError: actors.train is larger than the number of slots.
    """
    if config.train.device == "cpu":
        gpus = 0
    # The slot of an actor must lie on one GPU. So two GPUs have 4 slots of 0.4 GPUs, not 5.
    on_gpus = int(gpus) * int(1 / config.actors.gpus + 1e-9)
    slots = min(on_gpus, max(1, cpus)) if gpus else cpus
    kept = slots // 8 if not gpus else min(max(1, slots // 8), slots - 1)
    if is_streamed(config):
        kept = slots - 1
    train, evaluate = config.actors.train, config.actors.evaluate
    num_train = max(1, slots - kept) if train == AUTO else int(train)
    num_evaluate = max(1, kept) if evaluate == AUTO else int(evaluate)
    if config.actors.shards > 1:
        num_evaluate = config.actors.shards
    if num_train > slots:
        share = f"{gpus:g} GPUs and {cpus} CPUs, and an actor takes {config.actors.gpus} GPUs"
        found = share if gpus else f"{cpus} CPUs"
        raise ValueError(
            f"actors.train must be at most {slots}, because Ray has {found}, got {num_train}: "
            "try actors.train=auto"
        )
    reserves = bool(kept) and num_train + num_evaluate <= slots
    share_of_gpu = config.actors.gpus if gpus else 0.0
    trains_on_gpu = bool(gpus) and not is_streamed(config)
    # An actor that reserves nothing may be put on the head of a cluster, which must not compute. On
    # one machine without GPUs, evaluation actors may use the CPUs of the training actors.
    on_own_cpu = not reserves if gpus else reserves
    if gpus and not reserves:
        num_evaluate = min(num_evaluate, max(1, cpus))  # on CPUs
    return (
        PoolSize(
            num_train,
            num_train,
            cpus=0.0 if trains_on_gpu else 1.0,
            gpus=share_of_gpu if trains_on_gpu else 0.0,
        ),
        PoolSize(
            num_evaluate,
            max(num_evaluate, slots) if reserves or not gpus else num_evaluate,
            cpus=min(1.0, cpus) if on_own_cpu else 0.0,
            gpus=share_of_gpu if reserves else 0.0,
        ),
    )
