"""The section about training: accuracies of masks, and the work of the actors over time."""

import pandas as pd

from analysis import summary
from analysis.drawing.training import training_over_time
from analysis.pages.content import Details, Section, Table, Text, number, table
from analysis.pages.svg import drawing

LEAST_ACCURATE = 100  # number of tasks that the report lists one by one
_COLUMNS = ["accuracy", "loss", "density", "train_seconds"]
_HEADS = ["accuracy", "loss", "density", "training seconds"]


def training(tasks: pd.DataFrame, committed: str) -> Section:
    """Describe the training.

    Args:
        tasks: rows of the table `tasks`.
        committed: the words after the number of masks, such as "of 32 tasks" or "masks".
    """
    spread = tasks[_COLUMNS].describe(percentiles=[0.05, 0.5, 0.95])
    spread = spread.loc[["mean", "std", "min", "5%", "50%", "95%", "max"]]
    low, high = summary.bootstrap(tasks["accuracy"])
    told = (
        f"{len(tasks)} {committed} are committed. The mean accuracy with the task given is "
        f"{tasks['accuracy'].mean():.4f} (95 % by bootstrap: {low:.4f} to {high:.4f}). All actors "
        f"together trained for {tasks['train_seconds'].sum():,.1f} seconds."
    )
    worst = tasks.nsmallest(LEAST_ACCURATE, "accuracy")
    return Section(
        "Training",
        [
            Text(told),
            drawing(
                "Training over time. Left: trained masks. Middle: mean accuracy of each block, "
                "with the task given. A block is a group of tasks that train together. Right: a "
                "bar for each block, in the row of the actor that trained it. Pauses of all actors "
                "are cut out. The pointer on a point or a bar shows its tasks.",
                lambda: training_over_time(tasks),
                "training",
            ),
            table(
                "All tasks",
                ["statistic", *_HEADS],
                [[name, *(number(value) for value in row)] for name, row in spread.iterrows()],
            ),
            Details(f"The {len(worst)} least accurate tasks", [_listed(worst)]),
        ],
    )


def _listed(worst: pd.DataFrame) -> Table:
    return table(
        "Least accurate first",
        ["task", *_HEADS, "actor"],
        [
            [row.task_id, *(number(getattr(row, name)) for name in _COLUMNS), row.worker]
            for row in worst.itertuples()
        ],
    )
