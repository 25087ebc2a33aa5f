"""The user's own code: names of the form package.module:object, from files outside the project."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from harness import scale
from harness.config.own_code import import_own
from harness.errors import UserError
from harness.run.carried_code import CarriedCode
from harness.run.spec import RunSpec

NETWORK = """
from torch import nn
from widths import WIDTH

def small(input_shape, num_outputs, width: int = WIDTH):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width, bias=False), nn.ReLU(),
                         nn.Linear(width, num_outputs, bias=False))
"""
OWN = ("nets", "widths", "mine")  # the modules of the tests
TINY = [
    "data=digits", "tasks=2", "outputs=20", "train.steps=3", "train.batch_size=16",
    "executor=serial", "quiet=true", "evaluate.checkpoints=[2]", "evaluate.algorithms=[one_shot]",
    "evaluate.objectives=[H]",
]  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder in which commands are typed. The test leaves no imported module behind."""
    monkeypatch.chdir(tmp_path)
    path, finders = sys.path[:], sys.meta_path[:]
    yield tmp_path
    sys.path[:], sys.meta_path[:] = path, finders
    for name in [*sys.modules]:
        if name.partition(".")[0] in OWN:
            del sys.modules[name]


def spec_of(composed, *overrides):
    return RunSpec(composed("data=digits", "outputs=20", *overrides), (1, 8, 8), 10)


def test_a_network_of_the_users_own_is_made_with_its_options(here, composed):
    (here / "nets.py").write_text(NETWORK)
    (here / "widths.py").write_text("WIDTH = 7\n")
    spec = spec_of(composed, "network=nets:small")
    assert spec.network.tensors[0].shape == (7, 64)
    spec = spec_of(composed, "network=nets:small", "network_options.width=5")
    assert spec.network.tensors[0].shape == (5, 64)


def test_another_process_needs_only_the_specification(here, composed, tmp_path_factory):
    (here / "nets.py").write_text(NETWORK)
    (here / "widths.py").write_text("WIDTH = 7\n")
    sent = tmp_path_factory.mktemp("elsewhere") / "spec"
    sent.write_bytes(pickle.dumps(spec_of(composed, "network=nets:small")))
    (sent.parent / "nets.py").write_text("raise RuntimeError('an older copy')")
    source = "import pickle, sys; print(pickle.load(open('spec', 'rb')).network.tensors[0].shape)"
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=sent.parent, capture_output=True, text=True
    )
    assert done.stdout == "(7, 64)\n", done.stderr


def test_a_packages_modules_are_carried_whole(here, composed):
    package = here / "mine"
    (package / "deep").mkdir(parents=True)
    (package / "nets.py").write_text(NETWORK.replace("from widths", "from mine.deep.widths"))
    (package / "deep" / "widths.py").write_text("WIDTH = 3\n")
    (package / "late.py").write_text("")
    for folder in (package / "deep", package):
        with pytest.raises(UserError, match=f"none in {folder}: add an empty file"):
            CarriedCode.of(spec_of(composed, "network=mine.nets:small").config)
        (folder / "__init__.py").write_text("")
    code = spec_of(composed, "network=mine.nets:small").code
    assert set(code.sources) == {"mine", "mine.nets", "mine.deep", "mine.deep.widths", "mine.late"}
    assert code.modules == {"network": tuple(sorted(code.sources))}


def test_the_digest_follows_every_imported_file(here, composed):
    (here / "nets.py").write_text(NETWORK)
    (here / "widths.py").write_text("WIDTH = 7\n")
    (here / "other.py").write_text("")
    config = spec_of(composed, "network=nets:small").config
    first = CarriedCode.of(config).digests
    (here / "other.py").write_text("CHANGED = 1\n")
    assert CarriedCode.of(config).digests == first
    (here / "widths.py").write_text("WIDTH = 8\n")
    assert CarriedCode.of(config).digests != first


def test_code_of_libraries_and_of_the_project_is_not_carried(composed):
    for network in ("supsup_core.networks.mlp:lenet_300_100", "json.decoder:JSONDecoder"):
        assert CarriedCode.of(spec_of(composed, f"network={network}").config).digests == {}


