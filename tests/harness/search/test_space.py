"""A search space is read from Hydra's sweeps. A wrong space is refused in one line."""

from dataclasses import dataclass

import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from harness.config.schema import Config, TrainConfig
from harness.errors import UserError
from harness.search.space import flat_space, one_by_one, read_space, with_values
from harness.search.sweeps import with_space

BASE = Config(
    train=TrainConfig(
        name="x", steps=10, batch_size=8, learning_rate=0.01, smoothing=0.9, decay="none"
    )
)


def read(key, text):
    (found,) = read_space({key: text}, BASE)
    return found


@pytest.mark.parametrize(
    ("key", "text", "distribution"),
    [
        ("train.smoothing", "interval(0.1, 0.9)", FloatDistribution(0.1, 0.9)),
        ("train.learning_rate", "tag(log,interval(1e-4,1))", FloatDistribution(1e-4, 1, log=True)),
        ("train.steps", "interval(10, 100)", IntDistribution(10, 100)),
        ("train.steps", "tag(log, interval(10, 100))", IntDistribution(10, 100, log=True)),
        ("train.steps", "range(10, 100, 30)", IntDistribution(10, 70, step=30)),
        ("train.steps", "range(10, 101, 30)", IntDistribution(10, 100, step=30)),
        ("train.smoothing", "range(0.5, 0.9, 0.1)", FloatDistribution(0.5, 0.8, step=0.1)),
        ("train.block", "interval(1, 8)", IntDistribution(1, 8)),
    ],
)
def test_numbers_are_drawn_as_hydra_writes_them(key, text, distribution):
    found = read(key, text)
    assert found.choices is None
    assert type(found.distribution) is type(distribution)
    for name, value in distribution._asdict().items():
        assert getattr(found.distribution, name) == pytest.approx(value), name


def test_a_range_never_holds_its_end():
    found = read("train.smoothing", "range(0.1,0.8,0.1)")
    assert found.distribution.high == pytest.approx(0.7)


def test_both_ends_of_each_key_are_checked_however_many_keys_there_are():
    others = ["steps", "batch_size", "block"]
    space = {"train.smoothing": "interval(0.1,1.5)", "seed": "range(1,9)"}
    space |= {f"train.{key}": "interval(2,8)" for key in others}
    space |= {f"train.{key}": "interval(0.1,0.9)" for key in ("learning_rate", "temperature")}
    space |= {
        "train.decay": "none,linear",
        "outputs": "range(10,90)",
        "train.dtype": "auto,float32",
    }
    with pytest.raises(UserError, match=r"train\.smoothing"):
        read_space(space, BASE)


def test_every_choice_of_a_key_is_met():
    found = one_by_one([read("family", "split,rotated,permuted"), read("seed", "1,2")])
    assert [(one["family"], one["seed"]) for one in found] == [
        *(("split", 1), ("rotated", 1), ("permuted", 1)),
        *(("split", 1), ("split", 2)),
    ]


def test_choices_keep_what_they_stand_for():
    assert read("train.optimizer", "adam,sgd").ends() == ["adam", "sgd"]
    assert read("train.optimizer", "choice('adam', sgd)").ends() == ["adam", "sgd"]
    assert read("train.smoothing", "choice(0.5, 0.9)").ends() == [0.5, 0.9]


@dataclass(frozen=True)
class Popup:
    """A stand-in for a method with options."""

    density: float = 0.5
    layers: tuple[int, ...] = (1,)


@pytest.fixture
def popup(monkeypatch):
    """Return a configuration with a method that has options."""
    monkeypatch.setattr("harness.config.options.load", lambda kind, known, name: Popup)
    return with_values(BASE, {"method": "edge_popup"})


def test_options_are_searched_by_their_declared_type(popup):
    space = {
        "method_options.density": "interval(0, 1)",
        "method_options": {"layers": "choice([1],[1,2])"},
    }
    density, layers = read_space(space, popup)
    assert density.kind is float
    assert type(density.distribution) is FloatDistribution
    assert [layers.value(name) for name in layers.distribution.choices] == [[1], [1, 2]]
    found = with_values(popup, {"method_options.density": 0.25, "method_options.layers": [1, 2]})
    assert found.method_options == {"density": 0.25, "layers": [1, 2]}


