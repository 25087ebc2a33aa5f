"""Options are checked against the parameters of the named thing. A mistake gives one error line."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from harness.config import options as under_test
from harness.config.identity import differences, from_yaml, result_values, to_yaml
from harness.config.keys import keys, leaf
from harness.config.options import (
    check_options,
    declared_options,
    make_named,
    option_type,
    resolved_options,
)
from harness.config.schema import Config, TrainConfig
from harness.errors import UserError
from harness.run.existing import with_given

TRAIN = TrainConfig("paper", 1000, 128, 1e-4, 0.99, "none")


@dataclass(frozen=True)
class Popup:
    """A stand-in for a method with options."""

    density: float = 0.5
    kappa: float | None = None
    rule: Literal["top", "random"] = "top"
    layers: tuple[int, ...] = (1, 2)
    names: Sequence[str] = field(default_factory=list)
    is_signed: bool = False

    def __post_init__(self):
        if not 0 < self.density <= 1:
            raise ValueError(f"density must be in (0, 1], got {self.density}")
        if len(self.layers) == 3:
            raise ValueError("three layers are too many")


class Plain:
    """A stand-in for a method without options."""


def dense(input_shape: tuple[int, ...], num_outputs: int, hidden: Sequence[int], *, gain: int = 1):
    """Stand in for a network: return the arguments."""
    return input_shape, num_outputs, hidden, gain


def anything(input_shape, num_outputs, **others: Any):
    """Stand in for a network that accepts any option: return the options."""
    return others


@pytest.fixture(autouse=True)
def _named(monkeypatch):
    """Let the names of the package stand for the stand-ins of this file."""
    fakes = {"edge_popup": Popup, "threshold": Plain, "mlp": dense, "units": anything}
    fakes["mnist5k"] = lambda files: None

    def load(kind, known, name):
        if name not in known:
            raise ValueError(f"{kind} must be one of {', '.join(known)}, got {name!r}")
        return fakes.get(name, Plain if kind == "family" else lambda input_shape, num_outputs: None)

    monkeypatch.setattr(under_test, "load", load)


def refusal(kind, name, target, given, num_arguments=0):
    with pytest.raises(UserError) as refused:
        check_options(kind, name, target, given, num_arguments)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_options_are_the_parameters_but_those_that_the_harness_gives():
    declared = declared_options("network", dense, 2)
    assert list(declared) == ["hidden", "gain"]
    assert declared["gain"].kind is int
    assert list(declared_options("method", Popup)) == [
        *("density", "kappa", "rule", "layers", "names", "is_signed")
    ]
    assert declared_options("method", Plain) == {}


def test_what_is_not_given_has_its_default():
    assert check_options("method", "edge_popup", Popup, {"density": 1}) == {
        "density": 1.0,
        "kappa": None,
        "rule": "top",
        "layers": [1, 2],
        "is_signed": False,
    }
    found = check_options("method", "edge_popup", Popup, {"kappa": 2, "layers": [], "names": ["a"]})
    assert (found["kappa"], found["layers"], found["names"]) == (2.0, [], ["a"])
    assert isinstance(found["kappa"], float)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"densty": 0.3},
            "method_options must be among density, kappa, rule, layers, names, is_signed for "
            "method=edge_popup, got densty: try method_options.density=0.5",
        ),
        (
            {"zzz": 0.3},
            "method_options must be among density, kappa, rule, layers, names, is_signed for "
            "method=edge_popup, got zzz: try method_options.density=0.5",
        ),
        (
            {"density": "much"},
            "method_options.density must be a number, got much: try method_options.density=0.5",
        ),
        (
            {"density": True},
            "method_options.density must be a number, got true: try method_options.density=0.5",
        ),
        (
            {"kappa": "x"},
            "method_options.kappa must be null or a number, got x: try method_options.kappa=0.5",
        ),
        (
            {"rule": "tpo"},
            "method_options.rule must be one of top, random, got tpo: try method_options.rule=top",
        ),
        (
            {"layers": [1, 2.5]},
            "method_options.layers must be a list of whole numbers, got [1,2.5]: try "
            "method_options.layers=[1,2]",
        ),
        (
            {"names": "a"},
            "method_options.names must be a list of names, got a: try method_options.names=[TEXT]",
        ),
        (
            {"is_signed": 1},
            "method_options.is_signed must be true or false, got 1: try "
            "method_options.is_signed=false",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(given, line):
    assert refusal("method", "edge_popup", Popup, given) == line


def test_what_must_be_given_is_missed():
    assert refusal("network", "mlp", dense, {}, 2) == (
        "network_options.hidden must be given for network=mlp, got nothing: try "
        "network_options.hidden=[300]"
    )


def test_a_thing_without_options_takes_none():
    assert refusal("method", "threshold", Plain, {"density": 0.3}) == (
        "method_options must be empty for method=threshold, got density: leave it out"
    )
    with pytest.raises(UserError, match="data_options must be empty for data=mnist5k"):
        resolved_options(Config(data_options={"x": 1}))


def test_what_takes_any_option_takes_it_as_it_is():
    assert make_named("network", {"units": ""}, "units", {"x": [1]}, (4,), 5) == {"x": [1]}


def test_a_named_thing_is_made_with_its_options():
    known = {"edge_popup": "", "mlp": ""}
    made = make_named("method", known, "edge_popup", {"density": 1, "layers": [3, 4]})
    assert (made.density, made.layers, made.names) == (1.0, (3, 4), [])
    assert make_named("network", known, "mlp", {"hidden": [7]}, (4,), 5) == ((4,), 5, [7], 1)


def test_a_value_that_the_thing_refuses_is_one_line():
    def made(**given):
        with pytest.raises(UserError) as refused:
            make_named("method", {"edge_popup": ""}, "edge_popup", given)
        return str(refused.value)

    assert made(density=2) == (
        "method_options.density must be in (0, 1], got 2.0: choose another method_options.density "
        "for method=edge_popup"
    )
    line = made(layers=[1, 2, 3])
    assert line.startswith("method_options must fit method=edge_popup, got {density: 0.5, ")
    assert "layers: [1,2,3]" in line
    assert line.endswith("three layers are too many: choose other options, or another method")


def test_an_unknown_name_is_one_line():
    with pytest.raises(UserError, match="method must be one of edge_popup, got 'x'"):
        make_named("method", {"edge_popup": ""}, "x", {})


def with_options(method="edge_popup", **given):
    return Config(train=TRAIN, method=method, method_options=given)


def test_an_option_that_is_not_given_is_its_default():
    stored = resolved_options(with_options())
    assert stored.method_options["density"] == 0.5
    assert stored.data_options == stored.family_options == stored.network_options == {}
    assert differences(stored, with_options()) == []
    assert differences(stored, with_options(density=0.5)) == []
    assert differences(with_options(), with_options(density=0.5)) == []
    assert differences(stored, with_options(density=0.3)) == [
        "method_options.density is 0.5 in the folder, 0.3 in this command"
    ]


def test_options_of_another_method_are_not_compared():
    assert differences(with_options(density=0.3), with_options("threshold")) == [
        "method is edge_popup in the folder, threshold in this command"
    ]


def test_an_option_of_any_name_may_be_missing():
    def units(**given):
        return Config(train=TRAIN, network="units", network_options=given)

    assert differences(units(a=1), units()) == [
        "network_options.a is 1 in the folder, not given in this command"
    ]
    assert differences(units(), units(a=1)) == [
        "network_options.a is not given in the folder, 1 in this command"
    ]


def test_an_option_is_a_key_of_its_own(tmp_path):
    config = resolved_options(with_options(density=0.3))
    assert "method_options.density" in keys(config)
    assert "method_options" not in keys(config)
    assert leaf(config, "method_options.density") == 0.3
    assert result_values(config)["method_options.layers"] == [1, 2]
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert from_yaml(path) == config


def test_other_keys_are_taken_beside_options():
    config = with_options(density=0.3)
    asked = with_options()
    asked.evaluate.tasks = 7
    assert with_given(config, asked, ["evaluate.tasks"]).evaluate.tasks == 7
    assert config.method_options == {"density": 0.3}


def test_the_type_of_an_option_is_the_declared_one():
    assert option_type(with_options(), "method_options.density") is float
    with pytest.raises(UserError, match=r"got densities: try method_options\.density=0\.5"):
        option_type(with_options(), "method_options.densities")


def test_a_configuration_imports_nothing_heavy():
    modules = ", ".join(
        f"harness.{name}"
        for name in (
            *("config", "config.schema", "config.checks", "config.identity", "config.options"),
            *("config.commandline", "config.help", "plan", "plan.units", "plan.resolve"),
            *("plan.pools", "search.config", "search.sweeps", "scale", "evaluate", "recall"),
        )
    )
    heavy = ("torch", "numba", "ray", "scipy")
    code = f"import sys, {modules}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
