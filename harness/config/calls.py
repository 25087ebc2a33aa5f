"""Name the commands in texts for the user as the user called them.

Texts name a command by its file, such as `python harness/scale.py`. If the package is installed,
the user may have no such file, and types `supermask scale` instead.
"""

import re
import sys
from pathlib import Path

PROGRAM = "supermask"
_FILE = re.compile(r"(?:python )?harness/(\w+)\.py|python -m analysis\.(report)\b")


def as_called(text: str) -> str:
    """Replace the files of commands in a text by `supermask NAME`, if the user called this program.

    Args:
        text: a text that names commands as `python harness/NAME.py`, `harness/NAME.py` or
            `python -m analysis.report`.
    """
    if Path(sys.argv[0]).stem != PROGRAM:
        return text
    return _FILE.sub(lambda found: f"{PROGRAM} {found[1] or found[2]}", text)