@pytest.mark.parametrize(
    ("key", "text", "line"),
    [
        ("method_options.densty", "interval(0,1)", "try method_options.density=0.5"),
        ("method_options.density", "choice(a,b)", "density must be a number, got a"),
        (
            "method_options.layers",
            "interval(1,2)",
            "each value is a list of whole numbers",
        ),
        ("method_options", "1,2", "key must be one that --help lists, got method_options"),
        ("data_options.x", "1,2", "data_options.x must have one value"),
    ],
)
def test_options_that_cannot_be_searched_are_refused(key, text, line, popup):
    with pytest.raises(UserError) as refused:
        read_space({key: text}, popup)
    assert line in str(refused.value)


@pytest.mark.parametrize(
    ("key", "text", "parts"),
    [
        (
            "train.learnin_rate",
            "interval(0,1)",
            [
                "key must be one that --help lists, got train.learnin_rate",
                "did you mean train.learning_rate",
            ],
        ),
        (
            "zzz",
            "interval(0,1)",
            ["key must be one that --help lists, got zzz", "--help lists every key"],
        ),
        ("train.smoothing", "0.5", ["train.smoothing must be a range such as", "got 0.5"]),
        ("train.smoothing", "interval(0.1)", ["interval(0.1, 0.9)", "got interval(0.1)", "end"]),
        ("train.smoothing", "interval(0.9, 0.1)", ["an end above its start", "got interval"]),
        (
            "train.smoothing",
            "interval(0.1, 2)",
            ["train.smoothing must be a number in [0, 1), got 2.0"],
        ),
        ("train.smoothing", "interval(0.1, 0.9", ["train.smoothing must be", "got interval(0.1"]),
        (
            "train.smoothing",
            "tag(log, interval(0, 0.9))",
            ["above 0, because its scale is log"],
        ),
        ("train.smoothing", "tag(lag, interval(0.1, 0.9))", ["may have only the tag log"]),
        ("train.smoothing", "tag(log, choice(0.1, 0.9))", ["may have only the tag log"]),
        ("train.steps", "interval(0.5, 2)", ["whole numbers as start", "got interval(0.5, 2)"]),
        ("train.steps", "range(1, 10, 0)", ["got range(1, 10, 0)"]),
        (
            "train.steps",
            "choice(1, many)",
            ["train.steps must be a whole number in [1, ", "got many"],
        ),
        ("train.steps", "choice(5)", ["at least two choices, got choice(5)"]),
        ("train.optimizer", "choice(adam, adm)", ["got adm: try train.optimizer=adam"]),
        ("train.optimizer", "interval(1, 2)", ["each value is a text, got interval"]),
        ("train.smoothing", "glob(*)", ["must be a range such as", "got glob(*)"]),
        ("train.momentum", "interval(0.1, 0.9)", ["train.momentum must be 0 with"]),
        ("tasks", "range(4, 16, 4)", ["tasks must have one value"]),
        ("evaluate.num_images", "range(1, 9, 2)", ["evaluate.num_images must have one"]),
        ("quiet", "true,false", ["quiet must have one value"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(key, text, parts):
    with pytest.raises(UserError) as refused:
        read(key, text)
    assert "\n" not in str(refused.value)
    for part in parts:
        assert part in str(refused.value)


def test_no_space_is_refused_with_an_example():
    with pytest.raises(UserError, match=r"tune.space must have at least one key.*'train.learning"):
        read_space({}, BASE)


def test_what_only_some_of_the_values_can_be_together_is_refused():
    with pytest.raises(UserError, match=r"train\.momentum must be 0 with train\.optimizer=rmsprop"):
        read_space({"train.optimizer": "adam,rmsprop", "train.momentum": "interval(0,0.9)"}, BASE)


def test_sweeps_of_a_command_line_go_to_the_space_and_nothing_else_does():
    typed = ["tasks=4", "train.optimizer=adam,sgd", "network_options.hidden=[3,4]"]
    more = ["tune.space.train.steps=interval(1, 5)", "--cfg", "job"]
    assert with_space([*typed, *more]) == [
        "tasks=4",
        "++tune.space.train.optimizer='adam,sgd'",
        "network_options.hidden=[3,4]",
        "++tune.space.train.steps='interval(1, 5)'",
        *("--cfg", "job"),
    ]


def test_a_key_is_searched_once():
    with pytest.raises(UserError, match=r"train\.steps must have one sweep"):
        with_space(["train.steps=1,2", "tune.space.train.steps=interval(1,5)"])


def test_yaml_may_nest_keys_or_write_them_with_dots():
    space = {"train.steps": "interval(1,5)", "train": {"optimizer": "adam,sgd"}}
    assert flat_space(space) == {"train.steps": "interval(1,5)", "train.optimizer": "adam,sgd"}
