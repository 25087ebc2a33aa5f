"""A list of seeds, of output sizes or of methods makes the configurations of several runs."""

from pathlib import Path

import pytest

from harness import evaluate, scale, tune
from harness.config.compose import checked, compose_overrides
from harness.config.run_folders import SWEPT, label, runs_in, values_in
from harness.config.schema import Config
from harness.config.several import ScaleConfig, configurations
from harness.errors import UserError


def made(*overrides: str) -> list[Config]:
    job = checked(compose_overrides(overrides, "scale", ScaleConfig))
    return configurations(job, [one.partition("=")[0] for one in overrides])


def test_one_run_has_the_configuration_of_a_command_without_lists():
    [config] = made("tasks=8")
    assert config == checked(compose_overrides(["tasks=8"]))
    assert type(config) is Config


def test_each_seed_has_a_folder():
    configs = made("seeds=[2,0]", "run_dir=many/")
    assert [(one.seed, one.run_dir) for one in configs] == [
        (2, "many/seed-2"),
        (0, "many/seed-0"),
    ]


def test_the_folder_of_several_runs_is_not_that_of_one_run():
    assert made("seeds=[7]")[0].run_dir == "runs/mnist5k-permuted-32-seeds/seed-7"


def test_two_lists_make_a_run_for_each_pair():
    configs = made("output_sizes=[20,30]", "seeds=[0,1]", "run_dir=s3://bucket/many")
    assert [(one.outputs, one.seed, one.run_dir) for one in configs] == [
        (outputs, seed, f"s3://bucket/many/outputs-{outputs}-seed-{seed}")
        for outputs in (20, 30)
        for seed in (0, 1)
    ]


def test_an_experiment_may_have_a_list():
    configs = made("experiment=fig6", "run_dir=six")
    assert [one.outputs for one in configs] == [12, 25, 50, 100, 200, 500]
    assert {one.evaluate.num_images for one in configs} == {1}
    assert [one.run_dir for one in made("experiment=fig6", "output_sizes=[30]", "run_dir=six")] == [
        "six/outputs-30"
    ]


def test_each_method_has_its_options_and_a_folder():
    configs = made(
        "methods=[threshold,edge_popup,{name: edge_popup, density: 0.3}]",
        "seeds=[0,1]",
        "run_dir=many",
    )
    assert [(one.method, one.method_options, one.seed) for one in configs] == [
        *(("threshold", {}, 0), ("threshold", {}, 1), ("edge_popup", {}, 0)),
        ("edge_popup", {}, 1),
        *(("edge_popup", {"density": 0.3}, seed) for seed in (0, 1)),
    ]
    assert [one.run_dir for one in configs][3:5] == [
        "many/method-edge_popup-seed-1",
        "many/method-edge_popup_density0.3-seed-0",
    ]


def test_a_method_may_have_keys_of_its_own_recipe_and_network():
    one, other = made(
        "methods=[threshold,{name: jackpots, density: 0.2, train.transfer: last, train.steps: 7,"
        " train.learning_rate: 1, network_options.init: kaiming_normal}]",
        "train.batch_size=9",
        "run_dir=many",
    )
    assert (one.train.transfer, one.network_options) == ("none", {})
    assert other.method_options == {"density": 0.2}
    assert other.network_options == {"init": "kaiming_normal"}
    train = other.train
    assert (train.transfer, train.steps, train.batch_size) == ("last", 7, 9)
    assert repr(train.learning_rate) == "1.0"
    assert other.run_dir == (
        "many/method-jackpots_density0.2_transferlast_steps7_learning_rate1_initkaiming_normal"
    )


