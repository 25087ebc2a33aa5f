"""The specification of a search, from which each trial gets its configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from harness.config.schema import Config
from harness.run.carried_code import CarriedCode
from harness.search.config import TuneConfig
from harness.search.space import Dimension, with_values
from harness.search.table import trials_schema
from harness.search.trial import resolve_trial


@dataclass(frozen=True)
class Search:
    """The specification of a search, which the driver and every trial get.

    Attributes:
        base: the configuration from which each trial starts.
        tune: the settings of the search.
        dimensions: the searched keys and their values.
        input_shape: shape of one image: channels, rows, columns.
        num_classes: number of classes of the data set.
        bfloat16_is_faster: whether `train.dtype=auto` means bfloat16 in all trials, not float32.
    """

    base: Config
    tune: TuneConfig
    dimensions: Sequence[Dimension]
    input_shape: tuple[int, ...]
    num_classes: int
    bfloat16_is_faster: bool = False

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "code": CarriedCode.of(self.base)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state.pop("code").install()
        self.__dict__.update(state)

    def config(self, sampled: Mapping[str, Any]) -> Config:
        """Make the configuration of a trial, with a value in place of every `auto`.

        Args:
            sampled: a mapping from dotted key to what the search algorithm drew. For a key of
                `dimensions`, this is the number or the name that Optuna drew. For another key, it
                is the value of the key.

        Raises:
            UserError: a value does not have the type of its key.
        """
        values = dict(sampled) | {d.key: d.value(sampled[d.key]) for d in self.dimensions}
        return resolve_trial(
            with_values(self.base, values),
            self.input_shape,
            self.num_classes,
            bfloat16_is_faster=self.bfloat16_is_faster,
        )

    @property
    def schema(self) -> pa.Schema:
        """The schema of the table `trials`."""
        kinds = {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
        return trials_schema({d.key: kinds.get(d.kind, pa.string()) for d in self.dimensions})
