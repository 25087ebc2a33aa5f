"""Arrow schemas of the tables of a run.

A table is a folder of Parquet files with one schema. A file appears whole or not at all. After the
function that writes a file has returned, the file survives a power cut. The metadata of each column
give its unit and its meaning. The metadata of a file give its name and the identity of its run.
"""

from collections.abc import Mapping

import pyarrow as pa


def _column(
    name: str, kind: pa.DataType, unit: str, description: str, *, nullable: bool = False
) -> pa.Field:
    """Make a column. Only a nullable column may have rows without a value."""
    metadata = {"unit": unit, "description": description}
    return pa.field(name, kind, nullable=nullable, metadata=metadata)


def _schema(table: str, version: int, columns: list[pa.Field]) -> pa.Schema:
    return pa.schema(columns, {"schema_version": str(version), "table": table})


TASKS = _schema(
    "tasks",
    4,
    [
        _column(
            "task_id",
            pa.int64(),
            "1",
            "task number, from 0; also the row number in array `masks`; with scenario=nns, the "
            "number of the mask",
        ),
        _column("method", pa.string(), "", "mask finder that trained the mask"),
        _column(
            "accuracy",
            pa.float64(),
            "fraction",
            "fraction of test images with the right label, if the task is given; with "
            "scenario=nns, on the task on whose batches the mask trained longest",
        ),
        _column("loss", pa.float64(), "nats", "mean cross-entropy of the test images"),
        _column("steps", pa.int64(), "steps", "training steps of the task"),
        _column(
            "train_seconds",
            pa.float64(),
            "seconds",
            "training time of the block divided by its number of tasks",
        ),
        _column("density", pa.float64(), "fraction", "fraction of gains that are not zero"),
        _column(
            "base_accuracy",
            pa.float64(),
            "fraction",
            "fraction of these test images to which the dense base gives the right label, without "
            "a mask; null if the finder has no base that task 0 trains",
            nullable=True,
        ),
        _column(
            "free_share",
            pa.float64(),
            "fraction",
            "fraction of the trained weights that no mask keeps after this task, so that later "
            "tasks may change them; null if the finder protects no weights",
            nullable=True,
        ),
        _column("mask_bytes", pa.int64(), "bytes", "size of the packed row"),
        _column("row_crc32c", pa.uint32(), "1", "CRC-32C of the packed row"),
        _column("worker", pa.string(), "", "actor that trained the mask"),
        _column("device", pa.string(), "", "device that trained the mask"),
        _column("finished_at", pa.timestamp("us", tz="UTC"), "UTC", "when training ended"),
    ],
)

_BATCHES = _column(
    "batches",
    pa.int64(),
    "batches",
    "largest number of test batches per task; null means the whole test set",
    nullable=True,
)


def _asked(whole: pa.DataType) -> list[pa.Field]:
    """Make the columns that say which task was inferred, among which masks, and how.

    Args:
        whole: the type of whole numbers.
    """
    return [
        _column(
            "num_tasks",
            whole,
            "tasks",
            "number of masks in the superposition; with scenario=nns, the number of tasks that the "
            "stream has shown, and the number of masks may differ",
        ),
        _column(
            "num_distractors",
            whole,
            "tasks",
            "number of untrained masks in the superposition, which num_tasks counts too; they are "
            "random, with the densities of the trained masks",
        ),
        _column("task_id", whole, "1", "task that the test images belong to"),
        _column("algorithm", pa.string(), "", "algorithm that inferred the task"),
        _column(
            "objective",
            pa.string(),
            "",
            "objective that the algorithm minimised; null if the algorithm needs no objective",
            nullable=True,
        ),
        _column("num_images", whole, "images", "images per inference"),
        _column("batch_size", whole, "images", "largest number of images per test batch"),
        _column(
            "log_base",
            whole,
            "1",
            "the algorithm binary keeps 1 / log_base of the candidates after each gradient; null "
            "for the other algorithms",
            nullable=True,
        ),
        _column(
            "steps",
            whole,
            "gradients",
            "largest number of gradients per inference; null if the algorithm does not have this "
            "setting",
            nullable=True,
        ),
        _column(
            "rate",
            pa.float64(),
            "1",
            "learning rate of gradient_descent; null for the other algorithms",
            nullable=True,
        ),
        _column("tasks_asked", whole, "tasks", "number of tasks that are evaluated"),
        _BATCHES.with_type(whole),
    ]


