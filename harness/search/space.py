"""The space of a search: the searched keys, each with a range of values or a list of choices."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, product
from math import ceil
from typing import Any

from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
    Sweep,
)
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from harness.config.checks import check
from harness.config.help import EVERY_KEY
from harness.config.identity import differences
from harness.config.keys import FREE_KEYS, OPTION_KEYS, keys
from harness.config.kinds import in_words
from harness.config.option import nearest_key, options_of
from harness.config.options import option_type, resolved_options
from harness.config.schema import Config
from harness.errors import UserError
from harness.search.config import TuneJob
from harness.search.sweeps import FORMS, PREFIX, parse

# Trials with different values of these keys solve different problems, so their results cannot be
# compared. FREE_KEYS are not searched either, because they change no result.
_NOT_SEARCHED = ("tasks", "data", "data_options", "evaluate", "reservoir", *FREE_KEYS)
_MOST_CORNERS = 256
_WHOLE, _REAL = (int, int | str), (float,)


@dataclass(frozen=True)
class Dimension:
    """One searched key and its values.

    Attributes:
        key: the key, such as "train.smoothing".
        kind: declared type of the key's values.
        distribution: the distribution from which Optuna draws. It draws numbers for a range, and
            names for a list of choices.
        choices: a mapping from the name of each choice to its value; None for a range.
    """

    key: str
    kind: Any
    distribution: BaseDistribution
    choices: Mapping[str, Any] | None

    def value(self, sampled: Any) -> Any:
        """Return the value of the key.

        Args:
            sampled: the number or the name that Optuna drew from the distribution.
        """
        return sampled if self.choices is None else self.choices[sampled]

    def ends(self) -> list[Any]:
        """Return all choices, or the lowest and the highest value of a range.

        If these values are valid, all values of the dimension are valid.
        """
        if self.choices is not None:
            return list(self.choices.values())
        assert isinstance(self.distribution, IntDistribution | FloatDistribution)
        return [self.distribution.low, self.distribution.high]


def flat_space(space: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Convert the nested keys of a space to dotted keys.

    Args:
        space: a mapping from key to sweep, such as "interval(0.1, 0.9)". A group of keys, such as
            train, is a nested mapping.
        prefix: the text before each key of `space`, such as "train."; "" for the whole space.

    Returns:
        A mapping from dotted key to sweep.
    """
    found: dict[str, str] = {}
    for name, value in space.items():
        if isinstance(value, Mapping):
            found |= flat_space(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = str(value)
    return found


def read_space(space: Mapping[str, Any], base: Config) -> list[Dimension]:
    """Read and check the space of a search.

    Args:
        space: a mapping from key to sweep, such as "interval(0.1, 0.9)". A key is dotted, such as
            train.smoothing, or it is in a nested mapping of its group.
        base: the configuration from which each trial starts.

    Returns:
        One dimension per searched key, in the order of `space`.

    Raises:
        UserError: a key cannot be searched, its values are not a sweep, or a value is not valid.
    """
    flat = flat_space(space)
    if not flat:
        raise UserError(
            "tune.space must have at least one key, got none: try "
            "'train.learning_rate=tag(log, interval(1e-4, 1e-2))'"
        )
    dimensions = [_dimension(key, text, base) for key, text in flat.items()]
    for corner in chain(one_by_one(dimensions), islice(_corners(dimensions), _MOST_CORNERS)):
        check(with_values(base, corner))
    if any(_is_option(dimension.key) for dimension in dimensions):
        for values in one_by_one(dimensions):
            resolved_options(with_values(base, values))
    return dimensions


def one_by_one(dimensions: Sequence[Dimension]) -> Iterator[dict[str, Any]]:
    """Yield mappings from searched key to value. Only one key varies at a time.

    The key that varies has each of its choices once, or both ends of its range. All other keys
    have their first choice, or the lower end of their range.
    """
    first = {d.key: d.ends()[0] for d in dimensions}
    for dimension in dimensions:
        for end in dimension.ends():
            yield first | {dimension.key: end}


def _corners(dimensions: Sequence[Dimension]) -> Iterator[dict[str, Any]]:
    for values in product(*(dimension.ends() for dimension in dimensions)):
        yield dict(zip((d.key for d in dimensions), values, strict=True))


def with_values(base: Config, values: Mapping[str, Any]) -> Config:
    """Copy a configuration with other values for some keys.

    Args:
        base: the configuration to copy.
        values: a mapping from dotted key to value.

    Raises:
        UserError: a value does not have the type of its key.
    """
    composed = OmegaConf.structured(base)
    for key, value in values.items():
        try:
            OmegaConf.update(composed, key, value)
        except OmegaConfBaseException as error:
            raise UserError(options_of(Config)[key].refusal(value)) from error
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    return config


def _dimension(key: str, text: str, base: Config) -> Dimension:
    known = [k for k in keys(base) if k.partition(".")[0] not in _NOT_SEARCHED]
    if _is_option(key):
        kind = option_type(base, key)
    elif key in known:
        option = options_of(Config)[key]
        kind = option.kind | str if option.instead else option.kind
    else:
        if key in keys(base) or key.partition(".")[0] in _NOT_SEARCHED:
            raise UserError(
                f"{key} must have one value, because a search does not vary this key, got {text}: "
                f"type {key}=VALUE"
            )
        near = nearest_key(key, known)
        hint = f"did you mean {near}? {EVERY_KEY}" if near else EVERY_KEY
        raise UserError(f"key must be one that --help lists, got {key}: {hint}")
    override = parse(f"{key}={text}")
    sweep = override.value() if override.is_sweep_override() else None
    if not isinstance(sweep, IntervalSweep | RangeSweep | ChoiceSweep):
        raise UserError(f"{key} must be a range such as {FORMS}, got {text}")
    _check_tags(key, text, sweep)
    if isinstance(sweep, ChoiceSweep):
        return _choice(key, kind, text, override)
    return Dimension(key, kind, _numbers(key, kind, text, sweep), None)


def _is_option(key: str) -> bool:
    """Return whether a key is a searchable option of a finder, a family or a network."""
    group, _, option = key.partition(".")
    return bool(option) and group in OPTION_KEYS.values() and group not in _NOT_SEARCHED


def _check_tags(key: str, text: str, sweep: Sweep) -> None:
    allowed = {"log"} if isinstance(sweep, IntervalSweep) else set()
    if set(sweep.tags) - allowed:
        raise UserError(
            f"{key} may have only the tag log, and only if its range is an interval, got {text}"
        )


def _choice(key: str, kind: Any, text: str, override: Override) -> Dimension:
    values = [_plain(value) for value in override.sweep_iterator(lambda value: value)]
    choices = {value if isinstance(value, str) else json.dumps(value): value for value in values}
    if len(choices) < 2:
        raise UserError(f"{key} must have at least two choices, got {text}: add a choice")
    return Dimension(key, kind, CategoricalDistribution(list(choices)), choices)


def _plain(value: Any) -> Any:
    """Convert the objects that Hydra makes from quoted texts to plain texts."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return getattr(value, "text", value)


def _numbers(key: str, kind: Any, text: str, sweep: IntervalSweep | RangeSweep) -> BaseDistribution:
    if kind not in (*_WHOLE, *_REAL):
        raise UserError(
            f"{key} must be a choice(...) in which each value is {in_words(kind)}, got {text}"
        )
    step = None if isinstance(sweep, IntervalSweep) else sweep.step
    low = sweep.start
    high = sweep.end if isinstance(sweep, IntervalSweep) else sweep.stop
    assert low is not None
    assert high is not None
    if step is not None and high > low and step > 0:
        # As in Python, the end of a range is not one of its values. The quotient is rounded,
        # because (0.8 - 0.1) / 0.1 is slightly more than 7 in floating point.
        high = round(low + step * (ceil(round((high - low) / step, 9)) - 1), 12)
    if not low < high or (step is not None and step <= 0):
        raise UserError(f"{key} must have a range with an end above its start, got {text}")
    log = "log" in sweep.tags
    if log and low <= 0:
        raise UserError(f"{key} must be above 0, because its scale is logarithmic, got {text}")
    if kind in _REAL:
        return FloatDistribution(float(low), float(high), log=log, step=step)
    if any(number != int(number) for number in (low, high, step or 1)):
        raise UserError(f"{key} must have whole numbers as start, end and step, got {text}")
    return IntDistribution(int(low), int(high), log=log, step=int(step or 1))


def search_differences(stored: TuneJob, wanted: TuneJob) -> list[str]:
    """List the keys that change results, and whose values differ between two searches.

    Args:
        stored: the configuration of the search in the folder.
        wanted: the configuration that the user typed.

    Returns:
        One text per key. It has the key, the stored value and the typed value.
    """
    found = [text for text in differences(stored, wanted) if not text.startswith("tune.space ")]
    there, here = flat_space(stored.tune.space), flat_space(wanted.tune.space)
    return found + [
        f"{PREFIX}{key} is {there.get(key, 'not given')} in the folder, "
        f"{here.get(key, 'not given')} in this command"
        for key in {**there, **here}
        if there.get(key) != here.get(key)
    ]
