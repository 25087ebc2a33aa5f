"""The tables of a run: their Arrow schemas, and how a table gets to disk and back.

A table is a folder of Parquet files with one schema. A file appears whole or not
at all, and once its writer has returned it survives a power cut. Every column
says its unit and its meaning in the metadata of its field.
"""

from collections.abc import Mapping

import pyarrow as pa


def _column(
    name: str, kind: pa.DataType, unit: str, description: str, *, nullable: bool = False
) -> pa.Field:
    """A column, in which every row has a value unless it is nullable."""
    metadata = {"unit": unit, "description": description}
    return pa.field(name, kind, nullable=nullable, metadata=metadata)


def _schema(table: str, version: int, columns: list[pa.Field]) -> pa.Schema:
    return pa.schema(columns, {"schema_version": str(version), "table": table})


TASKS = _schema(
    "tasks",
    1,
    [
        _column("task_id", pa.int64(), "1", "the task; row of the array `masks`, from 0"),
        _column("method", pa.string(), "", "mask finder that trained the mask"),
        _column("accuracy", pa.float64(), "fraction", "test images labelled right, task given"),
        _column("loss", pa.float64(), "nats", "mean cross-entropy of the test images"),
        _column("steps", pa.int64(), "steps", "training steps of the task"),
        _column("train_seconds", pa.float64(), "seconds", "training; a task's share of its block"),
        _column("density", pa.float64(), "fraction", "gains that are not zero"),
        _column("mask_bytes", pa.int64(), "bytes", "size of the packed row"),
        _column("row_crc32c", pa.uint32(), "1", "CRC-32C of the packed row"),
        _column("worker", pa.string(), "", "actor that trained the mask"),
        _column("device", pa.string(), "", "device that trained the mask"),
        _column("finished_at", pa.timestamp("us", tz="UTC"), "UTC", "end of training"),
    ],
)

EVALUATIONS = _schema(
    "evaluations",
    2,
    [
        _column("num_tasks", pa.int64(), "tasks", "masks in the superposition"),
        _column(
            "num_distractors",
            pa.int64(),
            "tasks",
            "masks of the superposition, counted in num_tasks, that were drawn at random from the "
            "densities of the run's own and never trained",
        ),
        _column("task_id", pa.int64(), "1", "the task whose images were shown"),
        _column("algorithm", pa.string(), "", "how the task was inferred"),
        _column(
            "objective",
            pa.string(),
            "",
            "what inference minimised; null where it minimises nothing",
            nullable=True,
        ),
        _column("num_images", pa.int64(), "images", "images used to infer the task once"),
        _column("num_batches", pa.int64(), "batches", "inferences behind this row"),
        _column("task_accuracy", pa.float64(), "fraction", "batches whose task was inferred right"),
        _column("accuracy_gg", pa.float64(), "fraction", "labels right, task given"),
        _column(
            "accuracy_gns", pa.float64(), "fraction", "labels right by the mask that was inferred"
        ),
        _column(
            "accuracy_gnu", pa.float64(), "fraction", "labels right; 0 for a batch of a wrong task"
        ),
        _column(
            "seconds_per_inference",
            pa.float64(),
            "seconds",
            "time to infer the task once: mean over queries that are inferred together in batches, "
            "on an actor that may share its CPU with training",
        ),
        _column("num_gradients", pa.int64(), "gradients", "backward passes of one inference"),
        _column(
            "bits_read_fraction",
            pa.float64(),
            "fraction",
            "mask bits read by one gradient, of those of the stored masks",
        ),
        _column(
            "agreement",
            pa.float64(),
            "fraction",
            "inferences whose answer equals the exact one-shot's; null where it was not compared",
            nullable=True,
        ),
        _column("device", pa.string(), "", "device that inferred"),
    ],
)

