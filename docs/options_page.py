"""Write docs/options.md from the schemas: `python docs/options_page.py`."""

from collections.abc import Iterator, Sequence
from importlib.resources import files
from inspect import getdoc
from pathlib import Path

from harness import evaluate, recall, scale, status, tune
from harness.config.commandline import Job
from harness.config.help import OF_A_FILE, configuration_files, sections
from harness.config.keys import OPTION_KEYS
from harness.config.kinds import as_typed, plain
from harness.config.option import REQUIRED, Option, options_of
from harness.config.options import NAMED, declared_options
from harness.config.run_folders import SWEPT
from harness.config.schema import CONFIG_MODULE
from harness.config.several import ScaleConfig
from harness.search.config import TuneJob
from supsup_core.names import load

PAGE = Path(__file__).with_name("options.md")
_OPENING = """\
# Options

This page is made from the source by `python docs/options_page.py`. The option `--help` of every
command prints the same text, with the defaults of the recipe that you type.

Options have the form `KEY=VALUE`. A list has the form `KEY=[A,B]`. Some shells interpret brackets:
type `'KEY=[A,B]'` in such a shell. `auto` means that the command chooses the value when the run
begins. The run then keeps this value.

## Commands
"""
_TITLES = {"family": "Families of tasks", "network": "Networks", "method": "Mask finders"}


def page() -> str:
    """Make the text of the page."""
    return "\n".join([_OPENING, *_commands(), *_keys(), *_recipes(), *_named()]) + "\n"


def _commands() -> Iterator[str]:
    yield "| command | what it does | keys that it reads |"
    yield "|---|---|---|"
    lists = ", ".join(f"`{key}`" for key in SWEPT)
    jobs: Sequence[Job] = (scale.JOB, evaluate.JOB, recall.JOB, tune.JOB)
    for job in jobs:
        groups = {key.partition(".")[0] for key in options_of(job.schema) if "." in key}
        names = [f"`{one}.*`" if one in groups else f"`{one}`" for one in job.takes or ()]
        keys = ", ".join(names) or ("all but `tune.*`" if job is scale.JOB else f"all but {lists}")
        yield f"| `harness/{job.name}.py` | {_first_line(job.about)} | {keys} |"
    own = ", ".join(f"`{key}`" for key in options_of(status.StatusConfig))
    yield f"| `harness/status.py` | {_first_line(status.__doc__ or '')} | {own} |"


def _keys() -> Iterator[str]:
    for heading, options in sections(TuneJob):
        title, _, about = heading.partition(": ")
        yield f"\n## {title.replace('*', chr(92) + '*')}\n"
        if about:
            yield f"{about}\n"
        yield from _table(options)
    yield "\n## Several runs in one command\n"
    yield from _table([one for key, one in options_of(ScaleConfig).items() if key in SWEPT])


def _table(options: Sequence[Option]) -> Iterator[str]:
    yield "| key | default | values | meaning |"
    yield "|---|---|---|---|"
    for one in options:
        cells = (f"`{one.key}`", _default(one), one.expected, one.knob.help)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(option: Option) -> str:
    if option.default is not REQUIRED:
        return f"`{as_typed(plain(option.default))}`"
    return "from the recipe" if option.key.startswith("train.") else "must be given"


def _recipes() -> Iterator[str]:
    for group, names in configuration_files().items():
        yield f"\n## {group}=NAME\n"
        yield f"{OF_A_FILE[group]}\n"
        yield "| name | what it is |"
        yield "|---|---|"
        for name in names:
            text = (files(CONFIG_MODULE) / group / f"{name}.yaml").read_text(encoding="utf-8")
            comment = [line[1:].strip() for line in text.splitlines() if line.startswith("#")]
            yield f"| `{name}` | {' '.join(one for one in comment if not one.startswith('@'))} |"


def _named() -> Iterator[str]:
    for kind, title in _TITLES.items():
        known, num_arguments = NAMED[kind]
        yield f"\n## {title}: {kind}=NAME\n"
        for name in known:
            target = load(kind, known, name)
            yield f"- `{kind}={name}`: {_first_line(getdoc(target) or '')}"
        for name in known:
            options = declared_options(kind, load(kind, known, name), num_arguments)
            if options:
                yield f"\nOptions of `{kind}={name}` (keys of `{OPTION_KEYS[kind]}`):\n"
                yield from _table(list(options.values()))


def _first_line(text: str) -> str:
    return " ".join(text.strip().partition("\n\n")[0].split())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
