"""Compute the number of actors in each pool, and the CPUs and GPUs that an actor reserves."""

from dataclasses import dataclass

from harness.config.names import AUTO
from harness.config.schema import Config, is_streamed

TRAIN, EVALUATE = "train", "evaluate"  # names of pools

_LEAST_SHARE = 1e-4  # Ray counts resources in units of this size


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

    With GPUs, see _on_gpus. Without GPUs, each actor needs a slot, which is one CPU. If
    `actors.train` and `actors.evaluate` are auto, the slots are divided like this:

    - With 8 CPUs or more, evaluation gets one eighth of them, rounded down. Training gets the
      other CPUs.
    - With 1 to 7 CPUs, training gets all of them, because the loss of one CPU would slow training
      by more than an eighth. One evaluation actor uses the same CPUs and reserves none.

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
    if int(gpus) and config.train.device != "cpu":
        return _on_gpus(config, cpus, int(gpus))
    kept = cpus - 1 if is_streamed(config) else cpus // 8
    train = _number(config.actors.train, cpus - kept)
    evaluate = _number(config.actors.evaluate, kept)
    if config.actors.shards > 1:
        evaluate = config.actors.shards
    if train > cpus:
        raise _too_many(train, cpus, f"{cpus} CPUs")
    # Evaluation actors that reserve nothing use the CPUs of the training actors.
    reserves = bool(kept) and train + evaluate <= cpus
    return (
        PoolSize(train, train, cpus=1.0, gpus=0.0),
        PoolSize(evaluate, max(evaluate, cpus), cpus=float(reserves), gpus=0.0),
    )


def _on_gpus(config: Config, cpus: int, gpus: int) -> tuple[PoolSize, PoolSize]:
    """Divide the GPUs between the actors of training and of evaluation.

    A slot is the fraction `actors.gpus` of one GPU. There are at most as many slots as CPUs,
    because each actor needs one thread. If the numbers of actors are auto, evaluation gets one
    eighth of the slots, rounded down, and at least one slot. Training gets the other slots, and at
    least one slot.

    If both pools together need more slots than the GPUs have, they share the GPUs; see _shares.
    An example is one GPU with `actors.gpus=1`. On a GPU that it shares, evaluation is faster than
    on a CPU.

    Actors with a part of the masks (`actors.shards`) work on CPUs, and so does a learner that
    follows a stream. The actors of the other pool then get all slots.
    """
    actors, one_cpu = config.actors, min(1.0, cpus)
    # The slot of an actor must lie on one GPU. So two GPUs have 4 slots of 0.4 GPUs, not 5.
    on_gpus = gpus * int(1 / actors.gpus + 1e-9)
    slots = min(on_gpus, max(1, cpus))
    trains, infers = not is_streamed(config), actors.shards == 1  # which pools use GPUs
    kept = min(max(1, slots // 8), slots - 1) if infers else 0
    train = _number(actors.train, slots - kept if trains else 1)
    if train > slots:
        found = f"{gpus} GPUs and {cpus} CPUs, and an actor takes {actors.gpus} GPUs"
        raise _too_many(train, slots, found)
    evaluate = actors.shards
    if infers:
        evaluate = min(_number(actors.evaluate, kept if trains else slots), max(1, cpus))
    for_training = for_evaluation = actors.gpus
    if trains and infers and train + evaluate > on_gpus:
        for_training, for_evaluation = _shares(-(-train // gpus), evaluate)
    # An actor that reserves nothing may be put on the head of a cluster, which must not compute.
    return (
        PoolSize(train, train, cpus=0.0, gpus=for_training)
        if trains
        else PoolSize(train, train, cpus=one_cpu, gpus=0.0),
        PoolSize(evaluate, max(evaluate, slots), cpus=0.0, gpus=for_evaluation)
        if infers
        else PoolSize(evaluate, evaluate, cpus=one_cpu, gpus=0.0),
    )


def _shares(train_per_gpu: int, evaluate: int) -> tuple[float, float]:
    """Divide a GPU between training actors and evaluation actors.

    A GPU has room for exactly `train_per_gpu` training actors. Therefore the training actors spread
    over all GPUs. A GPU also has room for all evaluation actors, because Ray may put all of them on
    one GPU. Ray may start the actors in any order, and no actor waits for room.

    Args:
        train_per_gpu: the number of training actors of a GPU.
        evaluate: the number of all evaluation actors.

    Returns:
        The fraction of a GPU that a training actor reserves, and that of an evaluation actor.
    """
    # Together, the evaluation actors get half of the room of one more training actor.
    one = max(_LEAST_SHARE, _rounded_down(1 / (2 * (train_per_gpu + 1) * evaluate)))
    return _rounded_down((1 - evaluate * one) / train_per_gpu), one


def _rounded_down(share: float) -> float:
    return int(share / _LEAST_SHARE + 1e-6) * _LEAST_SHARE


def _number(typed: int | str, automatic: int) -> int:
    """Return the number of actors that the user typed, or the automatic number, at least 1."""
    return max(1, automatic) if typed == AUTO else int(typed)


def _too_many(train: int, most: int, found: str) -> ValueError:
    return ValueError(
        f"actors.train must be at most {most}, because Ray has {found}, got {train}: "
        "try actors.train=auto"
    )