def test_carried_code_replaces_a_loaded_module(here, composed):
    (here / "nets.py").write_text(NETWORK)
    (here / "widths.py").write_text("WIDTH = 7\n")
    sent = pickle.dumps(spec_of(composed, "network=nets:small"))
    (here / "nets.py").write_text("def small(): raise AssertionError\n")
    del sys.modules["nets"]
    import_own("network", "nets:small")
    assert pickle.loads(sent).network.tensors[0].shape == (7, 64)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "network=nets:small must name a module that Python finds, got no module nets: put"),
        (
            "x = 1\n1 / 0\n",
            "ZeroDivisionError: division by zero ({file}, line 2): correct the file",
        ),
        ("def small(:\n", "({file}, line 1): correct the file"),
        ("import numpi\n", "ModuleNotFoundError: No module named 'numpi' ({file}, line 1)"),
        ("import sys\nsys.exit(0)\n", "SystemExit: 0 ({file}, line 2)"),
        ("small = 3\n", "must name a function or a class, got int: correct {file}, or name"),
        ("def smal(): pass\n", "an object of {file}, got no small: try network=nets:smal"),
        ("", "an object of {file}, got no small: add it to the file"),
    ],
)
def test_errors_of_the_file_are_one_line_with_its_place(here, text, expected):
    if text is not None:
        (here / "nets.py").write_text(text)
    with pytest.raises(UserError) as refused:
        import_own("network", "nets:small")
    assert expected.format(file=here / "nets.py") in str(refused.value)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "method=mine:Thing",
            "method=mine:Thing must make a Method of supsup_core.methods.protocol",
        ),
        ("family=mine:Thing", "family=mine:Thing must make a Family of supsup_core.tasks.protocol"),
        ("network=mine:thing", "Module of torch.nn.modules.module, got int: correct the code"),
        ("network=mine:broken", "ZeroDivisionError: division by zero ({file}, line 4)"),
        ("network=mine:thing network_options.x=1", "got x: try network_options.depth=2"),
    ],
)
def test_objects_of_the_wrong_kind_are_refused(here, typed, override, expected):
    (here / "mine.py").write_text(
        "class Thing: pass\n"
        "def thing(input_shape, num_outputs, depth: int = 2): return 3\n"
        "def broken(input_shape, num_outputs):\n"
        "    return 1 / 0\n"
    )
    code, _, said = typed(scale, *TINY, *override.split())
    assert (code, said.count("error:"), said.count("\n")) == (2, 1, 1)
    assert expected.format(file=here / "mine.py") in said


def test_a_run_refuses_changed_code_and_goes_on_with_the_old(here, typed):
    (here / "nets.py").write_text(NETWORK)
    (here / "widths.py").write_text("WIDTH = 7\n")
    command = [*TINY, "network=nets:small"]
    assert typed(scale, *command)[0] == 0
    assert (here / "runs" / "digits-permuted-2-nets.small").is_dir()
    (here / "nets.py").write_text(NETWORK + "# a remark\n")
    code, _, said = typed(scale, *command)
    assert code == 2
    assert "network=nets:small must be the code with which this run began, got changed" in said
    (here / "nets.py").write_text(NETWORK)
    assert typed(scale, *command)[0] == 0


ARRAYS = """
import numpy as np

def stripes(files, classes: int = 4):
    labels = np.arange(400) % classes
    images = np.random.default_rng(0).integers(0, 60, (400, 8, 8, 3))
    images[..., 0] += 40 * labels[:, None, None]
    images = images.astype(np.uint8)
    return {"x_train": images[:320], "y_train": labels[:320],
            "x_test": images[320:], "y_test": labels[320:]}
"""


def test_a_data_set_of_the_users_own_is_trained_and_noticed_when_it_changes(here, typed):
    (here / "mine.py").write_text(ARRAYS)
    command = [*TINY, "data=mine:stripes", "data_options.classes=6"]
    assert typed(scale, *command)[0] == 0
    assert (here / "runs" / "mine.stripes-classes6-permuted-2").is_dir()
    code, _, said = typed(scale, *command, "data_options.clases=6")
    assert code == 2
    assert "data_options must be among classes for data=mine:stripes, got clases" in said
    (here / "mine.py").write_text(ARRAYS.replace("default_rng(0)", "default_rng(1)"))
    del sys.modules["mine"]
    code, _, said = typed(scale, *command)
    assert code == 2
    assert "data=mine:stripes must be the code with which this run began" in said


def test_a_file_of_arrays_is_noticed_when_it_changes(here, typed):
    space = {}
    exec(ARRAYS, space)
    arrays = space["stripes"](None)
    np.savez("stripes.npz", **arrays)
    assert typed(scale, *TINY, "data=stripes.npz")[0] == 0
    arrays["x_test"][0, 0, 0, 0] ^= 1
    np.savez("stripes.npz", **arrays)
    code, _, said = typed(scale, *TINY, "data=stripes.npz")
    assert code == 2
    assert "data=stripes.npz must be the data with which this run began, got changed" in said
