"""Work on a folder of several runs: find its runs, and refuse a folder that does not fit."""

from collections.abc import Sequence
from dataclasses import replace

from harness.config.identity import run_directory
from harness.config.run_folders import runs_in
from harness.config.schema import Config
from harness.errors import UserError
from harness.run.refusals import readable_path_errors


def each_run(typed: Config) -> list[Config]:
    """Make a copy of a configuration for each run in its run_dir.

    Returns:
        One copy for each run in a folder of several runs. If run_dir is no such folder, a list with
        the configuration itself.
    """
    if not typed.run_dir:
        return [typed]
    directory = run_directory(typed)
    with readable_path_errors(directory):
        return [replace(typed, run_dir=str(one)) for one in runs_in(directory)] or [typed]


def check_folders(configs: Sequence[Config]) -> None:
    """Check that one run is not put into a folder of several runs, nor several into that of a run.

    Args:
        configs: the configurations of a command's runs. Several runs have the same parent folder.

    Raises:
        UserError: the folder has runs of the other kind.
    """
    directory = run_directory(configs[0])
    with readable_path_errors(directory):
        if len(configs) == 1 and (there := runs_in(directory)):
            raise UserError(
                f"run_dir must be the folder of one run, got {directory}, which has the runs "
                f"{', '.join(one.name for one in there)}: give the same lists again, such as "
                f"seeds, or choose one of these runs by run_dir={there[0]}"
            )
        if len(configs) > 1 and (directory.parent / "config.yaml").exists():
            raise UserError(
                f"run_dir must be a folder for several runs, got {directory.parent}, which is the "
                "folder of one run: choose another run_dir"
            )


def check_same_data(configs: Sequence[Config]) -> None:
    """Check that the runs of a command have the same data set, because they share its images.

    Raises:
        UserError: two runs have different data sets, or different options of the data set.
    """
    first = configs[0]
    for config in configs[1:]:
        if (config.data, config.data_options) != (first.data, first.data_options):
            raise UserError(
                f"runs of one folder must have the same data, got {first.data} in {first.run_dir} "
                f"and {config.data} in {config.run_dir}: give one run_dir at a time"
            )
