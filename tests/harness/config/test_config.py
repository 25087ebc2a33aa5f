import sys
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from composing import CAPABILITIES
from harness import scale
from harness.config.compose import checked, compose_overrides, typed_keys
from harness.config.identity import (
    differences,
    from_yaml,
    result_values,
    run_directory,
    run_name,
    to_yaml,
)
from harness.config.keys import leaf
from harness.config.schema import Config
from harness.errors import UserError
from harness.plan.evaluation import evaluation_units
from harness.plan.resolve import resolve
from supsup_core.methods.threshold import Threshold
from supsup_core.names import METHODS


def typed(*overrides):
    """Return the configuration of a command line. Each line is composed once in this file."""
    return deepcopy(_typed_once(overrides))


@cache
def _typed_once(overrides):
    return checked(compose_overrides(overrides))


def kept(*overrides):
    """Return the configuration that a run stores: each `auto` has been resolved."""
    return resolve(
        typed(*overrides),
        CAPABILITIES,
        bfloat16_is_faster=False,
    )


def test_no_overrides_give_the_paper_s_recipe():
    config = typed()
    train = config.train
    assert (train.name, train.steps, train.batch_size) == ("paper", 1000, 128)
    assert (train.learning_rate, train.smoothing, train.decay) == (1e-4, 0.99, "none")
    assert (train.optimizer, train.momentum, train.temperature) == ("rmsprop", 0, 1)
    assert config.tasks == 32
    assert differences(config, typed("tasks=32")) == []


def test_figure_4_asks_about_every_task_at_six_numbers_of_them():
    config = kept("experiment=fig4", "train=fast")
    assert (config.tasks, config.data, config.network, config.outputs) == (
        *(2500, "mnist", "lenet_300_100", 500),
    )
    assert (config.train.name, config.evaluate.batches) == ("fast", None)
    units = [u for k in config.evaluate.checkpoints for u in evaluation_units(config, k)]
    asked = Counter((unit.objective, unit.num_tasks) for unit in units for _ in unit.task_ids)
    assert asked == {(o, k): k for o in "HG" for k in (10, 500, 1000, 1500, 2000, 2500)}


def test_a_configuration_composed_inside_is_the_schema_itself():
    config = typed("evaluate.checkpoints=[2,3]", "network=mlp", "network_options.hidden=[5,6]")
    assert type(config) is Config
    assert type(config.network_options) is dict
    assert type(config.network_options["hidden"]) is list
    assert type(config.evaluate.checkpoints) is list


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("seed=1", "seed is 0 in the folder, 1 in this command"),
        ("tasks=33", "tasks is 32 in the folder, 33 in this command"),
        ("data=digits", "data is mnist5k in the folder, digits in this command"),
        ("outputs=400", "outputs is 500 in the folder, 400 in this command"),
        ("family=rotated", "family is permuted in the folder, rotated in this command"),
        (
            "train.learning_rate=1e-3",
            "train.learning_rate is 0.0001 in the folder, 0.001 in this command",
        ),
        ("train.temperature=0.5", "train.temperature is 1.0 in the folder, 0.5 in this command"),
        ("train.optimizer=sgd", "train.optimizer is rmsprop in the folder, sgd in this command"),
        ("train.block=2", "train.block is 8 in the folder, 2 in this command"),
        ("train.dtype=bfloat16", "train.dtype is float32 in the folder, bfloat16 in this command"),
        ("evaluate.batches=null", "evaluate.batches is 4 in the folder, None in this command"),
        ("evaluate.distractors=9", "evaluate.distractors is 0 in the folder, 9 in this command"),
        ("evaluate.log_base=4", "evaluate.log_base is 2 in the folder, 4 in this command"),
        ("evaluate.steps=3", "evaluate.steps is 10 in the folder, 3 in this command"),
        ("evaluate.rate=0.5", "evaluate.rate is 0.3 in the folder, 0.5 in this command"),
        ("evaluate.num_images=2", "evaluate.num_images is 1 in the folder, 2 in this command"),
        (
            "train.weight_decay=1e-4",
            "train.weight_decay is 0.0 in the folder, 0.0001 in this command",
        ),
        (
            "evaluate.checkpoints=[10]",
            "evaluate.checkpoints is [10, 25, 32] in the folder, [10] in this command",
        ),
    ],
)
def test_differences_name_the_key_and_both_values(override, difference):
    assert differences(kept(), typed(override)) == [difference]


