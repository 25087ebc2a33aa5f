"""The memory of this machine."""

import os
from pathlib import Path

# Files with the memory limit of a container, for both versions of cgroups.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_bytes() -> int:
    """Return the size of this machine's memory in bytes.

    If a container has a smaller limit, return this limit.
    """
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in map(Path, _LIMITS):
        try:
            found.append(int(path.read_text(encoding="ascii")))
        except (OSError, ValueError):  # no file of this version, or "max" (no limit)
            continue
    return min(found)
