"""The commands of docs/experiments.md that measure finders are accepted."""

import re
import shlex
from pathlib import Path

import pytest

from harness.config.compose import checked, compose_overrides, typed_keys
from harness.config.options import resolved_options
from harness.config.several import ScaleConfig, configurations
from harness.run.refusals import check_capabilities
from harness.run.spec import RunSpec

PAGE = Path(__file__).parents[3] / "docs" / "experiments.md"


@pytest.fixture(scope="module")
def specs():
    """A mapping from run directory to the specifications of the runs of its command."""
    pattern = r"^## Measurements of finders\n(.+?)^## "
    (section,) = re.findall(pattern, PAGE.read_text(), re.M | re.S)
    found = {}
    for line in re.findall(r"python harness/scale\.py (.+?)(?:; done)?$", section, re.M):
        one_seed = line.replace("'seeds=[0,1,2]'", "")  # as other seeds, in less time
        given = shlex.split(one_seed.replace("$d", "0.05").replace("$w", "300"))
        job = checked(compose_overrides(given, "scale", ScaleConfig), given)
        runs = configurations(job, typed_keys(given))
        found[job.run_dir] = [RunSpec(resolved_options(run), (28, 28), 10) for run in runs]
    return found


def test_every_command_that_measures_finders_is_accepted(specs):
    assert len(specs) >= 10
    for runs in specs.values():
        for spec in runs:
            check_capabilities(spec.config, spec.capabilities)


def test_one_coat_and_three_coats_store_as_many_bytes(specs):
    one, three = (specs[f"runs/{name}"][0].layout.row_bytes for name in ("one_coat", "coats"))
    assert one == pytest.approx(three, rel=0.01)
    assert f"{three:,} and\n{one:,} bytes" in PAGE.read_text()
