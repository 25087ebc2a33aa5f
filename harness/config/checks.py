"""Check the values of a configuration.

These checks read neither the data set nor the properties of the machine.
"""

from typing import Any

from harness.config.keys import OPTION_KEYS, leaf
from harness.config.kinds import as_typed
from harness.config.names import AUTO, DEFAULT_ALGORITHMS
from harness.config.option import options_of
from harness.config.schema import Config, is_streamed
from harness.errors import UserError
from harness.places.places import check_url, is_url
from supsup_core.names import SHARDED_ALGORITHMS, WITHOUT_OBJECTIVE


def check(config: Config) -> None:
    """Check the type and the limits of every value, and whether the values fit together.

    Raises:
        UserError: a value is not allowed. The message names the key, the allowed values, the value,
            and what to type instead.
    """
    for key, option in options_of(type(config)).items():
        option.check(leaf(config, key))
    for one in (_check_option_names, _check_objectives, _check_momentum, check_checkpoints):
        one(config)
    _check_num_images(config)
    _check_shards(config)
    if is_streamed(config):
        _check_stream(config)
    if config.run_dir is not None and is_url(config.run_dir):
        check_url(config.run_dir)
        _check_loggers(config)


def must_be(key: str, expected: str, value: Any, instead: str) -> UserError:
    """Make the error for a value that does not agree with the value of another key.

    Args:
        key: the refused key.
        expected: the allowed values, and the name of the other key, which limits these values.
        value: the refused value.
        instead: the text to type instead: one or more texts KEY=VALUE, separated by spaces.
    """
    return UserError(f"{key} must be {expected}, got {as_typed(value)}: try {instead}")


def _check_objectives(config: Config) -> None:
    algorithms = config.evaluate.algorithms
    takes_gradients = algorithms == AUTO or set(algorithms) - set(WITHOUT_OBJECTIVE)
    if takes_gradients and not config.evaluate.objectives:
        raise must_be(
            "evaluate.objectives",
            "a list with one or more objectives, because an algorithm computes gradients",
            [],
            "evaluate.objectives=[H]",
        )


def _check_momentum(config: Config) -> None:
    train = config.train
    if train.momentum and train.optimizer == "rmsprop":
        raise must_be(
            "train.momentum",
            "0 with train.optimizer=rmsprop, which has no momentum",
            train.momentum,
            "train.optimizer=adam",
        )


def _check_option_names(config: Config) -> None:
    """Refuse an option name that is no Python identifier, because no parameter has such a name.

    harness/config/options.py checks all other names, and the values.
    """
    for key in OPTION_KEYS.values():
        for option in getattr(config, key):
            if not str(option).isidentifier():
                raise UserError(
                    f"{key} must have options with names such as density, got {option!r}: leave "
                    "this option out"
                )


def check_checkpoints(config: Config) -> None:
    """Check that no checkpoint is above the number of tasks.

    Raises:
        UserError: a checkpoint is above the number of tasks.
    """
    checkpoints = config.evaluate.checkpoints
    if checkpoints == AUTO:
        return
    if wrong := [k for k in checkpoints if k > config.tasks]:
        fitting = [k for k in checkpoints if k not in wrong] or [config.tasks]
        raise must_be(
            "evaluate.checkpoints",
            f"at most tasks={config.tasks}",
            wrong,
            f"evaluate.checkpoints={as_typed(fitting)}",
        )


def _check_num_images(config: Config) -> None:
    num_images, most = config.evaluate.num_images, config.evaluate.batch_size
    if num_images != AUTO and int(num_images) > most:
        raise must_be(
            "evaluate.num_images",
            f"at most evaluate.batch_size={most}",
            num_images,
            f"evaluate.num_images={most}",
        )


def _check_stream(config: Config) -> None:
    """Check the keys for which a learner on a stream allows fewer values."""
    scenario = f"scenario={config.scenario}"
    allowed = {
        "train.block": ((AUTO, 1), f"auto or 1 with {scenario}, where masks train one by one"),
        "actors.side_by_side": (
            (AUTO, 1),
            f"auto or 1 with {scenario}, where masks train one by one",
        ),
        "actors.shards": ((1,), f"1 with {scenario}"),
        "evaluate.reservoir": ((False,), f"false with {scenario}"),
    }
    for key, (values, expected) in allowed.items():
        if leaf(config, key) not in values:
            raise must_be(key, expected, leaf(config, key), f"{key}={as_typed(values[0])}")


def _check_loggers(config: Config) -> None:
    """Refuse loggers of a run in object storage, because they write files beside the run."""
    if config.loggers:
        raise must_be("loggers", "[] for a run_dir in object storage", config.loggers, "loggers=[]")


def _check_shards(config: Config) -> None:
    """Check that several actors can share the evaluations, if actors.shards is above 1."""
    if config.actors.shards == 1:
        return
    algorithms = config.evaluate.algorithms
    asked = DEFAULT_ALGORITHMS if algorithms == AUTO else algorithms
    if any(name not in SHARDED_ALGORITHMS for name in asked):
        raise must_be(
            "evaluate.algorithms",
            f"a list with one or more of {', '.join(SHARDED_ALGORITHMS)} if actors.shards > 1",
            algorithms,
            f"evaluate.algorithms={as_typed(SHARDED_ALGORITHMS)}",
        )
    if config.evaluate.distractors:
        raise must_be(
            "evaluate.distractors",
            "0 if actors.shards > 1",
            config.evaluate.distractors,
            "evaluate.distractors=0",
        )
    if config.evaluate.reservoir:
        raise must_be(
            "evaluate.reservoir",
            "false if actors.shards > 1, because one actor of a recall holds all masks",
            True,
            "evaluate.reservoir=false",
        )
