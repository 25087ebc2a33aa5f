"""Several runs in one command. The runs differ only in some keys, such as the seed.

The user types a list, such as seeds=[0,1,2], in place of one value, such as seed=0. The command
makes one run for each value, in a folder such as RUN_DIR/seed-1. The files of such a run are the
same as if one command had made this run alone: its config.yaml has one seed, and does not name the
other runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

from harness.config.checks import check, must_be
from harness.config.identity import run_name
from harness.config.option import knob
from harness.config.run_folders import SWEPT, label
from harness.config.schema import Config


# These keys are not part of Config, so that the config.yaml of a run does not depend on the other
# runs of its command.
@dataclass
class ScaleConfig(Config):
    """The configuration of the main job: the keys of a run, and the keys for several runs."""

    seeds: Any = knob(
        None,
        kind=list[int] | None,
        at_least=0,
        at_most=2**64 - 1,
        filled=True,
        distinct=True,
        example=[0, 1, 2],
        help="Seeds of several runs that one command makes, in the folders RUN_DIR/seed-N. The "
        "runs share Ray and its actors. null means one run, with the seed of the key seed.",
    )
    output_sizes: Any = knob(
        None,
        kind=list[int] | None,
        at_least=1,
        filled=True,
        distinct=True,
        example=[100, 500],
        help="Numbers of outputs of several runs that one command makes, in the folders "
        "RUN_DIR/outputs-N. With seeds, there is a run for each pair, in RUN_DIR/outputs-N-seed-N. "
        "null means one number of outputs, that of the key outputs.",
    )


def configurations(job: ScaleConfig, given: Sequence[str]) -> list[Config]:
    """Make the configuration of each run of a command.

    Args:
        job: the checked configuration of the command.
        given: the keys that the user typed.

    Returns:
        One configuration for each combination of the listed values; one if there are no lists. With
        lists, each configuration has its own run_dir.

    Raises:
        UserError: a key and its list are both given, or a value does not fit the other values.
    """
    base = Config(**{entry.name: getattr(job, entry.name) for entry in fields(Config)})
    lists = {key: getattr(job, key) for key in SWEPT if getattr(job, key) is not None}
    if not lists:
        return [base]
    for key in lists:
        if SWEPT[key] in given:
            raise must_be(
                key,
                f"null if {SWEPT[key]} is given",
                lists[key],
                f"{key}={[getattr(base, SWEPT[key])]}".replace(" ", ""),
            )
    folder = (base.run_dir or f"runs/{'-'.join([run_name(base), *lists])}").rstrip("/")
    found = []
    for values in product(*lists.values()):
        own = dict(zip((SWEPT[key] for key in lists), values, strict=True))
        found.append(replace(base, **own, run_dir=f"{folder}/{label(own)}"))
        check(found[-1])
    return found
