"""A config.yaml has every key and a mark at its end; a cut one is refused."""

import pytest

from harness import tune
from harness.config.compose import checked, compose_overrides
from harness.config.identity import from_yaml, job_from_yaml, to_yaml
from harness.config.schema import Config
from harness.config.stored import from_values_of_any_version
from harness.errors import UserError
from harness.places.reading import parse_yaml, read_configuration
from harness.search.config import TuneJob


@pytest.fixture
def whole(composed):
    return to_yaml(
        composed(
            *("data=digits", "network=mlp", "network_options.hidden=[16]", "train.block=2"),
            *("evaluate.checkpoints=[2,32]", "evaluate.algorithms=[binary]"),
        )
    )


@pytest.mark.parametrize("schema", ["run", "search"])
def test_a_file_that_was_cut_anywhere_is_refused(schema, whole, tmp_path):
    path = tmp_path / "config.yaml"
    if schema == "search":
        whole = to_yaml(checked(compose_overrides([], tune.JOB.config_name, TuneJob)))
    assert whole.endswith("\n...\n")
    for end in range(len(whole) - 1):  # the last line break may be missing
        path.write_text(whole[:end])
        with pytest.raises(ValueError, match="last line"):
            read_configuration(path)
    for text in (whole, whole[:-1]):
        path.write_text(text)
        job_from_yaml(path, TuneJob if schema == "search" else Config)


def test_a_file_without_its_mark_is_one_line_that_says_what_to_do(whole, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(whole.removesuffix("...\n"))
    with pytest.raises(UserError, match=r"complete, add the line \.\.\.\): restore") as refused:
        from_yaml(path)
    assert "\n" not in str(refused.value)


def test_every_key_must_be_there(whole, tmp_path):
    path = tmp_path / "config.yaml"
    lines = whole.splitlines(keepends=True)
    for i, line in enumerate(lines):
        key, _, value = line.strip().partition(": ")
        if value:
            path.write_text("".join([*lines[:i], *lines[i + 1 :]]))
            with pytest.raises(UserError, match=rf"every key must be there, got no \S*{key}"):
                from_yaml(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed: 0", "seed: 0\nnote: 1", "must be one that --help lists, got note"),
        ("tasks: 32", "tasks: .inf", "numbers must be finite"),
        ("tasks: 32", "tasks: many", "tasks must be a whole number"),
        ("tasks: 32", "tasks: -3", "tasks must be a whole number >= 1, got -3"),
        ("method_options: {}", "method_options: 3", "method_options must be names with values"),
        ("data_dir: null", "data_dir: ${oc.env:HOME}", None),
    ],
)
def test_values_are_checked_and_never_interpolated(old, new, said, whole, tmp_path):
    path = tmp_path / "config.yaml"
    assert old in whole
    path.write_text(whole.replace(old, new, 1))
    if said is None:
        assert from_yaml(path).data_dir == "${oc.env:HOME}"
        return
    with pytest.raises(UserError, match=said) as refused:
        from_yaml(path)
    assert "\n" not in str(refused.value)


def test_a_configuration_of_another_version_keeps_its_names(whole):
    values = parse_yaml(whole)
    values["method"] = "unit_mask"
    del values["evaluate"]["distractors"]
    config = from_values_of_any_version(values)
    assert (config.method, config.evaluate.distractors) == ("unit_mask", 0)
    del values["seed"]
    with pytest.raises(ValueError, match="every run must have the key seed"):
        from_values_of_any_version(values)
