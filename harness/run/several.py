"""Work on a folder of several runs: find its runs, and refuse a folder that does not fit."""

from collections.abc import Sequence
from dataclasses import replace

from harness.config.identity import run_directory
from harness.config.run_folders import runs_in
from harness.config.schema import Config
from harness.errors import UserError
from harness.run.refusals import readable_path_errors


def each_run(typed: Config) -> list[Config]:
    """Make a configuration for each run in the folder `run_dir` of the typed configuration.

    Returns:
        If run_dir is a folder of several runs, one configuration for each of them, with the run's
        own run_dir. Otherwise, a list that has only the typed configuration.
    """
    if not typed.run_dir:
        return [typed]
    directory = run_directory(typed)
    with readable_path_errors(directory):
        return [replace(typed, run_dir=str(one)) for one in runs_in(directory)] or [typed]


def check_folders(configs: Sequence[Config]) -> None:
    """Check that a folder does not get both the files of one run and the folders of several runs.

    Args:
        configs: the configurations of a command's runs. Several runs have the same parent folder.

    Raises:
        UserError: there is one run, and the folder has several runs; or there are several runs, and
            the folder has the files of one run.
    """
    directory = run_directory(configs[0])
    with readable_path_errors(directory):
        if len(configs) == 1 and (there := runs_in(directory)):
            raise UserError(
                f"run_dir must be the folder of one run, got {directory}, which has the runs "
                f"{', '.join(one.name for one in there)}: to continue all of them, type the lists "
                f"of the first start again, such as seeds; for one of them, run_dir={there[0]}"
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
