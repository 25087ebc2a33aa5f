from collections import Counter
from dataclasses import replace
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from harness.config.commandline import compose_command_line, from_hydra, main_guard, typed_keys
from harness.config.identity import (
    differences,
    from_yaml,
    result_values,
    run_directory,
    run_name,
    to_yaml,
)
from harness.config.schema import Config
from harness.errors import UserError
from harness.plan.capabilities import Capabilities
from harness.plan.resolve import resolve
from harness.plan.units import evaluation_units
from supsup_core.names import ALGORITHMS


def typed(*overrides):
    """The configuration that a command line gives."""
    return from_hydra(compose_command_line(overrides))


def kept(*overrides):
    """The same as a run keeps it: every auto resolved."""
    return resolve(
        typed(*overrides),
        Capabilities(
            num_gains=266_200,
            num_bits=266_200,
            num_activations=900,
            normalises=False,
            supports=frozenset(ALGORITHMS),
            keeps_alone=True,
            bits_serve=True,
            bfloat16_serves=True,
            order="any",
        ),
        has_bfloat16=False,
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
        ("seed=1", "seed is 0 there, 1 here"),
        ("tasks=33", "tasks is 32 there, 33 here"),
        ("data=digits", "data is mnist5k there, digits here"),
        ("outputs=400", "outputs is 500 there, 400 here"),
        ("family=rotated", "family is permuted there, rotated here"),
        ("train.learning_rate=1e-3", "train.learning_rate is 0.0001 there, 0.001 here"),
        ("train.temperature=0.5", "train.temperature is 1.0 there, 0.5 here"),
        ("train.optimizer=sgd", "train.optimizer is rmsprop there, sgd here"),
        ("train.block=2", "train.block is 8 there, 2 here"),
        ("train.dtype=bfloat16", "train.dtype is float32 there, bfloat16 here"),
        ("evaluate.batches=null", "evaluate.batches is 4 there, None here"),
        ("evaluate.distractors=9", "evaluate.distractors is 0 there, 9 here"),
        ("evaluate.log_base=4", "evaluate.log_base is 2 there, 4 here"),
        ("evaluate.steps=3", "evaluate.steps is 10 there, 3 here"),
        ("evaluate.rate=0.5", "evaluate.rate is 0.3 there, 0.5 here"),
        ("evaluate.num_images=2", "evaluate.num_images is 1 there, 2 here"),
        ("train.weight_decay=1e-4", "train.weight_decay is 0.0 there, 0.0001 here"),
        (
            "evaluate.checkpoints=[10]",
            "evaluate.checkpoints is [10, 25, 32] there, [10] here",
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
    assert differences(typed(), typed("train.block=3")) == ["train.block is auto there, 3 here"]


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


def test_a_configuration_kept_before_there_was_a_choice_of_optimizer_is_that_of_rmsprop(tmp_path):
    path, new = tmp_path / "config.yaml", ("temperature", "optimizer", "momentum", "weight_decay")
    lines = to_yaml(kept()).splitlines(keepends=True)
    before = [line for line in lines if line.strip().partition(":")[0] not in new]
    assert len(lines) - len(before) == len(new)
    path.write_text("".join(before))
    assert from_yaml(path) == kept()


def test_a_configuration_kept_before_there_were_distractors_has_none(tmp_path):
    path, new = tmp_path / "config.yaml", ("distractors", "log_base", "rate")
    lines = to_yaml(kept()).splitlines(keepends=True)
    before = [line for line in lines if line.strip().partition(":")[0] not in new]
    assert len(lines) - len(before) == len(new)
    path.write_text("".join(before))
    assert from_yaml(path) == kept()


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
    given = ("evaluate.tasks=3", "train=fast", "+actors.evaluate=2", "~quiet", "--cfg", "job")
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


def test_options_may_be_typed_where_the_command_is_left_to_hydra(monkeypatch, capsys, tmp_path):
    @hydra.main(version_base="1.3", config_path="pkg://harness.conf", config_name="config")
    def job(composed):
        raise AssertionError("it should print")

    monkeypatch.chdir(tmp_path)
    for options in ("method_options.density=0.3", "method_options={density: 0.3}"):
        monkeypatch.setattr("sys.argv", ["scale.py", "--cfg", "job", options])
        main_guard(job)
        assert "method_options:\n  density: 0.3\n" in capsys.readouterr().out


def test_a_momentum_that_has_an_effect_is_taken():
    for name in ("adam", "sgd"):
        assert typed(f"train.optimizer={name}", "train.momentum=0.9").train.momentum == 0.9
    assert typed("train.momentum=0").train.momentum == 0


def test_a_missing_file_is_no_configuration(tmp_path):
    with pytest.raises(UserError, match=r"config\.yaml is not a run's configuration: .*No such"):
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


@pytest.mark.parametrize("asked", [("--cfg", "job"), ("--help",), ("--config-name", "other")])
def test_what_only_hydra_can_do_is_left_to_it(asked, monkeypatch):
    assert compose_command_line(asked) is None
    calls = []
    monkeypatch.setattr("sys.argv", ["scale.py", *asked])
    main_guard(lambda *given: calls.append(given))
    assert calls == [()]


def test_a_job_is_handed_what_was_composed(monkeypatch):
    calls = []
    monkeypatch.setattr("sys.argv", ["scale.py", "tasks=7"])
    main_guard(lambda *given: calls.append(given))
    assert [config.tasks for (config,) in calls] == [7]


def test_an_error_of_several_lines_is_printed_as_one(monkeypatch, capsys):
    def fail(_):
        raise UserError("first\nsecond")

    monkeypatch.setattr("sys.argv", ["scale.py"])
    with pytest.raises(SystemExit, match="2"):
        main_guard(fail)
    assert capsys.readouterr().err == "error: first second\n"


def test_faults_of_ours_keep_their_traceback(monkeypatch):
    def fail(_):
        raise ZeroDivisionError

    monkeypatch.setattr("sys.argv", ["scale.py"])
    with pytest.raises(ZeroDivisionError):
        main_guard(fail)


@pytest.mark.parametrize("key", ["evaluate.algorithms", "evaluate.objectives"])
def test_names_may_not_be_given_twice(key):
    value = {"evaluate.algorithms": "binary", "evaluate.objectives": "G"}[key]
    with pytest.raises(UserError) as refused:
        typed(f"{key}=[{value},{value}]")
    assert str(refused.value) == (
        f"{key} must have each name once, got [{value},{value}]: try {key}=[{value}]"
    )


def test_something_must_be_inferred_by():
    with pytest.raises(UserError, match=r"evaluate\.algorithms must have a name at least"):
        typed("evaluate.algorithms=[]")
    with pytest.raises(UserError, match=r"evaluate\.objectives must have a name at least"):
        typed("evaluate.objectives=[]")
    # What minimises nothing needs no objective.
    assert typed("evaluate.algorithms=[max_logit]", "evaluate.objectives=[]").evaluate


def test_a_configuration_without_a_recipe_is_refused():
    composed = OmegaConf.structured(Config())
    with pytest.raises(UserError, match="missing mandatory value"):
        from_hydra(composed)
