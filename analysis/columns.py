"""The columns of a run's tables, as the present version of this program writes them.

The harness declares the same columns with their units and meanings. `analysis` does not import the
harness, so a test compares the two declarations.
"""

from itertools import zip_longest

import pyarrow as pa

SCHEMA_VERSIONS = {
    "tasks": "4",
    "evaluations": "3",
    "queries": "1",
    "reservoir": "2",
    "recovery": "1",
    "allocation": "1",
    "failures": "2",
    "trials": "2",
}

_REST = "..."  # stands for any number of columns
_COLUMNS = {
    "tasks": """
        task_id:int64 method:string accuracy:double loss:double steps:int64 train_seconds:double
        density:double base_accuracy:double free_share:double mask_bytes:int64 row_crc32c:uint32
        worker:string device:string finished_at:timestamp[us,tz=UTC]
    """,
    "evaluations": """
        num_tasks:int64 num_distractors:int64 task_id:int64 algorithm:string objective:string
        num_images:int64 batch_size:int64 log_base:int64 steps:int64 rate:double tasks_asked:int64
        batches:int64 num_batches:int64 task_accuracy:double accuracy_gg:double accuracy_gns:double
        accuracy_gnu:double seconds_per_inference:double num_gradients:int64
        bits_read_fraction:double agreement:double device:string
    """,
    "queries": """
        num_tasks:int32 num_distractors:int32 task_id:int32 algorithm:string objective:string
        num_images:int32 batch_size:int32 log_base:int32 steps:int32 rate:double tasks_asked:int32
        batches:int32 batch:int32 image:int32 inferred:int32 runner_up:int32 margin:float right:bool
        picture:binary
    """,
    "reservoir": """
        rule:string dim:int64 num_blocks:int64 block:int64 num_tasks:int64 cue:string share:double
        most_steps:int64 batch_size:int64 batches:int64 num_cues:int64 bit_accuracy:double
        exact_recall:double other:double spurious:double unsettled:double steps:double
        accuracy:double accuracy_gg:double capacity:double reservoir_bytes:int64 store_bytes:int64
        seconds:double store_seconds:double device:string
    """,
    "recovery": """
        rule:string block:int64 num_tasks:int64 gradients:int64 batch_size:int64 batches:int64
        tasks_asked:int64 task_id:int64 step:int64 wrong_bits:list<element:int64notnull>
        entropy:double energy:double accuracy:double accuracy_gg:double reservoir_bytes:int64
        seconds:double device:string
    """,
    "allocation": """
        batch:int64 task_id:int64 mask:int64 score:double threshold:double allocated:bool
        num_masks:int64
    """,
    "failures": """
        task_id:int64 unit:string pool:string tries:int64 error:string
        failed_at:timestamp[us,tz=UTC]
    """,
    # The table of a search has a column for each searched key.
    "trials": f"""
        trial:int64 status:string {_REST} accuracy:double task_accuracy:double
        expected_task_accuracy:double expected_accuracy:double among:int64 num_tasks:int64
        steps:int64 seconds:double measured_at:timestamp[us,tz=UTC] error:string config_hash:string
        config:string
    """,
}


def wrong_column(table: str, found: pa.Schema) -> str | None:
    """Find the first difference between the columns of a file and the columns of a table.

    Args:
        table: name of the table.
        found: the schema of the file.

    Returns:
        A text with the expected column and the column of the file, such as
        "steps:int64, got steps:double". None if there is no difference.
    """
    expected = _COLUMNS[table].split()
    got = [f"{column.name}:{column.type}".replace(" ", "") for column in found]
    if _REST in expected:
        first = expected.index(_REST)
        expected[first : first + 1] = got[first : first + 1 + len(got) - len(expected)]
    pairs = zip_longest(expected, got, fillvalue="none")
    return next((f"{one}, got {other}" for one, other in pairs if one != other), None)