def test_differences_name_every_key():
    found = differences(kept(), typed("seed=1", "train.steps=5"))
    assert [line.split()[0] for line in found] == ["seed", "train.steps"]


@pytest.mark.parametrize(
    "override",
    [
        *("executor=serial", "actors.train=1", "actors.evaluate=2", "actors.gpus=0.5"),
        *("quiet=true", "run_dir=/elsewhere", "data_dir=/data", "download=false"),
    ],
)
def test_keys_that_change_no_result_make_no_difference(override):
    assert differences(kept(), typed(override)) == []
    assert result_values(typed(override)) == result_values(typed())


def test_auto_agrees_with_what_it_became():
    assert differences(kept(), typed()) == []
    assert differences(kept("train.block=3"), typed()) == []
    assert differences(typed(), typed("train.block=3")) == [
        "train.block is auto in the folder, 3 in this command"
    ]


def test_checkpoints_make_no_difference_by_their_order():
    assert differences(kept("evaluate.checkpoints=[25,10,25]"), typed()) == []
    again = typed("evaluate.checkpoints=[25,10,25]")
    assert differences(kept("evaluate.checkpoints=[25,10,25]"), again) == []


def test_every_leaf_that_is_not_free_changes_results():
    keys = set(result_values(typed()))
    assert {"tasks", "seed", "train.steps", "train.name", "evaluate.num_images"} <= keys
    assert not {key for key in keys if key.startswith(("actors", "executor", "run_dir", "quiet"))}


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("evaluate.checkpoints=[1,2]", "evaluate.tasks=null", "seed=12345678901234567890"),
        ("network=mlp", "network_options.hidden=[20,30]", "train.learning_rate=1e-7"),
        ("run_dir='/a: b/#c'", "method_options={density: 0.3, name: x, on: true, of: null}"),
        ("train.optimizer=adam", "train.momentum=0.9", "train.temperature=0.35"),
    ],
)
def test_a_configuration_comes_back_from_yaml_as_it_was(overrides, tmp_path):
    config = kept(*overrides)
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert from_yaml(path) == config


def test_what_is_costly_is_evaluated_on_demand_only():
    assert typed().evaluate.algorithms == "auto"
    evaluate = kept().evaluate
    assert evaluate.algorithms == [
        *("one_shot", "one_shot_ranked", "binary", "min_entropy", "max_logit")
    ]
    assert evaluate.objectives == ["H", "G"]
    asked = ("gradient_descent", "frank_wolfe"), ("H_first_layer", "G_first_layer")
    given = typed(*(f"evaluate.{k}=[{','.join(v)}]" for k, v in zip(
        ("algorithms", "objectives"), asked, strict=True
    ))).evaluate  # fmt: skip
    assert (tuple(given.algorithms), tuple(given.objectives)) == asked


def test_keys_that_were_typed_are_told_from_defaults():
    given = ("evaluate.tasks=3", "train=fast", "+actors.evaluate=2", "~quiet")
    assert typed_keys(given) == ["evaluate.tasks", "train", "actors.evaluate", "quiet"]


@pytest.mark.parametrize(
    ("overrides", "options"),
    [
        (("method_options.density=0.3",), {"density": 0.3}),
        (
            ("+method_options.density=0.3", "++method_options.of=[1,2]"),
            {"density": 0.3, "of": [1, 2]},
        ),
        (("method_options={density: 0.3}", "method_options.kappa=1"), {"density": 0.3, "kappa": 1}),
        (("method_options.a=1", "method_options.b=2", "~method_options.a"), {"b": 2}),
    ],
)
def test_options_are_typed_as_any_key(overrides, options):
    assert typed(*overrides).method_options == options
    assert {key.partition(".")[0] for key in typed_keys(overrides)} == {"method_options"}


def test_options_of_an_experiment_can_be_typed_anew():
    config = typed("experiment=reservoir", "network_options.hidden=[1024]")
    assert (config.network, config.network_options) == ("units", {"hidden": [1024]})
    assert config.train.weight_decay == 1e-4


def test_the_printed_configuration_has_the_typed_options(capsys):
    for options in ("method_options.density=0.3", "method_options={density: 0.3}"):
        assert scale.JOB(["--cfg", "job", options]) == 0
        assert "method_options:\n  density: 0.3\n" in capsys.readouterr().out


def test_a_momentum_that_has_an_effect_is_taken():
    for name in ("adam", "sgd"):
        assert typed(f"train.optimizer={name}", "train.momentum=0.9").train.momentum == 0.9
    assert typed("train.momentum=0").train.momentum == 0


