"""Run the commands on absurd configurations, damaged runs and damaged data, and check how they end.

    python benchmarks/fuzz.py --cases 300 --seed 0

A case is one command with an absurd configuration, on a damaged run or on damaged data. The data is
a small data set that takes the place of MNIST. Each command runs in its own process, which is
forked from a process that has loaded torch already. The program checks for each case:

- The exit code is 0, 1, 2 or 130.
- If the exit code is 2, there is exactly one error line. The line says what to do, and reports a
  mistake of the user, not a fault of the program.
- No traceback is printed.
- The command ends within its limits of time and memory.
- Nothing outside the run directory changes.
- If a command trains on damaged data, or continues a damaged run, and ends with 0, the run has the
  masks and the evaluations of the undamaged run.

The program prints each failed check, and how often each kind of check failed. The exit code is 1 if
any check failed.

With --root DIR, the program runs the commands of another checkout. The cases are the same, but
evaluations are not compared, because another version may store them in another form. If a key has
another name in the other checkout, --rename gives the name: --rename network_options.hidden=hidden.
"""

import hashlib
import os
import random
import re
import shutil
import tempfile
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path

import fuzz_damage
from chaos import masks, rows_of
from commandline import Parser, folder, run_program, whole
from fuzz_process import Ended, WarmProcess, run_bounded

from harness.config.kinds import members
from harness.config.option import options_of
from harness.config.schema import Config

ROOT = Path(__file__).resolve().parent.parent
BASE = [
    *("data=digits", "network=mlp", "network_options.hidden=[16]", "outputs=12", "tasks=4"),
    *("train.steps=20", "train.block=2", "executor=serial", "quiet=true", "evaluate.tasks=4"),
    *("evaluate.batches=2", "evaluate.checkpoints=[2,4]"),
    "evaluate.algorithms=[one_shot,binary]",
]
SMALL = [
    *("data=digits", "network=mlp", "network_options.hidden=[16]", "outputs=12", "tasks=2"),
    *("train.steps=3", "train.batch_size=16", "executor=serial", "quiet=true"),
    *("evaluate.tasks=2", "evaluate.batches=1", "evaluate.algorithms=[one_shot]"),
]
# A small data set takes the place of MNIST.
WITH_DATA = [one for one in SMALL if one != "data=digits"] + ["data=mnist", "data_dir=outside/data"]
EVALUATIONS = ("evaluations", "seconds_per_inference")  # the table, and its column with durations
SECONDS = 60.0  # time limit of a case; a case usually takes 1 to 3 s
_HASHED = 10**6  # bytes at the start of a file
VALUES: dict[type, list[str]] = {
    int: ["0", "1", "2", "-1", "7", str(10**9), str(10**22), "1.5", "1e3", "nan", "", "null", "x"],
    float: ["0", "1e-4", "0.5", "1", "-1", "inf", "nan", "1e300", "1e-320", "", "null", "x", "[]"],
    bool: ["true", "false", "1", "yes", "null", "x"],
    str: ["auto", "null", "''", "x", "2026_11_26", "1.10", "~", "../x", "a b", "'[1'", "é", "{}"],
}


@dataclass
class Checkout:
    """The code of the commands.

    Attributes:
        root: folder of the code.
        names: for each key that has another name in this code, a mapping from the usual name to
            this other name.
    """

    root: Path = ROOT
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_own(self) -> bool:
        """Whether the commands have the code of this program."""
        return self.root == ROOT

    @cached_property
    def _process(self) -> WarmProcess:
        return WarmProcess(self.root)

    def run(self, case: "Case", seconds: float = SECONDS) -> Ended:
        """Run a case with limits on its time and memory."""
        script, arguments = self.typed(case)
        run = run_bounded if self.is_own else self._process.run
        return run(script, arguments, case.folder, seconds)

    def typed(self, case: "Case") -> tuple[str, list[str]]:
        """Return the script of a case (path or module), and its arguments with renamed keys."""
        script = str(self.root / case.script) if case.script.endswith(".py") else case.script
        pairs = (one.partition("=") for one in case.arguments)
        return script, [self.names.get(key, key) + is_ + value for key, is_, value in pairs]


@dataclass(frozen=True)
class Case:
    """A command and the folder on which it works.

    Attributes:
        what: a line that describes the configuration or the damage.
        script: the command's file, or a module for `python -m`.
        arguments: the command's arguments.
        folder: the working directory. It contains the run directory `run`.
        checkout: the code of the command.
        same_as: an undamaged run. If the exit code is 0, the run in `folder` must have the same
            masks and evaluations. None: the results are not compared.
    """

    what: str
    script: str
    arguments: list[str]
    folder: Path
    checkout: Checkout
    same_as: Path | None = None


