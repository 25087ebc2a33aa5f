"""Find and parse the sweeps of a command line.

A sweep is a text in the syntax of Hydra that stands for several values of a key, such as
interval(0.1, 0.9).
"""

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from harness.config.compose import quoted
from harness.config.kinds import is_text
from harness.config.option import options_of
from harness.config.schema import Config
from harness.errors import UserError

FORMS = "interval(0.1, 0.9), tag(log, interval(1e-4, 1e-2)), range(64, 512, 64) or choice(64, 128)"
PREFIX = "tune.space."
# These keys accept any text, so a text with a comma is one value of such a key, and no sweep.
_FREE_TEXTS = {
    key
    for key, option in options_of(Config).items()
    if is_text(option.kind) and not option.knob.one_of
}


def with_space(arguments: Sequence[str]) -> list[str]:
    """Move the sweeps of a command line to `tune.space`.

    Hydra refuses a sweep as the value of another key, but `tune.space` may contain the sweep as a
    text.

    Args:
        arguments: the arguments as typed.

    Returns:
        The arguments. Each KEY=SWEEP is replaced by ++tune.space.KEY="SWEEP".

    Raises:
        UserError: an argument cannot be parsed, or the same key has two sweeps.
    """
    rewritten: dict[str, tuple[str, str]] = {}
    for text in arguments:
        key, is_pair, value = text.partition("=")
        if text.startswith("-") or not is_pair:
            continue
        if key.startswith(PREFIX) or (
            value and key not in _FREE_TEXTS and parse(text).is_sweep_override()
        ):
            key = key.removeprefix(PREFIX)
            if any(key == known for known, _ in rewritten.values()):
                raise UserError(f"{key} must have one sweep, got two sweeps: leave one of them out")
            rewritten[text] = key, value
    return [
        f"++{PREFIX}{rewritten[text][0]}={quoted(rewritten[text][1])}"
        if text in rewritten
        else text
        for text in arguments
    ]


def parse(text: str) -> Override:
    """Parse KEY=VALUE or KEY=SWEEP.

    Raises:
        UserError: the text cannot be parsed.
    """
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        key, _, value = text.partition("=")
        lines = [line for line in str(error).splitlines() if line and not line.startswith("See ")]
        raise UserError(
            f"{key} must be a value or a range such as {FORMS}, got {value}: {lines[-1].strip()}"
        ) from error
