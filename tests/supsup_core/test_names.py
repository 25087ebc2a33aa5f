import subprocess
import sys

import pytest

from supsup_core import names

KINDS = {
    "network": names.NETWORKS,
    "method": names.METHODS,
    "family": names.FAMILIES,
    "engine": names.ENGINES,
}


def test_names_are_read_without_torch():
    code = "import sys, supsup_core.names; print({'torch', 'numpy', 'numba'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, known in KINDS.items() for name in known],
)
def test_every_name_stands_for_something_that_can_be_called(kind, name):
    assert callable(names.load(kind, KINDS[kind], name))


def test_an_unknown_name_is_refused_with_the_known_ones():
    known = "floats, device, bits, mlp, plain"
    with pytest.raises(ValueError, match=f"engine must be one of {known}, got 'fast'"):
        names.load("engine", names.ENGINES, "fast")


def test_algorithms_are_each_of_one_kind():
    kinds = [*names.GRADIENT_ALGORITHMS, names.RANKED, *names.FORWARD_ALGORITHMS]
    assert sorted(kinds) == sorted(names.ALGORITHMS)
    assert set(names.SHARDED_ALGORITHMS) <= set(names.ALGORITHMS)
    assert set(names.SUPERFLUOUS_OBJECTIVES) <= set(names.OBJECTIVES)
