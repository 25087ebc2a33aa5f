from typing import Annotated

import pytest

from supsup_core.knobs import Knob, check_knobs, knob_of


def make(
    share: Annotated[float, Knob("A share.", above=0, at_most=1)] = 0.5,
    widths: Annotated[list[int], Knob("Widths.", at_least=1, filled=True)] = [3],  # noqa: B006
    name: Annotated[str, Knob("A name.", one_of=("a", "b"))] = "a",
    other: int = 0,
):
    """Declare knobs."""


@pytest.mark.parametrize(
    ("limits", "words", "inside", "outside"),
    [
        ({"at_least": 1}, ">= 1", [1, 2.5], [0, 0.9]),
        ({"above": 0}, "> 0", [1e-9], [0, -1]),
        ({"at_most": 3}, "<= 3", [3, -9], [3.1]),
        ({"below": 3}, "< 3", [2.9], [3]),
        ({"above": 0, "at_most": 1}, "in (0, 1]", [1, 0.1], [0, 1.1]),
        ({"at_least": 0, "below": 1}, "in [0, 1)", [0, 0.9], [1, -0.1]),
        ({"one_of": ("a", "b")}, "one of a, b", ["a"], ["c"]),
        ({"at_least": 0, "at_most": 2**40}, "in [0, 1099511627776]", [2**40], [2**40 + 1]),
        (
            {},
            "",
            [-5, 5, "text", None, True, 0.0, 10**9, -3.4e38, 1.2e-38],
            [float("nan"), float("inf"), 1e300, -3.5e38, 1.1e-38, 5e-324, 10**9 + 1, 10**400],
        ),
    ],
)
def test_limits_in_words_are_those_that_are_checked(limits, words, inside, outside):
    knob = Knob("Help.", **limits)
    assert knob.limits == words
    assert all(map(knob.allows, inside))
    assert not any(map(knob.allows, outside))


def test_a_whole_number_that_no_float_can_hold_is_refused():
    assert not Knob("").allows(10**400)
    assert not Knob("", at_most=1.5).allows(10**400)
    assert not Knob("").allows(float("inf"))


def test_the_limits_of_a_list_are_those_of_its_elements():
    assert Knob("", at_least=1).allows([1, 2])
    assert not Knob("", at_least=1).allows([1, 0])
    assert Knob("").allows([])
    assert not Knob("", filled=True).allows([])
    assert not Knob("", distinct=True).allows([2, 2])


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"share": 2.0}, r"share must be in \(0, 1\], got 2.0"),
        ({"widths": [0, 1]}, r"widths must be a list of at least one value >= 1, got \[0, 1\]"),
        ({"widths": ()}, r"widths must be a list of at least one value >= 1, got \[\]"),
        ({"name": "c"}, "name must be one of a, b, got c"),
        (
            {"share": 1e-40},
            r"share must be in \(0, 1\] that float32 can hold \(1.18e-38 to 3.4e\+38\)",
        ),
        ({"widths": [10**12]}, r"at least one value >= 1 and <= 1000000000, got \[10+\]"),
    ],
)
def test_a_value_outside_the_limits_is_refused_by_name(values, line):
    with pytest.raises(ValueError, match=line):
        check_knobs(make, values)


def test_values_without_a_knob_pass():
    check_knobs(make, {"share": 1, "other": -5, "unknown": 3})
    assert knob_of(int) is None
    assert knob_of(Annotated[int, "no knob"]) is None
