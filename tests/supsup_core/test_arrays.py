import pytest

from supsup_core.arrays import check_shape


def test_refusal_tells_expected_letters_and_actual_shape():
    with pytest.raises(ValueError) as refusal:
        check_shape("masks", (250, 783), (250, 784), "T P")
    assert str(refusal.value) == "masks must have shape (T, P) = (250, 784), got (250, 783)"


def test_another_number_of_axes_is_refused():
    with pytest.raises(ValueError, match=r"got \(250,\)"):
        check_shape("masks", (250,), (250, 784), "T P")


def test_lists_and_tuples_of_one_shape_are_equal():
    check_shape("masks", [250, 784], (250, 784), "T P")
