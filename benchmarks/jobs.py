"""Make the specification of a run for the benchmarks."""

from collections.abc import Sequence
from dataclasses import replace

from harness.config.compose import checked, compose_overrides
from harness.config.options import resolved_options
from harness.config.schema import Config
from harness.data.dataset import Dataset
from harness.plan.resolve import resolve
from harness.run.products import here, measured_rates
from harness.run.refusals import check_against_data, check_capabilities
from harness.run.spec import RunSpec


def compose(options: Sequence[str]) -> Config:
    """Compose the configuration of a run from command-line options."""
    return checked(compose_overrides(options))


def resolved_job(config: Config, data: Dataset) -> RunSpec:
    """Make the specification of a run, with every `auto` replaced by a value for this machine.

    Raises:
        UserError: the data set, the network or the finder does not allow a value.
    """
    config = resolved_options(config)
    check_against_data(config, data)
    probe = RunSpec(config, data.input_shape, data.num_classes)
    check_capabilities(config, probe.capabilities)
    rates = measured_rates(probe, here)
    bfloat16_is_faster = rates is not None and rates.bfloat16_is_faster
    resolved = resolve(probe.config, probe.capabilities, bfloat16_is_faster=bfloat16_is_faster)
    return replace(probe, config=resolved)
