"""The space of a search: keys of the configuration, and values in Hydra's own form of a sweep.

On the command line a key that has many values is searched; `tune.space` of a YAML file says
the same. With harness/config/commandline.py, the only module that reads Hydra.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, product
from math import ceil
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
    Sweep,
)
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from harness.config.checks import check
from harness.config.commandline import expected
from harness.config.identity import differences
from harness.config.kinds import in_words
from harness.config.options import option_type, resolved_options
from harness.config.schema import FREE_KEYS, OPTION_KEYS, Config, keys
from harness.errors import UserError
from harness.search.config import TuneJob

FORMS = "interval(0.1, 0.9), tag(log, interval(1e-4, 1e-2)), range(64, 512, 64) or choice(64, 128)"
_PREFIX = "tune.space."
# What is asked of a trial, not how it is trained: another question is no better answer.
_NOT_SEARCHED = ("tasks", "data", "data_options", "evaluate", "reservoir", *FREE_KEYS)
_MOST_CORNERS = 256
# A key of the schema -> what its values are.
_WHOLE, _REAL = (int, int | str), (float,)


@dataclass(frozen=True)
class Dimension:
    """One key of the space.

    Attributes:
        key: dotted name.
        kind: type of the key's values, as declared.
        distribution: Optuna's, of numbers or of the names of choices.
        choices: name -> value; None where the distribution's values are the key's own.
    """

    key: str
    kind: Any
    distribution: BaseDistribution
    choices: Mapping[str, Any] | None

    def value(self, sampled: Any) -> Any:
        """The key's value."""
        return sampled if self.choices is None else self.choices[sampled]

    def ends(self) -> list[Any]:
        """Values that show whether all are possible."""
        if self.choices is not None:
            return list(self.choices.values())
        assert isinstance(self.distribution, IntDistribution | FloatDistribution)
        return [self.distribution.low, self.distribution.high]


def with_space(arguments: Sequence[str]) -> list[str]:
    """Gather the sweeps of a command line in `tune.space`, so that Hydra composes one job.

    Args:
        arguments: as typed.

    Raises:
        UserError: something that does not parse.
    """
    parsed, _ = get_args_parser().parse_known_args(list(arguments))
    rewritten: dict[str, tuple[str, str]] = {}
    for text in parsed.overrides:
        key, _, value = text.partition("=")
        if key.startswith(_PREFIX) or (value and _parse(text).is_sweep_override()):
            key = key.removeprefix(_PREFIX)
            if any(key == known for known, _ in rewritten.values()):
                raise UserError(f"{key} must be searched once, got it twice: leave one out")
            rewritten[text] = key, value
    return [
        f"++{_PREFIX}{rewritten[text][0]}={_quoted(rewritten[text][1])}"
        if text in rewritten
        else text
        for text in arguments
    ]