RESERVOIR = _schema(
    "reservoir",
    1,
    [
        _column("rule", pa.string(), "", "how masks were stored"),
        _column(
            "dim", pa.int64(), "bits", "units of a reservoir, the smallest: bits held together"
        ),
        _column("num_blocks", pa.int64(), "1", "reservoirs that hold a mask between them"),
        _column("num_tasks", pa.int64(), "tasks", "masks in the reservoir"),
        _column(
            "cue",
            pa.string(),
            "",
            "what recall began with: a mask with bits flipped or erased, or data: a batch of "
            "images alone",
        ),
        _column(
            "share",
            pa.float64(),
            "fraction",
            "bits of the cue that were flipped or erased; null for data",
            nullable=True,
        ),
        _column("num_cues", pa.int64(), "1", "recalls behind this row, each of another task"),
        _column("bit_accuracy", pa.float64(), "fraction", "bits recalled right"),
        _column("exact_recall", pa.float64(), "fraction", "cues from which the very mask came"),
        _column("other", pa.float64(), "fraction", "cues that led to another stored mask"),
        _column("spurious", pa.float64(), "fraction", "cues that settled on what was not stored"),
        _column("unsettled", pa.float64(), "fraction", "cues that had not settled at the end"),
        _column("steps", pa.float64(), "sweeps", "mean sweeps over all bits that changed one"),
        _column("accuracy", pa.float64(), "fraction", "labels right by the masks recalled"),
        _column("accuracy_gg", pa.float64(), "fraction", "the same by the masks stored"),
        _column(
            "capacity",
            pa.float64(),
            "tasks",
            "random masks that theory lets the rule hold to the bit, from cues without an error; "
            "null where there is no theory",
            nullable=True,
        ),
        _column("reservoir_bytes", pa.int64(), "bytes", "of the reservoir, whatever it holds"),
        _column("store_bytes", pa.int64(), "bytes", "of the same masks, packed"),
        _column("seconds", pa.float64(), "seconds", "one recall: mean, of cues recalled together"),
        _column("store_seconds", pa.float64(), "seconds", "storing one mask: mean"),
        _column("device", pa.string(), "", "device that stored and recalled"),
    ],
)

FAILURES = _schema(
    "failures",
    1,
    [
        _column("task_id", pa.int64(), "1", "a task of the unit that was set aside"),
        _column("unit", pa.string(), "", "name of the work unit"),
        _column("pool", pa.string(), "", "train, or what else the unit was for"),
        _column("tries", pa.int64(), "1", "how often it failed before it was set aside"),
        _column("error", pa.string(), "", "of the last try, in one line"),
        _column("failed_at", pa.timestamp("us", tz="UTC"), "UTC", "when it was set aside"),
    ],
)


def trials_schema(searched: Mapping[str, pa.DataType]) -> pa.Schema:
    """The table `trials` of a search: a row a trial, and a column for every key it searched.

    Args:
        searched: dotted key -> the type of its values.
    """
    return _schema(
        "trials",
        1,
        [
            _column("trial", pa.int64(), "1", "the trial, in the order they began, from 0"),
            _column(
                "status",
                pa.string(),
                "",
                "finished: it took all its steps; stopped: others did better; failed: three times",
            ),
            *(
                _column(key, kind, "", "value of this key of the configuration")
                for key, kind in searched.items()
            ),
            *(
                _column(name, pa.float64(), "fraction", description, nullable=True)
                for name, description in {
                    "accuracy": "test images labelled right, task given: mean over tasks",
                    "task_accuracy": "batches whose task was inferred right, among the trial's "
                    "own masks",
                    "expected_task_accuracy": "inferences to expect right among `among` masks, "
                    "by the margins among the trial's own",
                    "expected_accuracy": "accuracy times expected_task_accuracy",
                }.items()
            ),
            _column("among", pa.int64(), "tasks", "masks of expected_task_accuracy"),
            _column("num_tasks", pa.int64(), "tasks", "masks of the trial"),
            _column("steps", pa.int64(), "steps", "training steps of each task, taken so far"),
            _column("seconds", pa.float64(), "seconds", "training and measuring, of one actor"),
            _column("config_hash", pa.string(), "", "names the configuration's result values"),
            _column("config", pa.string(), "YAML", "the trial's configuration, resolved"),
        ],
    )


SCHEMAS = {
    "tasks": TASKS,
    "evaluations": EVALUATIONS,
    "reservoir": RESERVOIR,
    "failures": FAILURES,
}