EVALUATIONS = _schema(
    "evaluations",
    3,
    [
        *_asked(pa.int64()),
        _column("num_batches", pa.int64(), "batches", "inferences that this row summarises"),
        _column(
            "task_accuracy",
            pa.float64(),
            "fraction",
            "fraction of batches whose task was inferred right",
        ),
        _column(
            "accuracy_gg", pa.float64(), "fraction", "fraction of right labels with the given task"
        ),
        _column(
            "accuracy_gns",
            pa.float64(),
            "fraction",
            "fraction of right labels with the inferred task",
        ),
        _column(
            "accuracy_gnu",
            pa.float64(),
            "fraction",
            "like accuracy_gns, but no label of a batch counts as right if its inferred task is "
            "wrong",
        ),
        _column(
            "seconds_per_inference",
            pa.float64(),
            "seconds",
            "mean time of one inference; many queries are inferred together, and training may use "
            "the same CPU",
        ),
        _column("num_gradients", pa.int64(), "gradients", "backward passes per inference"),
        _column(
            "bits_read_fraction",
            pa.float64(),
            "fraction",
            "fraction of the stored mask bits that one gradient reads",
        ),
        _column(
            "agreement",
            pa.float64(),
            "fraction",
            "fraction of inferences with the same result as exact one-shot; null if the results "
            "were not compared",
            nullable=True,
        ),
        _column("device", pa.string(), "", "device that inferred the task"),
    ],
)

QUERIES = _schema(
    "queries",
    1,
    [
        *_asked(pa.int32()),
        _column(
            "batch",
            pa.int32(),
            "1",
            "number of the query's test batch among the batches of its task, from 0",
        ),
        _column("image", pa.int32(), "1", "index of the query's first image in the test set"),
        _column(
            "inferred",
            pa.int32(),
            "1",
            "mask that was inferred; its number is the number of its task, but not with "
            "scenario=nns; untrained masks have the highest numbers",
        ),
        _column(
            "runner_up",
            pa.int32(),
            "1",
            "mask with the second best score; null if the algorithm does not know it",
            nullable=True,
        ),
        _column(
            "margin",
            pa.float32(),
            "1",
            "score of the runner-up minus score of the inferred mask, at least 0: a difference of "
            "slopes for one_shot and binary (in the last round), of coefficients for "
            "gradient_descent and frank_wolfe, of entropies in nats for min_entropy, of logits for "
            "max_logit; null if it is unknown",
            nullable=True,
        ),
        _column("right", pa.bool_(), "", "whether the inferred mask belongs to the task"),
        _column(
            "picture",
            pa.binary(),
            "",
            "PNG file of the query's first image, as the task shows it; only a few queries of each "
            "file have a picture",
            nullable=True,
        ),
    ],
)

