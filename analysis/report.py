"""Write a run's report: figures, tables, configuration and provenance in one HTML file.

python -m analysis.report run_dir=runs/mnist5k-permuted-32
python -m analysis.report runs/mnist5k-permuted-32
python -m analysis.report runs/mnist5k-permuted-32-seeds
python -m analysis.report run_dir=s3://BUCKET/runs/first

The third command is for a folder of several runs, for example one for each seed. The folder of a
search (harness/tune.py) gets a report too. The report is written into the run directory, also if
this is a URL of object storage.

After a run or a search, the harness starts this module in a separate process, because `harness` may
not import `analysis`, and because an error in the report must not end the run.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import search_report, several_report, stored, summary
from analysis.allocation import mistakes
from analysis.commandline import Parser, exit_code, run_command, run_directory
from analysis.load import as_path, configuration, load, read_configuration
from analysis.pages.content import Page, Section
from analysis.pages.render import render as render_page
from analysis.places import name_of, write_page
from analysis.search import is_search
from analysis.sections.allocation import allocated, allocation
from analysis.sections.cells import size
from analysis.sections.cost import cost
from analysis.sections.inference import inference
from analysis.sections.masks import masks
from analysis.sections.origin import origin, read_starts
from analysis.sections.queries import single_queries
from analysis.sections.recovery import recovery
from analysis.sections.reservoirs import reservoirs
from analysis.sections.storage import storage
from analysis.sections.training import training
from analysis.several import runs_in

NAME = "report.html"
PROGRAM = "python -m analysis.report"

Tables = dict[str, pd.DataFrame]


def read_tables(run_dir: str | Path) -> Tables:
    """Read the tables of a run.

    Returns:
        A mapping from table name to data frame, for each table that the run has. If an evaluation
        or a recall was done twice, only the row with the larger sample is kept.
    """
    found = {}
    for name in ("tasks", "evaluations", "queries", "reservoir", "recovery", "allocation"):
        try:
            found[name] = load(run_dir, name).to_pandas()
        except FileNotFoundError:
            continue
    if "evaluations" in found:
        found["evaluations"] = summary.largest_samples(found["evaluations"])
    if "reservoir" in found:
        found["reservoir"] = summary.largest_recalls(found["reservoir"])
    return found


def render(run_dir: str | Path) -> str:
    """Build the report of a run as HTML.

    Args:
        run_dir: the run directory, a path or a URL. The driver of the run may still be working.

    Raises:
        OSError: run_dir is not the folder of a run, the run has committed no task yet, or a file of
            the run cannot be read.
        ValueError: a file of the run is damaged, or a table has an unknown schema version.
    """
    text, config = read_configuration(run_dir)
    _check(config, run_dir)
    starts, tables = read_starts(run_dir), read_tables(run_dir)
    if "tasks" not in tables:
        raise FileNotFoundError(
            f"{run_dir}/log must hold a committed task, got none: wait for the first commit"
        )
    way = counted = None
    if "evaluations" in tables:
        way = summary.main_way(tables["evaluations"], *_first_way(config))
    if "allocation" in tables:
        steps = config["train.steps"], config["tasks"], len(tables["tasks"])
        counted = mistakes(tables["allocation"], *steps)
    sections = _sections(run_dir, tables, config["tasks"], way, counted)
    page = Page(
        title=name_of(run_dir),
        result=_result(tables["tasks"], config["tasks"], way, counted),
        described=f"{config['network']} on {config['data']}, {config['family']} tasks, method "
        f"{config['method']}, recipe {config['train.name']}, seed {config['seed']}",
        sections=[*sections, origin(text, starts)],
        facts=_facts(tables, config["tasks"], way),
    )
    return render_page(page)


def _sections(
    run_dir: str | Path,
    tables: Tables,
    num_tasks: int,
    way: pd.DataFrame | None,
    counted: pd.Series | None,
) -> list[Section]:
    """Make the sections about results, the most important first.

    Args:
        run_dir: the run directory.
        tables: the result of read_tables.
        num_tasks: number of tasks in the configuration.
        way: the result of summary.main_way; None if there are no evaluations.
        counted: the mistakes of a learner on a stream; None if the scenario is another.
    """
    layout, tasks, sections = stored.layout(run_dir), tables["tasks"], []
    if counted is not None:
        sections.append(allocation(tables["allocation"], counted))
    if way is not None:
        evaluations = tables["evaluations"]
        found = summary.evaluation_summary(evaluations)
        sections.append(inference(evaluations, found, run_dir))
        if "queries" in tables and (tables["queries"]["num_distractors"] == 0).any():
            is_stream = counted is not None
            sections.append(single_queries(tables["queries"], way, run_dir, is_stream=is_stream))
        is_given = evaluations["algorithm"] == summary.GIVEN
        if not is_given.all():
            inferring = found[found["algorithm"] != summary.GIVEN]
            sections.append(cost(evaluations[~is_given], inferring, layout))
    committed = "masks" if counted is not None else f"of {num_tasks} tasks"
    sections.append(training(tasks, committed))
    if layout.layers:
        sections.append(masks(tasks, layout, run_dir, is_stream=counted is not None))
    if "reservoir" in tables:
        sections.append(reservoirs(tables["reservoir"]))
    if "recovery" in tables:
        sections.append(recovery(tables["recovery"]))
    inferred = way if way is not None and way["algorithm"].iloc[0] != summary.GIVEN else None
    sections.append(storage(tasks, layout, tables.get("reservoir"), inferred))
    return sections


# The keys of the configuration that the report shows, and the types of their values.
_SHOWN = {
    "tasks": int,
    "seed": int,
    **dict.fromkeys(("network", "data", "family", "method", "train.name"), str),
}


def _check(config: dict[str, Any], run_dir: str | Path) -> None:
    wrong = [key for key, kind in _SHOWN.items() if type(config.get(key)) is not kind]
    if wrong:
        raise ValueError(
            f"{run_dir}/config.yaml must have the keys {', '.join(_SHOWN)}, got no value or a "
            f"wrong value of {', '.join(wrong)}: restore the file from a copy of the run"
        )


def _first_way(config: dict[str, Any]) -> list[str | None]:
    """Return the first algorithm and the first objective in the run's configuration."""
    keys = ("evaluate.algorithms", "evaluate.objectives")
    return [next(iter(config.get(key) or ()), None) for key in keys]


