"""Find, write and check the result files of work units.

Each unit has one file. Some units also have a file with details, such as a row for each query.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import pyarrow as pa

from harness.driver.protocol import FileUnit, TableUnit
from harness.places.places import Place, each, put_aside
from harness.run.refusals import readable_path_errors
from harness.tables.files import read_table_file, table_files, write_table
from harness.tables.schemas import SCHEMAS

logger = logging.getLogger("harness")

U = TypeVar("U", bound=TableUnit)

_RESULTS = ("evaluations", "reservoir", "recovery")  # tables in which each file belongs to one unit
_DETAILS = ("queries",)  # tables whose files belong to the units of another table
_NONE: Mapping[str, pa.Table] = MappingProxyType({})


class UnitFiles:
    """The result files of work units in a run directory. Each file is a part of a table.

    Args:
        directory: the run directory.
        run_id: the run's identity, which is stored in each file.
    """

    def __init__(self, directory: Place, run_id: str) -> None:
        self._directory, self._run_id = directory, run_id

    def missing(self, units: Sequence[U]) -> list[U]:
        """List the units that lack a complete result file, or a file with details.

        If a file is damaged, or belongs to another run, it is renamed to NAME.broken and its unit
        is listed.
        """
        kept = each(self._is_kept, units, self._directory)
        return [unit for unit, there in zip(units, kept, strict=True) if not there]

    def put_others_aside(self, units: Iterable[TableUnit]) -> None:
        """Rename damaged result files to NAME.broken, except the files of the given units.

        The renamed files come from an earlier start with other settings, or are copies. Under their
        old names, they would make `analysis.load` refuse the run.

        Args:
            units: the units whose files are not checked here, because `missing` checks them.

        Raises:
            UserError: another version of this program wrote a file, or a path is no regular file.
        """
        checked = {(table, one.name) for one in units for table in (one.table, *one.details)}
        others = [
            (table, path)
            for table in (*_RESULTS, *_DETAILS)
            for path in table_files(self._directory / table)
            if (table, path.name.removesuffix(".parquet")) not in checked
        ]
        each(lambda other: self._is_intact(*other, None, "not used"), others, self._directory)

    def existing(self, units: Iterable[TableUnit]) -> list[Place]:
        """List the result files of these units that exist, in the order of the units."""
        paths = [self._path(unit.table, unit.name) for unit in units]
        there = each(lambda path: path.is_file(), paths, self._directory)
        return [path for path, is_there in zip(paths, there, strict=True) if is_there]

    def stored(self, units: Iterable[U]) -> Iterator[tuple[U, pa.Table]]:
        """Yield each unit whose result file exists, and its rows.

        `missing` must have checked the files before.
        """
        for unit in units:
            path = self._path(unit.table, unit.name)
            try:
                rows = read_table_file(path, SCHEMAS[unit.table], run_id=self._run_id)
            except FileNotFoundError:
                continue
            yield unit, rows

    def has(self, name: str) -> bool:
        """Return whether a unit of this name has a result file in any table."""
        return any(self._path(table, name).is_file() for table in SCHEMAS if table not in _DETAILS)

    def keep(self, unit: FileUnit, rows: pa.Table, details: Mapping[str, pa.Table] = _NONE) -> None:
        """Write the rows of a unit to its files. The files are on disk when this method returns.

        The result file is written last. So if the process is killed between two files, the unit
        counts as missing.

        Args:
            unit: the unit.
            rows: the rows of the unit's table.
            details: the rows of the unit's further tables; see FileUnit.details.

        Raises:
            UserError: the run directory cannot be written, or its disk is full.
        """
        with readable_path_errors(self._directory):
            for table, one in (*details.items(), (unit.table, rows)):
                path = self._path(table, unit.name)
                path.parent.mkdir(exist_ok=True)
                write_table(one, path, self._run_id)

    def _path(self, table: str, name: str) -> Place:
        return self._directory / table / f"{name}.parquet"

    def _is_kept(self, unit: TableUnit) -> bool:
        sizes = {unit.table: unit.num_rows, **dict.fromkeys(unit.details)}
        return all(
            self._is_intact(table, self._path(table, unit.name), size, "evaluating again")
            for table, size in sizes.items()
        )

    def _is_intact(self, table: str, path: Place, num_rows: int | None, then: str) -> bool:
        """Return whether a file is complete and belongs to this run; rename it if it is damaged.

        Args:
            table: the name of the table.
            path: path of the file, which may be missing.
            num_rows: the number of rows of a complete file; None if it is unknown.
            then: what the program does about a damaged file, for the log.
        """
        try:
            found = len(read_table_file(path, SCHEMAS[table], run_id=self._run_id))
            if num_rows not in (None, found):
                raise ValueError(f"{path} must have {num_rows} rows, got {found}")
        except FileNotFoundError:
            return False
        except ValueError as error:
            logger.warning("damaged: %s; %s", error, then)
            put_aside(path)
            return False
        return True