def digest(folder: Path) -> str:
    """Hash the names, kinds, sizes and first bytes of all files below a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(f"{path.relative_to(folder)} {path.is_symlink()} {path.is_dir()}".encode())
        if path.is_file() and not path.is_symlink():
            found.update(str(path.stat().st_size).encode())
            with path.open("rb") as file:  # a damaged data file may have 1 TB
                found.update(file.read(_HASHED))
    return found.hexdigest()


def faults(case: Case, ended: Ended, outside: str) -> list[str]:
    """Describe each check that a case fails. The list is empty if the case passes all checks.

    Args:
        case: the case.
        ended: how the command ended.
        outside: digest of the folder `outside`, computed before the command ran.
    """
    found = []
    if ended.code is None:
        return ["does not end within its time"]
    if "Traceback (most recent call last)" in ended.out + ended.err:
        found.append(f"traceback: {_raised(ended.out + ended.err)}")
    elif ended.code not in (0, 1, 2, 130):
        found.append(f"exit code {ended.code}")
    elif ended.code == 2:
        lines = ended.err.strip().splitlines()
        errors = [line for line in lines if line.startswith("error:")]
        if len(errors) != 1 or len(lines[lines.index(errors[0]) :]) != 1:
            found.append("exit code 2 without exactly one line of error at the end")
        elif fault := re.match(r"error: (\w+): .*\((.*), line \d+\): the traceback", errors[0]):
            found.append(f"a fault that is not the user's: {fault[1]} in {Path(fault[2]).name}")
        elif not re.search(r"[:;,] ", errors[0].partition("error: ")[2]):
            found.append("an error without advice")
    if digest(case.folder / "outside") != outside:
        found.append("changes a file outside the run directory")
    if case.same_as is not None and ended.code == 0:
        found += _differences(case.folder / "run", case.same_as, case.checkout.is_own)
    return found


def _raised(text: str) -> str:
    """Describe the last traceback in a text: its error, and the innermost file of a package."""
    errors = re.findall(r"^([\w.]+(?:Error|Exception|Interrupt|Exit)\w*)", text, re.MULTILINE)
    files = re.findall(r'File ".*/((?:harness|supsup_core|analysis)/[\w/]+\.py)"', text)
    return f"{(errors or ['?'])[-1]} in {(files or ['?'])[-1]}"


def _differences(run: Path, undamaged: Path, with_evaluations: bool) -> list[str]:
    """Describe each difference between the results of two runs."""
    found = []
    try:
        if masks(run) != masks(undamaged):
            found.append("ends with 0, but has other masks")
        if with_evaluations and rows_of(run, *EVALUATIONS) != rows_of(undamaged, *EVALUATIONS):
            found.append("ends with 0, but has other evaluations")
    except Exception as error:
        found.append(f"ends with 0, but the results cannot be read: {type(error).__name__}")
    return found


def drawn_configuration(draw: random.Random) -> list[str]:
    """Draw one to three keys of the schema, each with a valid, extreme or absurd value."""
    found = []
    options = list(options_of(Config).values())
    for option in draw.sample(options, draw.choice([1, 1, 2, 3])):
        if option.key in ("run_dir", "executor", "download", "quiet"):
            continue
        values = next((v for kind, v in VALUES.items() if kind in members(option.kind)), None)
        values = values or ["[]", "[1,2]", "[x]", "{a: 1}", "null", "auto", "[H]", "[1,1]", "x"]
        found.append(f"{option.key}={draw.choice(values)}")
    return found


class Runs:
    """The undamaged runs and data, each made when it is first needed.

    Args:
        folder: a folder for them.
        checkout: the code of the commands.
    """

    def __init__(self, folder: Path, checkout: Checkout) -> None:
        self._folder, self.checkout = folder, checkout

    @cached_property
    def base(self) -> Path:
        """A complete run."""
        return self._made("base", BASE)

    @cached_property
    def other(self) -> Path:
        """A complete run with another seed."""
        return self._made("other", [*BASE, "seed=1"])

    @cached_property
    def half(self) -> Path:
        """A run that was stopped before its end."""
        half = self._folder / "half"
        shutil.copytree(self.base, half)
        logs = sorted((half / "log").glob("*.parquet"))
        for path in [*logs[1:], *(half / "evaluations").glob("k000004-*")]:
            path.unlink()
        return half

    @cached_property
    def data(self) -> Path:
        """The files of a data set."""
        data = self._folder / "data"
        data.mkdir()
        fuzz_damage.write_data(data)
        if self.checkout.is_own:
            fuzz_damage.publish(data)
        return data

    @cached_property
    def with_data(self) -> Path | None:
        """A complete run on the data; None if the commands accept only the published MNIST."""
        if not self.checkout.is_own:
            return None
        (self._folder / "outside").mkdir()
        (self._folder / "outside" / "data").symlink_to(self.data)
        return self._made("with_data", WITH_DATA)

    def _made(self, name: str, options: list[str]) -> Path:
        run = self._folder / name
        arguments = [*options, f"run_dir={run}"]
        case = Case("", "harness/scale.py", arguments, self._folder, self.checkout)
        ended = self.checkout.run(case, 10 * SECONDS)  # the first run also compiles kernels
        if ended.code != 0:
            raise SystemExit(f"error: a run without damage must end with 0, got:\n{ended.err}")
        return run


def make_case(folder: Path, runs: Runs, draw: random.Random) -> Case:
    """Draw a case, and make its folder.

    Args:
        folder: a new folder for the case.
        runs: the undamaged runs and data.
        draw: generator of random numbers.
    """
    folder.mkdir()
    (folder / "outside").mkdir()
    (folder / "outside" / "file").write_text("precious")
    (folder / "outside" / "x.parquet.partial").write_text("precious")
    kind, checkout = draw.random(), runs.checkout
    if kind < 0.35:
        given = drawn_configuration(draw)
        arguments = [*SMALL, *given, "run_dir=run"]
        return Case(" ".join(given), "harness/scale.py", arguments, folder, checkout)
    if kind < 0.5:
        shutil.copytree(runs.data, folder / "outside" / "data")
        what = fuzz_damage.damage_data(folder / "outside" / "data", draw)
        arguments = [*WITH_DATA, "run_dir=run"]
        return Case(what, "harness/scale.py", arguments, folder, checkout, runs.with_data)
    shutil.copytree(runs.half if draw.random() < 1 / 3 else runs.base, folder / "run")
    what = draw.choice(fuzz_damage.DAMAGES)(folder / "run", runs.other, draw)
    here, few = "run_dir=run", ["evaluate.tasks=2", "executor=serial"]
    script, arguments = draw.choice(
        [
            ("harness/scale.py", [*BASE, here]),
            ("harness/scale.py", [*BASE, here]),
            ("harness/status.py", [here, "verify=true"]),
            ("harness/status.py", [here, "json=true"]),
            ("harness/evaluate.py", [here, "evaluate.log_base=3", *few]),
            ("harness/recall.py", [here, "reservoir.rules=[hebb]", *few]),
            ("analysis.report", [here]),
        ]
    )
    same_as = runs.base if script == "harness/scale.py" else None
    return Case(f"{what}; {Path(script).name}", script, arguments, folder, checkout, same_as)


def warm_up() -> None:
    """Import the modules of all commands, so that forked processes do not import them again."""
    for name in ("start", "train", "evaluate", "recall"):
        import_module(f"harness.driver.{name}")
    for name in ("scale", "evaluate", "recall", "status", "run.directory", "workers.training"):
        import_module(f"harness.{name}")
    import_module("analysis.report")
    # The process that writes a report takes longer than the run itself, so runs write no report.
    # The cases of `analysis.report` check the report.
    import_module("harness.scale").write_reports = lambda run_dirs: None


def pair(text: str) -> tuple[str, str]:
    """Parse an option that names a key and its other name."""
    key, _, name = text.partition("=")
    if not (key and name):
        raise ArgumentTypeError(f"must be KEY=NAME, got {text!r}: try outputs=units")
    return key, name


def main() -> int:
    """Read the options, run the cases and print the failed checks. Return 1 if any check failed."""
    parser = Parser(__doc__)
    parser.add_argument("--cases", type=whole(), default=300)
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--only", type=whole(0), help="run only the case with this number")
    parser.add_argument("--keep", action="store_true", help="keep the folders of failing cases")
    parser.add_argument("--root", type=folder, default=ROOT, help="the checkout of the commands")
    parser.add_argument("--rename", type=pair, action="append", default=[], help="KEY=NAME")
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.cases} cases")
    made = Path(tempfile.mkdtemp(prefix="fuzz"))
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        os.environ[name] = str(made)
    warm_up()
    checkout = Checkout(options.root.resolve(), dict(options.rename))
    runs = Runs(made, checkout)
    count: Counter[str] = Counter()
    codes: Counter[int | None] = Counter()
    for number in range(options.cases):
        if options.only is not None and number != options.only:
            continue
        draw = random.Random(options.seed * 1_000_003 + number)
        case = make_case(made / str(number), runs, draw)
        outside = digest(case.folder / "outside")
        ended = checkout.run(case)
        codes[ended.code] += 1
        found = faults(case, ended, outside)
        count.update(found)
        for kind in found:
            print(
                f"case {number} ({ended.seconds:.1f} s): {kind}\n  {case.what}\n  {_last(ended)}",
                flush=True,
            )
        if not (found and options.keep):
            shutil.rmtree(case.folder, ignore_errors=True)
    print(f"exit codes: {dict(codes)}")
    for kind, number in count.most_common():
        print(f"{number:5} {kind}")
    print(f"{sum(count.values())} failed checks of {len(count)} kinds")
    if not options.keep:
        shutil.rmtree(made, ignore_errors=True)
    return 1 if count else 0


def _last(ended: Ended) -> str:
    lines = ended.err.strip().splitlines() or ended.out.strip().splitlines() or ["no output"]
    return lines[-1][:300]


if __name__ == "__main__":
    run_program(main)