def _result(
    tasks: pd.DataFrame, num_tasks: int, way: pd.DataFrame | None, counted: pd.Series | None
) -> str:
    """State the result of the run; see _sections for the arguments."""
    sentences = [] if counted is None else [allocated(counted)]
    if way is not None:
        sentences.append(summary.result(way))
    else:
        of_all = "" if counted is not None else f" of {num_tasks}"
        sentences.append(
            f"{len(tasks)}{of_all} masks are trained, with a mean accuracy of "
            f"{tasks['accuracy'].mean():.4f} with the task given (GG). No task was inferred yet."
        )
    return " ".join(sentences)


def _facts(tables: Tables, num_tasks: int, way: pd.DataFrame | None) -> list[tuple[str, str]]:
    tasks = tables["tasks"]
    facts = [
        ("masks committed", f"{len(tasks)}")
        if "allocation" in tables
        else ("tasks committed", f"{len(tasks)} of {num_tasks}"),
        ("accuracy, task given", f"{tasks['accuracy'].mean():.4f}"),
    ]
    if way is not None and way["algorithm"].iloc[0] != summary.GIVEN:
        facts.append(("task accuracy", f"{way['task_accuracy'].mean():.4f}"))
    return [
        *facts,
        ("density", f"{tasks['density'].mean():.3f}"),
        ("masks, packed", size(int(tasks["mask_bytes"].sum()))),
    ]


def write(run_dir: str | Path) -> str | Path:
    """Write the report of a run, of several runs or of a search.

    If this fails, the old report stays unchanged.

    The modification time of the file is set to the time at which this function began to read the
    run. If a table changes after this time, the report is out of date.

    Args:
        run_dir: the run directory, the folder of several runs, or the folder of a search: a path or
            a URL.

    Returns:
        The path or the URL of the report.

    Raises:
        OSError: the run cannot be read (see render), or the report cannot be written.
        ValueError: a file of the run is damaged (see render).
    """
    begin, where = time.time(), run_dir if isinstance(run_dir, Path) else as_path(run_dir)
    return write_page(where, NAME, _html(where), begin)


def _html(folder: str | Path) -> str:
    if runs_in(folder):
        return several_report.render(folder)
    if is_search(configuration(folder)):
        return search_report.render(folder)
    return render(folder)


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> None:
    """Write the reports of the runs that the command line names.

    Args:
        arguments: the arguments of the command line; None: those of this process.
        program: the text by which the user started the program, for the help.
    """
    about = (__doc__ or "").replace(PROGRAM, program)
    parser = Parser(about, "run_dir=runs/mnist5k-permuted-32", program)
    told = "run directories, as run_dir=FOLDER or run_dir=URL"
    parser.add_argument("run_dir", type=run_directory, nargs="+", help=told)
    for run_dir in parser.parse_args(arguments).run_dir:
        print(write(run_dir))


def command(arguments: Sequence[str]) -> int:
    """Write reports for the command `supermask report`, and return the exit code."""
    return exit_code(lambda: main(arguments, "supermask report"))


if __name__ == "__main__":
    run_command(main)
