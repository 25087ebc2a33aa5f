"""Arrow schemas of the tables about task inference: `evaluations` and `queries`."""

import pyarrow as pa

from harness.tables.columns import BATCH_SIZE, BATCHES, column, table_schema


def _asked(whole: pa.DataType) -> list[pa.Field]:
    """Make the columns that say which task was inferred, among which masks, and how.

    Args:
        whole: the type of whole numbers.
    """
    return [
        column(
            "num_tasks",
            whole,
            "tasks",
            "number of masks in the superposition; with scenario=nns, the number of tasks that the "
            "stream has shown, and the number of masks may differ",
        ),
        column(
            "num_distractors",
            whole,
            "tasks",
            "number of untrained masks in the superposition, which num_tasks counts too; they are "
            "random, with the densities of the trained masks",
        ),
        column("task_id", whole, "1", "task that the test images belong to"),
        column("algorithm", pa.string(), "", "algorithm that inferred the task"),
        column(
            "objective",
            pa.string(),
            "",
            "objective that the algorithm minimised; null if the algorithm needs no objective",
            nullable=True,
        ),
        column("num_images", whole, "images", "images per inference"),
        BATCH_SIZE.with_type(whole),
        column(
            "log_base",
            whole,
            "1",
            "the algorithm binary keeps 1 / log_base of the candidates after each gradient; null "
            "for the other algorithms",
            nullable=True,
        ),
        column(
            "steps",
            whole,
            "gradients",
            "largest number of gradients per inference; null if the algorithm does not have this "
            "setting",
            nullable=True,
        ),
        column(
            "rate",
            pa.float64(),
            "1",
            "learning rate of gradient_descent; null for the other algorithms",
            nullable=True,
        ),
        column("tasks_asked", whole, "tasks", "number of tasks that are evaluated"),
        BATCHES.with_type(whole),
    ]


EVALUATIONS = table_schema(
    "evaluations",
    3,
    [
        *_asked(pa.int64()),
        column("num_batches", pa.int64(), "batches", "inferences that this row summarises"),
        column(
            "task_accuracy",
            pa.float64(),
            "fraction",
            "fraction of batches whose task was inferred right",
        ),
        column(
            "accuracy_gg", pa.float64(), "fraction", "fraction of right labels with the given task"
        ),
        column(
            "accuracy_gns",
            pa.float64(),
            "fraction",
            "fraction of right labels with the inferred task",
        ),
        column(
            "accuracy_gnu",
            pa.float64(),
            "fraction",
            "like accuracy_gns, but no label of a batch counts as right if its inferred task is "
            "wrong",
        ),
        column(
            "seconds_per_inference",
            pa.float64(),
            "seconds",
            "mean time of one inference; many queries are inferred together, and training may use "
            "the same CPU",
        ),
        column("num_gradients", pa.int64(), "gradients", "backward passes per inference"),
        column(
            "bits_read_fraction",
            pa.float64(),
            "fraction",
            "fraction of the stored mask bits that one gradient reads",
        ),
        column(
            "agreement",
            pa.float64(),
            "fraction",
            "fraction of inferences with the same result as exact one-shot; null if the results "
            "were not compared",
            nullable=True,
        ),
        column("device", pa.string(), "", "device that inferred the task"),
    ],
)

QUERIES = table_schema(
    "queries",
    1,
    [
        *_asked(pa.int32()),
        column(
            "batch",
            pa.int32(),
            "1",
            "number of the query's test batch among the batches of its task, from 0",
        ),
        column("image", pa.int32(), "1", "index of the query's first image in the test set"),
        column(
            "inferred",
            pa.int32(),
            "1",
            "mask that was inferred; its number is the number of its task, but not with "
            "scenario=nns; untrained masks have the highest numbers",
        ),
        column(
            "runner_up",
            pa.int32(),
            "1",
            "mask with the second best score; null if the algorithm does not know it",
            nullable=True,
        ),
        column(
            "margin",
            pa.float32(),
            "1",
            "score of the runner-up minus score of the inferred mask, at least 0: a difference of "
            "slopes for one_shot and binary (in the last round), of coefficients for "
            "gradient_descent and frank_wolfe, of entropies in nats for min_entropy, of logits for "
            "max_logit; null if it is unknown",
            nullable=True,
        ),
        column("right", pa.bool_(), "", "whether the inferred mask belongs to the task"),
        column(
            "picture",
            pa.binary(),
            "",
            "PNG file of the query's first image, as the task shows it; only a few queries of each "
            "file have a picture",
            nullable=True,
        ),
    ],
)
