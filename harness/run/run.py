"""A run that is ready for work, and the folders of its tables."""

from dataclasses import dataclass

from harness.config.schema import EvaluateConfig
from harness.places.places import Place
from harness.run.spec import RunSpec
from harness.storage.store import MaskStore
from harness.tables.schemas import FOLDERS


@dataclass(frozen=True)
class Run:
    """A run that is ready for work.

    Attributes:
        directory: the run directory, an absolute path.
        spec: the run's specification. The evaluation settings in its configuration are those of
            this start. The other settings are those of the run.
        store: the mask store, after all checks. If `read_only` is false, damaged masks have been
            removed from it.
        own: the evaluation settings with which the run began.
        read_only: whether this start only reads masks. If true, it trains no mask and repairs no
            file.
    """

    directory: Place
    spec: RunSpec
    store: MaskStore
    own: EvaluateConfig
    read_only: bool = False

    def folder(self, table: str) -> Place:
        """Return the folder of a table of SCHEMAS. The folder may be missing."""
        return self.directory / FOLDERS[table]
