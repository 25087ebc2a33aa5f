"""The commands on the pages name keys, values, recipes and experiments that exist."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from harness.config.keys import OPTION_KEYS
from harness.config.kinds import is_text
from harness.config.option import Option, options_of
from harness.config.options import NAMED, declared_options, load_named
from harness.config.several import ScaleConfig
from harness.errors import UserError
from harness.search.config import TuneJob

ROOT = Path(__file__).parents[1]
CONF = ROOT / "harness" / "conf"
GUIDE = sorted((ROOT / "docs").glob("*.md"))
# tests/test_guide.py runs the commands of the page about extensions, with the code of this page.
PAGES = [ROOT / "README.md", ROOT / "cluster" / "README.md"]
PAGES += [page for page in GUIDE if page.name != "extending.md"]
COMMAND = re.compile(
    r'make run ARGS="([^"]+)"|'
    r"(?:python harness/|python -m harness\.|supermask |gpu\.yaml harness/)"
    r"(?:scale|evaluate|recall|tune)(?:\.py)? ([^`\n]+)"
)
# A word in capitals stands for a text of the reader; $d and $w are numbers of a loop.
WORDS = {"$d": "0.05", "$w": "300"}
OPTIONS = options_of(ScaleConfig) | options_of(TuneJob)
GROUPS = {value: key for key, value in OPTION_KEYS.items()}
RECIPES = ("train", "experiment")  # keys whose value is the name of a file in harness/conf


def commands() -> list[tuple[str, dict[str, str]]]:
    """Return the name of the page, and the keys with their values, of each command on the pages."""
    found = []
    for page in PAGES:
        for match in COMMAND.finditer(page.read_text()):
            text = (match[1] or match[2]).partition("; done")[0].partition(" #")[0]
            for word, value in WORDS.items():
                text = text.replace(word, value)
            words = [word.split("=", 1) for word in shlex.split(text) if "=" in word]
            found.append((page.name, {key: typed for key, typed in words if key != "+recipe"}))
    return found


def declared(kind: str, name: str | None) -> dict[str, Option]:
    """Return the options of a named thing; those of all things of its kind if it is not named."""
    known, num_arguments = NAMED[kind]
    targets = [load_named(kind, known, one) for one in ([name] if name else known)]
    found = [declared_options(kind, target, num_arguments) for target in targets]
    return {key: option for options in found for key, option in options.items()}


def check(key: str, typed: str, given: Mapping[str, str]) -> None:
    """Check a key of a command and its value.

    Args:
        key: the key.
        typed: its value, as typed.
        given: all keys and values of the command.
    """
    group, _, name = key.partition(".")
    if key in RECIPES:
        assert (CONF / key / f"{typed}.yaml").exists(), f"{key}={typed}"
        return
    if group in GROUPS:
        kind = GROUPS[group]
        named = given.get(kind)
        if named and named not in NAMED[kind][0]:  # code or data of the reader
            return
        known = declared(kind, named)
        assert name in known, f"{key} of {named}"
        option = known[name]
    else:
        assert key in OPTIONS, key
        option = OPTIONS[key]
    if is_text(option.kind):
        return
    override = OverridesParser.create().parse_override(f"{key}={typed}")
    if not override.is_sweep_override():  # a search draws other values
        option.check(override.value())


def test_the_commands_on_the_pages_are_allowed() -> None:
    found = commands()
    assert len({page for page, _ in found}) >= 12
    assert len(found) >= 60
    for page, given in found:
        for key, typed in given.items():
            try:
                check(key, typed, given)
            except (AssertionError, UserError) as error:
                raise AssertionError(f"{page}: {key}={typed}: {error}") from error


@pytest.mark.parametrize(
    ("key", "typed"),
    [
        *(("stps", "3"), ("train", "papre"), ("tasks", "-1"), ("network_options.hiden", "[3]")),
        ("method_options.density", "2"),
    ],
)
def test_a_wrong_command_would_be_found(key: str, typed: str) -> None:
    with pytest.raises((AssertionError, UserError)):
        check(key, typed, {key: typed, "method": "edge_popup"})