RESERVOIR = _schema(
    "reservoir",
    2,
    [
        _column("rule", pa.string(), "", "rule that stored the masks"),
        _column(
            "dim", pa.int64(), "bits", "number of mask bits in the smallest reservoir of a mask"
        ),
        _column("num_blocks", pa.int64(), "1", "number of reservoirs that together store one mask"),
        _column("block", pa.int64(), "bits", "largest number of mask bits in one reservoir"),
        _column("num_tasks", pa.int64(), "tasks", "number of masks in the reservoir"),
        _column(
            "cue",
            pa.string(),
            "",
            "start of a recall: flipped (a mask with inverted bits), erased (a mask with unknown "
            "bits) or data (a batch of images without labels)",
        ),
        _column(
            "share",
            pa.float64(),
            "fraction",
            "fraction of the cue's bits that were inverted or unknown; null for the cue data",
            nullable=True,
        ),
        _column("most_steps", pa.int64(), "sweeps", "largest number of sweeps of one recall"),
        _column("batch_size", pa.int64(), "images", "largest number of images per test batch"),
        _BATCHES,
        _column("num_cues", pa.int64(), "1", "recalls that this row summarises, one per task"),
        _column(
            "bit_accuracy", pa.float64(), "fraction", "fraction of bits that are right after recall"
        ),
        _column(
            "exact_recall", pa.float64(), "fraction", "fraction of masks recalled without an error"
        ),
        _column(
            "other", pa.float64(), "fraction", "fraction of cues that gave another stored mask"
        ),
        _column(
            "spurious",
            pa.float64(),
            "fraction",
            "fraction of cues whose recall ended in a state that was never stored",
        ),
        _column(
            "unsettled",
            pa.float64(),
            "fraction",
            "fraction of cues whose recall had not ended after the last sweep",
        ),
        _column("steps", pa.float64(), "sweeps", "mean number of sweeps that changed a bit"),
        _column(
            "accuracy", pa.float64(), "fraction", "fraction of right labels with the recalled masks"
        ),
        _column(
            "accuracy_gg",
            pa.float64(),
            "fraction",
            "fraction of right labels with the stored masks",
        ),
        _column(
            "capacity",
            pa.float64(),
            "tasks",
            "largest number of random masks that the rule can recall without an error from cues "
            "without an error, by theory; null if no theory exists",
            nullable=True,
        ),
        _column(
            "reservoir_bytes",
            pa.int64(),
            "bytes",
            "size of the reservoir, independent of num_tasks",
        ),
        _column("store_bytes", pa.int64(), "bytes", "size of the same masks as packed rows"),
        _column(
            "seconds",
            pa.float64(),
            "seconds",
            "mean time per recall, with many cues recalled together",
        ),
        _column("store_seconds", pa.float64(), "seconds", "mean time to store one mask"),
        _column("device", pa.string(), "", "device that stored and recalled the masks"),
    ],
)

RECOVERY = _schema(
    "recovery",
    1,
    [
        _column("rule", pa.string(), "", "rule that stored the masks"),
        _column("block", pa.int64(), "bits", "largest number of mask bits in one reservoir"),
        _column("num_tasks", pa.int64(), "tasks", "number of masks in the reservoirs"),
        _column("gradients", pa.int64(), "steps", "number of gradient steps of the whole descent"),
        _column("batch_size", pa.int64(), "images", "largest number of images per test batch"),
        _BATCHES,
        _column("tasks_asked", pa.int64(), "tasks", "tasks whose masks are recovered"),
        _column("task_id", pa.int64(), "1", "task whose mask is recovered"),
        _column("step", pa.int64(), "steps", "gradient steps so far, from 0"),
        _column(
            "wrong_bits",
            # The name of a list's items in a Parquet file, so that the type is read as written.
            pa.list_(pa.field("element", pa.int64(), nullable=False)),
            "bits",
            "for each masked tensor, the number of bits in which the mask differs from the task's "
            "stored mask",
        ),
        _column(
            "entropy",
            pa.float64(),
            "nats",
            "mean entropy of the outputs for the images of the next step; null after the last step",
            nullable=True,
        ),
        _column("energy", pa.float64(), "1", "energy of the mask, as a sum over all reservoirs"),
        _column(
            "accuracy",
            pa.float64(),
            "fraction",
            "fraction of right labels with this mask, on the task's test batches",
        ),
        _column("accuracy_gg", pa.float64(), "fraction", "the same fraction with the stored mask"),
        _column("reservoir_bytes", pa.int64(), "bytes", "size of all reservoirs together"),
        _column(
            "seconds", pa.float64(), "seconds", "time of the task's descent, divided by its steps"
        ),
        _column("device", pa.string(), "", "device that stored and recovered the masks"),
    ],
)

