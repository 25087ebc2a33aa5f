"""Measure the time and the peak memory of a command with all processes that it starts.

    python benchmarks/peak_memory.py -- .venv/bin/python harness/scale.py experiment=fig4

Memory is the sum of the proportional set sizes (`smaps_rollup`) of all processes at one moment. In
this sum a page that several processes share, such as a page of a library or of Ray's object store,
counts once. The system's file cache is not counted. The program reads the memory every `--every`
seconds, so it may miss a shorter peak. It works on Linux only.
"""

import subprocess
import time
from collections import defaultdict
from pathlib import Path

from commandline import Parser, real, run_program


def family(ancestor: int) -> list[int]:
    """Return the ids of a process and of all its descendants."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The process's name is in parentheses and may contain any character. The state and
            # the parent's id follow the last parenthesis.
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:  # the process has ended
            continue
        children[int(parent)].append(int(folder.name))
    found = [ancestor]
    for process in found:  # the loop also visits the children that it appends
        found += children[process]
    return found


def proportional_bytes(process: int) -> int:
    """Return the proportional set size of a process in bytes, or 0 if the process has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def name(process: int) -> str:
    """Return the first 60 characters of a process's command line."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")[:60].strip()
    except OSError:
        return "ended"


def main() -> int:
    """Run the command, measure and print; return the command's exit code."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--every", type=real(above=0, at_most=3600), default=2.0, help="seconds between readings"
    )
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    began = time.monotonic()
    process = subprocess.Popen(arguments.command)
    peak, at, largest = 0, 0.0, list[tuple[int, str]]()
    while process.poll() is None:
        sizes = {member: proportional_bytes(member) for member in family(process.pid)}
        if (total := sum(sizes.values())) > peak:
            peak, at = total, time.monotonic() - began
            largest = [(size, name(member)) for member, size in sizes.items() if size > 100e6]
        time.sleep(arguments.every)
    print(f"{time.monotonic() - began:.0f} s; peak memory {peak / 1e9:.2f} GB, at {at:.0f} s:")
    for size, title in sorted(largest, reverse=True):
        print(f"  {size / 1e6:6.0f} MB  {title}")
    return process.returncode


if __name__ == "__main__":
    run_program(main)
