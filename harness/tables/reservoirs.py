"""Arrow schemas of the tables about masks in reservoirs: `reservoir` and `recovery`."""

import pyarrow as pa

from harness.tables.columns import BATCH_SIZE, BATCHES, column, table_schema

_RULE = column("rule", pa.string(), "", "rule that stored the masks")
_BLOCK = column("block", pa.int64(), "bits", "largest number of mask bits in one reservoir")

RESERVOIR = table_schema(
    "reservoir",
    2,
    [
        _RULE,
        column(
            "dim", pa.int64(), "bits", "number of mask bits in the smallest reservoir of a mask"
        ),
        column("num_blocks", pa.int64(), "1", "number of reservoirs that together store one mask"),
        _BLOCK,
        column("num_tasks", pa.int64(), "tasks", "number of masks in the reservoir"),
        column(
            "cue",
            pa.string(),
            "",
            "start of a recall: flipped (a mask with inverted bits), erased (a mask with unknown "
            "bits) or data (a batch of images without labels)",
        ),
        column(
            "share",
            pa.float64(),
            "fraction",
            "fraction of the cue's bits that were inverted or unknown; null for the cue data",
            nullable=True,
        ),
        column("most_steps", pa.int64(), "sweeps", "largest number of sweeps of one recall"),
        BATCH_SIZE,
        BATCHES,
        column("num_cues", pa.int64(), "1", "recalls that this row summarises, one per task"),
        column(
            "bit_accuracy", pa.float64(), "fraction", "fraction of bits that are right after recall"
        ),
        column(
            "exact_recall", pa.float64(), "fraction", "fraction of masks recalled without an error"
        ),
        column("other", pa.float64(), "fraction", "fraction of cues that gave another stored mask"),
        column(
            "spurious",
            pa.float64(),
            "fraction",
            "fraction of cues whose recall ended in a state that was never stored",
        ),
        column(
            "unsettled",
            pa.float64(),
            "fraction",
            "fraction of cues whose recall had not ended after the last sweep",
        ),
        column("steps", pa.float64(), "sweeps", "mean number of sweeps that changed a bit"),
        column(
            "accuracy", pa.float64(), "fraction", "fraction of right labels with the recalled masks"
        ),
        column(
            "accuracy_gg",
            pa.float64(),
            "fraction",
            "fraction of right labels with the stored masks",
        ),
        column(
            "capacity",
            pa.float64(),
            "tasks",
            "largest number of random masks that the rule can recall without an error from cues "
            "without an error, by theory; null if no theory exists",
            nullable=True,
        ),
        column(
            "reservoir_bytes",
            pa.int64(),
            "bytes",
            "size of the reservoir, independent of num_tasks",
        ),
        column("store_bytes", pa.int64(), "bytes", "size of the same masks as packed rows"),
        column(
            "seconds",
            pa.float64(),
            "seconds",
            "mean time per recall, with many cues recalled together",
        ),
        column("store_seconds", pa.float64(), "seconds", "mean time to store one mask"),
        column("device", pa.string(), "", "device that stored and recalled the masks"),
    ],
)

RECOVERY = table_schema(
    "recovery",
    1,
    [
        _RULE,
        _BLOCK,
        column("num_tasks", pa.int64(), "tasks", "number of masks in the reservoirs"),
        column("gradients", pa.int64(), "steps", "number of gradient steps of the whole descent"),
        BATCH_SIZE,
        BATCHES,
        column("tasks_asked", pa.int64(), "tasks", "tasks whose masks are recovered"),
        column("task_id", pa.int64(), "1", "task whose mask is recovered"),
        column("step", pa.int64(), "steps", "gradient steps so far, from 0"),
        column(
            "wrong_bits",
            # The name of a list's items in a Parquet file, so that the type is read as written.
            pa.list_(pa.field("element", pa.int64(), nullable=False)),
            "bits",
            "for each masked tensor, the number of bits in which the mask differs from the task's "
            "stored mask",
        ),
        column(
            "entropy",
            pa.float64(),
            "nats",
            "mean entropy of the outputs for the images of the next step; null after the last step",
            nullable=True,
        ),
        column("energy", pa.float64(), "1", "energy of the mask, as a sum over all reservoirs"),
        column(
            "accuracy",
            pa.float64(),
            "fraction",
            "fraction of right labels with this mask, on the task's test batches",
        ),
        column("accuracy_gg", pa.float64(), "fraction", "the same fraction with the stored mask"),
        column("reservoir_bytes", pa.int64(), "bytes", "size of all reservoirs together"),
        column(
            "seconds", pa.float64(), "seconds", "time of the task's descent, divided by its steps"
        ),
        column("device", pa.string(), "", "device that stored and recovered the masks"),
    ],
)