def test_a_missing_file_is_no_configuration(tmp_path):
    with pytest.raises(
        UserError, match=r"config\.yaml must be the configuration of a run, got an error: .*No such"
    ):
        from_yaml(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ((), "mnist5k-permuted-32"),
        (("tasks=2500", "data=mnist", "family=rotated"), "mnist-rotated-2500"),
        (("network=fc_1024_1024",), "mnist5k-permuted-32-fc_1024_1024"),
        (("network=mlp", "network_options.hidden=[20,30]"), "mnist5k-permuted-32-mlp_20_30"),
        (("experiment=reservoir", "tasks=250"), "mnist5k-permuted-250-units_8192-unit"),
        (
            ("method=edge_popup", "method_options.density=0.3"),
            "mnist5k-permuted-32-edge_popup-density0.3",
        ),
        (("family_options={classes: 3, of: a/b}",), "mnist5k-permuted-classes3-ofa_b-32"),
        (("seed=3",), "mnist5k-permuted-32-seed3"),
        (("train.name=mine", "seed=1"), "mnist5k-permuted-32-mine-seed1"),
        (("train.transfer=mean", "seed=1"), "mnist5k-permuted-32-transfer_mean-seed1"),
    ],
)
def test_run_names_tell_apart_what_people_vary(overrides, name):
    assert run_name(typed(*overrides)) == name


def test_run_directory_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = typed()
    assert run_directory(config) == tmp_path / "runs" / "mnist5k-permuted-32"
    assert run_directory(replace(config, run_dir="x")) == tmp_path / "x"
    assert run_directory(replace(config, run_dir="~/x")) == tmp_path / "home" / "x"
    assert run_directory(replace(config, run_dir="/x")) == Path("/x")


def test_algorithms_that_minimise_nothing_need_no_objective():
    assert typed("evaluate.algorithms=[max_logit]", "evaluate.objectives=[]").evaluate


def test_a_configuration_without_a_recipe_is_refused():
    composed = OmegaConf.structured(Config())
    with pytest.raises(UserError, match="missing mandatory value"):
        checked(composed)


@pytest.mark.parametrize("text", ["2026_11_26", "1.10", "4811_12", "1e3", "TRUE", "a,b", "~x [1]"])
@pytest.mark.parametrize("key", ["run_dir", "data_dir", "train.name"])
def test_a_text_key_gets_the_typed_characters(key, text):
    assert leaf(typed(f"{key}={text}"), key) == text
    assert leaf(typed(f"{key}='{text}'"), key) == text
    assert leaf(typed(f"++{key}={text}"), key) == text


def test_null_is_no_text_unless_it_is_quoted():
    assert typed("run_dir=null").run_dir is None
    assert typed("run_dir='null'").run_dir == "null"


def test_a_text_in_a_recipe_must_be_a_text(tmp_path):
    recipe = (files("harness.conf") / "train" / "fast.yaml").read_text()
    (tmp_path / "train").mkdir()
    mine = tmp_path / "train" / "mine.yaml"
    mine.write_text(recipe.replace("name: fast", "name: 4811_12"))
    with pytest.raises(UserError, match=r"train\.name must be a text, got 481112: try train\.name"):
        checked(compose_overrides(["train=mine"], config_dir=str(tmp_path)))
    mine.write_text(recipe.replace("name: fast", "name: '4811_12'"))
    assert checked(compose_overrides(["train=mine"], config_dir=str(tmp_path))).train.name == (
        "4811_12"
    )


class Labelled(Threshold):
    """A finder with an option that is a text, and with one that is a number."""

    def __init__(self, label: str = "", share: float = 0.5) -> None:
        self.label, self.share = label, share


def test_a_text_option_of_a_named_thing_gets_the_typed_characters(monkeypatch):
    monkeypatch.setattr(Labelled, "__module__", "labelled")
    monkeypatch.setitem(sys.modules, "labelled", SimpleNamespace(Labelled=Labelled))
    monkeypatch.setitem(METHODS, "threshold", "labelled:Labelled")
    given = ["method_options.label=1.10", "method_options.share=1e-1"]
    config = checked(compose_overrides(given), given)
    assert config.method_options == {"label": "1.10", "share": 0.1}


def test_an_option_of_an_experiment_can_be_left_out():
    given = ["experiment=reservoir", "~network_options.hidden"]
    assert checked(compose_overrides(given)).network_options == {}