def test_methods_replace_the_method_of_an_experiment():
    assert {one.method for one in made("experiment=fig4", "methods=[signed]")} == {"signed"}
    configs = made("experiment=finders")
    assert len({one.run_dir for one in configs}) == len(configs) > 5


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["methods=[]"],
            "methods must be null or a non-empty list of names or mappings, got []: try "
            "methods=[threshold,edge_popup]",
        ),
        (["methods=[3]"], "list of names or mappings, got [3]: try methods=[threshold,edge_popup]"),
        (["methods=[nothing]"], "method must be one of threshold, edge_popup"),
        (
            ["methods=[{density: 0.3}]"],
            "{name: edge_popup, density: 0.3}, got [{density: 0.3}]: try",
        ),
        (
            ["methods=[{name: signed, train.steps: -1}]"],
            "train.steps must be a whole number in [1, ",
        ),
        (
            ["methods=[{name: signed, seed.x: 1}]"],
            "methods must be a list whose keys with a dot are keys of train or network_options, "
            "got [seed.x]: try ",
        ),
        (["methods=[{name: signed, train.pace: 1}]"], "got [train.pace]: try methods=[threshold,"),
        (["methods=[signed,signed]"], "methods must have each method once, got two runs for "),
        (["methods=[signed]", "method=threshold"], "try methods=[threshold]"),
        (
            ["methods=[signed]", "method_options.threshold=0.3"],
            "methods must be null if method_options is given, got [signed]: try",
        ),
        (["seeds=[]"], "seeds must be null or a non-empty list of whole numbers in [0, "),
        (["seeds=[1,1]"], "each once, got [1,1]: try seeds=[0,1,2]"),
        (["seeds=[-1]"], "got [-1]: try seeds=[0,1,2]"),
        (["seeds=[18446744073709551616]"], "seeds must be null or a non-empty list"),
        (["seeds=3"], "got 3: try seeds=[0,1,2]"),
        (["seeds=[a]"], "got [a]: try seeds=[0,1,2]"),
        (
            ["seeds=[1,2]", "seed=5"],
            "seeds must be null if seed is given, got [1,2]: try seeds=[5]",
        ),
        (["output_sizes=[0]"], "output_sizes must be null or a non-empty list"),
        (["output_sizes=[20]", "outputs=30"], "output_sizes must be null if outputs is given"),
    ],
)
def test_a_bad_list_is_one_line(overrides, said):
    with pytest.raises(UserError) as refused:
        made(*overrides)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("job", [evaluate, tune])
def test_other_commands_have_no_lists(job, typed):
    code, out, err = typed(job, "seeds=[0,1]", "run_dir=nowhere")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "seeds" in err


def test_runs_are_found_in_the_order_of_their_numbers(tmp_path: Path):
    names = ["seed-10", "seed-2", "outputs-5-seed-1", "seed-0", "seed-x", "my-seed-1", "seed-3"]
    names += ["method-b", "method-a_x1-2-seed-1", "method-a_x1-2-seed-0", "method-"]
    for name in names:
        (tmp_path / name).mkdir()
        if name != "seed-0":  # a run that has not begun
            (tmp_path / name / "config.yaml").touch()
    found = [one.name for one in runs_in(tmp_path)]
    assert found == [
        *("method-b", "seed-2", "seed-3", "seed-10"),
        *("method-a_x1-2-seed-0", "method-a_x1-2-seed-1", "outputs-5-seed-1"),
    ]


def test_the_values_of_a_folder_s_name_are_read_back():
    for values in (
        {"seed": "3"},
        {"method": "edge_popup_density0.3", "outputs": "20", "seed": "3"},
        {"method": "a_x-1", "seed": "3"},
    ):
        assert values_in(label(values)) == values
    assert values_in("seed-x") == values_in("") == values_in("my-seed-1") == {}


def test_a_run_s_own_folder_has_no_other_runs(tmp_path: Path):
    (tmp_path / "seed-1").mkdir()
    (tmp_path / "seed-1" / "config.yaml").touch()
    assert [one.name for one in runs_in(tmp_path)] == ["seed-1"]
    (tmp_path / "config.yaml").touch()
    assert runs_in(tmp_path) == []
    assert runs_in(tmp_path / "nowhere") == []


def test_every_list_stands_for_a_key_of_a_run():
    for many, one in SWEPT.items():
        assert hasattr(ScaleConfig(), many)
        assert hasattr(Config(), one)


def test_scale_lists_the_keys_in_its_help(typed):
    code, out, _ = typed(scale, "--help")
    lists = [f"{key}=null" in out for key in ("seeds", "output_sizes", "methods")]
    assert (code, lists) == (0, [True] * 3)