def flat_space(space: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted key -> its values as text, however deep YAML has them."""
    found: dict[str, str] = {}
    for name, value in space.items():
        if isinstance(value, Mapping):
            found |= flat_space(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = str(value)
    return found


def _quoted(text: str) -> str:
    """As Hydra reads a text that has special characters."""
    return "'" + re.sub(r"(\\*)'", r"\1\1\'", text) + "'"


def _parse(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        key, _, value = text.partition("=")
        lines = [line for line in str(error).splitlines() if line and not line.startswith("See ")]
        raise UserError(
            f"{key} must be a value or a range such as {FORMS}, got {value}: {lines[-1].strip()}"
        ) from error


def read_space(space: Mapping[str, Any], base: Config) -> list[Dimension]:
    """Read and check a space.

    Args:
        space: key -> its values, as text; nested or dotted.
        base: what every trial has but for these keys.

    Raises:
        UserError: naming the key, what was expected and what came.
    """
    flat = flat_space(space)
    if not flat:
        raise UserError(
            "tune.space must have a key at least, got none: for example "
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
    """Values in which each key in turn has each of its ends, and the others their first."""
    first = {d.key: d.ends()[0] for d in dimensions}
    for dimension in dimensions:
        for end in dimension.ends():
            yield first | {dimension.key: end}


def _corners(dimensions: Sequence[Dimension]) -> Iterator[dict[str, Any]]:
    for values in product(*(dimension.ends() for dimension in dimensions)):
        yield dict(zip((d.key for d in dimensions), values, strict=True))


def with_values(base: Config, values: Mapping[str, Any]) -> Config:
    """A configuration with some of its keys' values.

    Raises:
        UserError: a value of another type.
    """
    composed = OmegaConf.structured(base)
    for key, value in values.items():
        try:
            OmegaConf.update(composed, key, value)
        except OmegaConfBaseException as error:
            raise UserError(f"{key} must be {expected(key)}, got {value!r}") from error
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    return config


def _dimension(key: str, text: str, base: Config) -> Dimension:
    known = [k for k in keys(base) if k.partition(".")[0] not in _NOT_SEARCHED]
    if _is_option(key):
        kind = option_type(base, key)
    elif key in known:
        kind = value_type(key)
    else:
        if key in keys(base) or key.partition(".")[0] in _NOT_SEARCHED:
            raise UserError(
                f"{key} cannot be searched, for it says what is asked of a trial and not how "
                f"its masks come about: give it one value"
            )
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "--cfg job lists all keys"
        raise UserError(f"unknown key {key}: {hint}")
    override = _parse(f"{key}={text}")
    sweep = override.value() if override.is_sweep_override() else None
    if not isinstance(sweep, IntervalSweep | RangeSweep | ChoiceSweep):
        raise UserError(f"{key} must be a range such as {FORMS}, got {text}")
    _check_tags(key, text, sweep)
    if isinstance(sweep, ChoiceSweep):
        return _choice(key, kind, text, override)
    return Dimension(key, kind, _numbers(key, kind, text, sweep), None)


def _is_option(key: str) -> bool:
    """Whether a key that may be searched is an option of a named thing."""
    group, _, option = key.partition(".")
    return bool(option) and group in OPTION_KEYS.values() and group not in _NOT_SEARCHED


def _check_tags(key: str, text: str, sweep: Sweep) -> None:
    allowed = {"log"} if isinstance(sweep, IntervalSweep) else set()
    if set(sweep.tags) - allowed:
        raise UserError(f"{key} must have no tag but log, on an interval, got {text}")


def _choice(key: str, kind: Any, text: str, override: Override) -> Dimension:
    values = [_plain(value) for value in override.sweep_iterator(lambda value: value)]
    choices = {value if isinstance(value, str) else json.dumps(value): value for value in values}
    if len(choices) < 2:
        raise UserError(f"{key} must have two choices at least, got {text}")
    return Dimension(key, kind, CategoricalDistribution(list(choices)), choices)


def _plain(value: Any) -> Any:
    """Without Hydra's marks of how a text was quoted."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return getattr(value, "text", value)


def _numbers(key: str, kind: Any, text: str, sweep: IntervalSweep | RangeSweep) -> BaseDistribution:
    if kind not in (*_WHOLE, *_REAL):
        said = in_words(kind) if _is_option(key) else expected(key)
        raise UserError(f"{key} must be {said}: a choice(...) of them, got {text}")
    step = None if isinstance(sweep, IntervalSweep) else sweep.step
    low = sweep.start
    high = sweep.end if isinstance(sweep, IntervalSweep) else sweep.stop
    assert low is not None
    assert high is not None
    if step is not None and high > low and step > 0:
        # As in Python, the end of a range is not among its values.
        # Rounded, for 0.1 to 0.8 in steps of 0.1 is a hair more than 7 steps.
        high = round(low + step * (ceil(round((high - low) / step, 9)) - 1), 12)
    if not low < high or (step is not None and step <= 0):
        raise UserError(f"{key} must have a range whose end is above its start, got {text}")
    log = "log" in sweep.tags
    if log and low <= 0:
        raise UserError(f"{key} must be above 0 on a logarithmic scale, got {text}")
    if kind in _REAL:
        return FloatDistribution(float(low), float(high), log=log, step=step)
    if any(number != int(number) for number in (low, high, step or 1)):
        raise UserError(f"{key} must have whole numbers as ends, got {text}")
    return IntDistribution(int(low), int(high), log=log, step=int(step or 1))


def value_type(key: str) -> Any:
    """What the schema says a key's value is; the key is no option."""
    kind: Any = Config
    for part in key.split("."):
        kind = kind.__dataclass_fields__[part].type
    return kind


def search_differences(stored: TuneJob, wanted: TuneJob) -> list[str]:
    """Name what makes two searches differ, the space key by key."""
    found = [text for text in differences(stored, wanted) if not text.startswith("tune.space ")]
    there, here = flat_space(stored.tune.space), flat_space(wanted.tune.space)
    return found + [
        f"{_PREFIX}{key} is {there.get(key, 'not given')} there, {here.get(key, 'not given')} here"
        for key in {**there, **here}
        if there.get(key) != here.get(key)
    ]
