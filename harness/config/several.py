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
from harness.config.identity import method_label, run_name
from harness.config.keys import OPTION_KEYS
from harness.config.kinds import converted
from harness.config.option import knob, options_of
from harness.config.run_folders import SWEPT, label
from harness.config.schema import Config
from harness.errors import UserError


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
    methods: Any = knob(
        None,
        kind=list[str | dict[str, Any]] | None,
        filled=True,
        example=["threshold", "edge_popup"],
        help="Methods of several runs that one command makes, in the folders RUN_DIR/method-NAME. "
        "An entry is a name, or a name with options such as {name: edge_popup, density: 0.3}. A "
        "key with a dot, such as train.transfer: mean, is a key of train or network_options for "
        "this run alone. With another list, there is a run for each pair. null means one method, "
        "that of the key method.",
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
        UserError: a key and its list are both given, a list has a value twice, or a value does not
            fit the other values.
    """
    base = Config(**{entry.name: getattr(job, entry.name) for entry in fields(Config)})
    lists = {key: getattr(job, key) for key in SWEPT if getattr(job, key) is not None}
    if not lists:
        return [base]
    for key, values in lists.items():
        _refuse_both(key, values, base, given)
    folder = (base.run_dir or f"runs/{'-'.join([run_name(base), *lists])}").rstrip("/")
    found: dict[str, Config] = {}
    for values in product(*([_of_run(key, one, base) for one in lists[key]] for key in lists)):
        own: dict[str, Any] = {}
        for changed, _ in values:
            own |= changed
        named = {SWEPT[key]: text for key, (_, text) in zip(lists, values, strict=True)}
        run_dir = f"{folder}/{label(named)}"
        if run_dir in found:
            raise UserError(
                f"methods must have each method once, got two runs for {run_dir}: leave one out, "
                "or give them different options"
            )
        found[run_dir] = replace(base, **own, run_dir=run_dir)
        check(found[run_dir])
    return list(found.values())


def _refuse_both(key: str, values: Sequence[Any], base: Config, given: Sequence[str]) -> None:
    """Refuse a list if the user also typed the key of one run, or an option of this key."""
    one = SWEPT[key]
    keys = {one, OPTION_KEYS.get(one, one)}
    both = keys & {typed.partition(".")[0] for typed in given}
    if both:
        raise must_be(
            key,
            f"null if {min(both, key=len)} is given",
            values,
            f"{key}={[getattr(base, one)]}".replace(" ", "").replace("'", ""),
        )


def _of_run(key: str, value: Any, base: Config) -> tuple[dict[str, Any], int | str]:
    """Read one value of a list.

    Args:
        key: the key of the list.
        value: the value.
        base: the configuration without the lists.

    Returns:
        A mapping from key of a run to value, and the text of the value in the name of the folder.
    """
    if key != "methods":
        return {SWEPT[key]: value}, value
    named = {"name": value} if isinstance(value, str) else value
    others = {name: one for name, one in named.items() if "." in str(name)}
    options = {name: one for name, one in named.items() if name != "name" and name not in others}
    if not isinstance(named.get("name"), str):
        raise must_be(
            key,
            "a list of names, or of names with options such as {name: edge_popup, density: 0.3}",
            [value],
            "methods=[threshold,edge_popup]",
        )
    own: dict[str, Any] = {"method": named["name"], "method_options": options}
    for dotted, one in others.items():
        own |= _with(replace(base, **own), dotted, one)
    shown = options | {dotted.rpartition(".")[2]: one for dotted, one in others.items()}
    return own, method_label(named["name"], shown)


def _with(config: Config, dotted: str, value: Any) -> dict[str, Any]:
    """Set a key of train or network_options for one run.

    Returns:
        A mapping from the group of the key to the new values of the group.

    Raises:
        UserError: the key does not exist, or belongs to another group, or the value is not allowed.
    """
    group, _, name = dotted.partition(".")
    if group == "network_options":
        return {group: {**config.network_options, name: value}}
    option = options_of(Config).get(dotted)
    if group != "train" or option is None:
        raise must_be(
            "methods",
            "a list whose keys with a dot are keys of train or network_options",
            [dotted],
            "methods=[threshold,{name: edge_popup, train.transfer: mean}]",
        )
    option.check(value)
    own = value if value == option.instead else converted(value, option.kind)
    return {group: replace(config.train, **{name: own})}
