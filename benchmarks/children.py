"""Child processes that end with their parent, even if the parent is killed."""

import os
import threading
from multiprocessing import parent_process


def end_with_parent() -> None:
    """Let this child process end as soon as its parent has ended. Call it first in the child.

    A killed parent cannot stop its children. A child of a ProcessPoolExecutor would wait for work
    for ever.
    """
    threading.Thread(target=_wait_for_parent, name="end with parent", daemon=True).start()


def _wait_for_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
