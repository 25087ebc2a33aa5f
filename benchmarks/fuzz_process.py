"""Run commands in forked processes with limits on time and memory, for benchmarks/fuzz.py.

A forked process has the modules of its parent, so a command need not import torch. The code of
another checkout needs a parent of its own, WarmProcess, which has imported the modules of that
checkout. So this file imports nothing of the project.
"""

import json
import os
import pkgutil
import resource
import runpy
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

BYTES = 6 * 2**30  # memory that a case may map in addition to the memory of the forking process


@dataclass(frozen=True)
class Ended:
    """The end of a command: exit code (None: it was killed), stdout, stderr, time in seconds."""

    code: int | None
    out: str
    err: str
    seconds: float


def run_bounded(script: str, arguments: list[str], folder: Path, seconds: float) -> Ended:
    """Run a command in a forked process, with limits on its time and memory.

    Args:
        script: path of a Python file, or a module.
        arguments: the arguments of the command.
        folder: the working directory, which gets the files stdout and stderr.
        seconds: the time after which the command is killed.
    """
    began = time.monotonic()
    outputs = [folder / "stdout", folder / "stderr"]
    child = os.fork()
    if not child:
        _become(script, arguments, folder, outputs)
    code: int | None = None
    while time.monotonic() - began < seconds:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            break
        time.sleep(0.01)
    else:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    said = [path.read_text(errors="replace") if path.is_file() else "" for path in outputs]
    return Ended(code, said[0], said[1], time.monotonic() - began)


def _become(script: str, arguments: list[str], folder: Path, outputs: list[Path]) -> None:
    """Run the command in this process, which was forked for it, and then end the process."""
    code = 70
    try:
        os.setsid()
        for number, path in zip((1, 2), outputs, strict=True):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.chdir(folder)
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + BYTES, mapped + BYTES))
        # If a command replaces sys.stdout or sys.stderr, the file descriptors must stay open.
        sys.stdout, sys.stderr = (os.fdopen(one, "w", closefd=False) for one in (1, 2))
        sys.argv = [script, *arguments]
        try:
            if script.endswith(".py"):
                runpy.run_path(script, run_name="__main__")
            else:
                runpy.run_module(script, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        except BaseException:
            traceback.print_exc()
            code = 71
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


class WarmProcess:
    """A process that has imported the modules of a checkout, and forks for each command.

    Args:
        root: the checkout.
    """

    def __init__(self, root: Path) -> None:
        path = os.pathsep.join([str(root), str(Path(__file__).parent)])
        self._process = subprocess.Popen(
            [sys.executable, "-c", "import fuzz_process; fuzz_process.serve()"],
            env=os.environ | {"PYTHONPATH": path},
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, arguments: list[str], folder: Path, seconds: float) -> Ended:
        """Run a command; see run_bounded."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = [script, arguments, str(folder), seconds]
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return Ended(**json.loads(self._process.stdout.readline()))


def serve() -> None:
    """Import the modules of harness and analysis, and then run each command that stdin names."""
    for package in ("harness", "analysis"):
        found = pkgutil.walk_packages(import_module(package).__path__, f"{package}.")
        for module in found:
            with suppress(Exception):  # a module may need an optional package
                import_module(module.name)
    for line in sys.stdin:
        script, arguments, folder, seconds = json.loads(line)
        ended = run_bounded(script, arguments, Path(folder), seconds)
        print(json.dumps(asdict(ended)), flush=True)