ALLOCATION = _schema(
    "allocation",
    1,
    [
        _column("batch", pa.int64(), "1", "number of the batch in the stream, from 0"),
        _column(
            "task_id",
            pa.int64(),
            "1",
            "task that the batch belongs to; the learner does not know it",
        ),
        _column(
            "mask",
            pa.int64(),
            "1",
            "mask that is used from this batch on, which is also its row number in array `masks`; "
            "null if the budget of masks is used up and the batches are skipped",
            nullable=True,
        ),
        _column(
            "score",
            pa.float64(),
            "1",
            "score of the rule: a margin, or for the rule of the paper the number of candidates "
            "times the largest probability; null for the first batch, because no mask exists",
            nullable=True,
        ),
        _column(
            "threshold",
            pa.float64(),
            "1",
            "the batch belongs to a known mask if the score is at least this number, which for a "
            "margin also depends on the mask; null for the first batch",
            nullable=True,
        ),
        _column("allocated", pa.bool_(), "", "whether the mask is new"),
        _column("num_masks", pa.int64(), "masks", "number of masks before the decision"),
    ],
)

FAILURES = _schema(
    "failures",
    2,
    [
        _column("task_id", pa.int64(), "1", "task of a work unit that failed too often"),
        _column("unit", pa.string(), "", "name of the work unit"),
        _column("pool", pa.string(), "", "pool that ran the unit, such as train"),
        _column("tries", pa.int64(), "1", "number of failed tries"),
        _column("error", pa.string(), "", "error of the last try, in one line"),
        _column("failed_at", pa.timestamp("us", tz="UTC"), "UTC", "time of the last failed try"),
    ],
)


def trials_schema(searched: Mapping[str, pa.DataType]) -> pa.Schema:
    """Make the schema of a search's table `trials`: one row per trial.

    Args:
        searched: a mapping from a configuration key that the search varies, such as
            train.learning_rate, to the type of its values. Every key has a column.
    """
    return _schema(
        "trials",
        2,
        [
            _column("trial", pa.int64(), "1", "trial number, from 0, in the order of the starts"),
            _column(
                "status",
                pa.string(),
                "",
                "finished: all training steps are done; stopped: other trials were better; failed: "
                "the trial failed three times",
            ),
            *(
                _column(key, kind, "", "value of this configuration key in the trial")
                for key, kind in searched.items()
            ),
            *(
                _column(name, pa.float64(), "fraction", description, nullable=True)
                for name, description in {
                    "accuracy": "fraction of test images with the right label, if the task is "
                    "given: mean over tasks",
                    "task_accuracy": "fraction of batches whose task was inferred right among the "
                    "trial's own masks",
                    "expected_task_accuracy": "task accuracy expected for the number of masks in "
                    "the column `among`, computed from the margins among the trial's own masks",
                    "expected_accuracy": "accuracy times expected_task_accuracy",
                }.items()
            ),
            _column("among", pa.int64(), "tasks", "number of masks for expected_task_accuracy"),
            _column("num_tasks", pa.int64(), "tasks", "masks that the trial trained"),
            _column("steps", pa.int64(), "steps", "training steps per task so far"),
            _column("seconds", pa.float64(), "seconds", "time of one actor to train and measure"),
            _column(
                "measured_at",
                pa.timestamp("us", tz="UTC"),
                "UTC",
                "time of the trial's last measurement",
                nullable=True,
            ),
            _column("error", pa.string(), "", "last error of a failed trial", nullable=True),
            _column(
                "config_hash",
                pa.string(),
                "",
                "hash of the configuration values that change results",
            ),
            _column("config", pa.string(), "YAML", "the trial's configuration, with every value"),
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
