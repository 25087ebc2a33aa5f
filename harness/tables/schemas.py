"""Arrow schemas of all tables of a run.

A table is a folder of Parquet files with one schema. A file appears whole or not at all. After the
function that writes a file has returned, the file survives a power cut. The metadata of each column
give its unit and its meaning. The metadata of a file give its name and the identity of its run.
"""

import pyarrow as pa

from harness.tables.columns import column, table_schema
from harness.tables.inference import EVALUATIONS, QUERIES
from harness.tables.reservoirs import RECOVERY, RESERVOIR

TASKS = table_schema(
    "tasks",
    4,
    [
        column(
            "task_id",
            pa.int64(),
            "1",
            "task number, from 0; also the row number in array `masks`; with scenario=nns, the "
            "number of the mask",
        ),
        column("method", pa.string(), "", "mask finder that trained the mask"),
        column(
            "accuracy",
            pa.float64(),
            "fraction",
            "fraction of test images with the right label, if the task is given; with "
            "scenario=nns, on the task on whose batches the mask trained longest",
        ),
        column("loss", pa.float64(), "nats", "mean cross-entropy of the test images"),
        column("steps", pa.int64(), "steps", "training steps of the task"),
        column(
            "train_seconds",
            pa.float64(),
            "seconds",
            "training time of the block divided by its number of tasks",
        ),
        column("density", pa.float64(), "fraction", "fraction of gains that are not zero"),
        column(
            "base_accuracy",
            pa.float64(),
            "fraction",
            "fraction of these test images to which the dense base gives the right label, without "
            "a mask; null if the finder has no base that task 0 trains",
            nullable=True,
        ),
        column(
            "free_share",
            pa.float64(),
            "fraction",
            "fraction of the trained weights that no mask keeps after this task, so that later "
            "tasks may change them; null if the finder protects no weights",
            nullable=True,
        ),
        column("mask_bytes", pa.int64(), "bytes", "size of the packed row"),
        column("row_crc32c", pa.uint32(), "1", "CRC-32C of the packed row"),
        column("worker", pa.string(), "", "actor that trained the mask"),
        column("device", pa.string(), "", "device that trained the mask"),
        column("finished_at", pa.timestamp("us", tz="UTC"), "UTC", "when training ended"),
    ],
)

ALLOCATION = table_schema(
    "allocation",
    1,
    [
        column("batch", pa.int64(), "1", "number of the batch in the stream, from 0"),
        column(
            "task_id",
            pa.int64(),
            "1",
            "task that the batch belongs to; the learner does not know it",
        ),
        column(
            "mask",
            pa.int64(),
            "1",
            "mask that is used from this batch on, which is also its row number in array `masks`; "
            "null if the budget of masks is used up and the batches are skipped",
            nullable=True,
        ),
        column(
            "score",
            pa.float64(),
            "1",
            "score of the rule: a margin, or for the rule of the paper the number of candidates "
            "times the largest probability; null for the first batch, because no mask exists",
            nullable=True,
        ),
        column(
            "threshold",
            pa.float64(),
            "1",
            "the batch belongs to a known mask if the score is at least this number, which for a "
            "margin also depends on the mask; null for the first batch",
            nullable=True,
        ),
        column("allocated", pa.bool_(), "", "whether the mask is new"),
        column("num_masks", pa.int64(), "masks", "number of masks before the decision"),
    ],
)

FAILURES = table_schema(
    "failures",
    2,
    [
        column("task_id", pa.int64(), "1", "task of a work unit that failed too often"),
        column("unit", pa.string(), "", "name of the work unit"),
        column("pool", pa.string(), "", "pool that ran the unit, such as train"),
        column("tries", pa.int64(), "1", "number of failed tries"),
        column("error", pa.string(), "", "error of the last try, in one line"),
        column("failed_at", pa.timestamp("us", tz="UTC"), "UTC", "time of the last failed try"),
    ],
)

SCHEMAS = {
    "tasks": TASKS,
    "evaluations": EVALUATIONS,
    "queries": QUERIES,
    "reservoir": RESERVOIR,
    "recovery": RECOVERY,
    "allocation": ALLOCATION,
    "failures": FAILURES,
}

# Table -> its folder in the run directory.
FOLDERS = {name: "log" if name == "tasks" else name for name in SCHEMAS}
