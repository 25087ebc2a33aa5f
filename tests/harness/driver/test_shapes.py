"""Whole runs on colour images and on vectors, with every family of tasks that accepts them."""

import numpy as np
import pytest
import zarr
from PIL import Image

from harness import scale
from harness.data import folder
from harness.data.arrays import dataset_from_arrays
from harness.data.catalogue import load_dataset
from harness.driver import start
from harness.errors import UserError
from harness.tables.files import read_tables
from harness.tables.inference import EVALUATIONS
from harness.tables.schemas import TASKS

CHEAP = [
    *("data=digits", "outputs=30", "train.steps=30", "train.batch_size=16", "train.block=2"),
    *("train.learning_rate=0.02", "train.dtype=float32", "executor=serial"),
    *("evaluate.algorithms=[one_shot,binary]", "evaluate.batch_size=8", "evaluate.batches=2"),
    *("evaluate.num_images=8", "evaluate.checkpoints=[3]"),
]
MLP = ["network=mlp", "network_options.hidden=[24]"]


def data_of(shape, num_classes=10):
    """Return 200 training and 60 test images, whose class is visible in their values."""
    rng = np.random.default_rng(0)
    means = rng.integers(0, 180, (num_classes, *shape))
    arrays = {}
    for split, num in (("train", 200), ("test", 60)):
        labels = np.arange(num) % num_classes
        images = (means[labels] + rng.integers(0, 60, (num, *shape))).astype(np.uint8)
        arrays |= {f"x_{split}": images, f"y_{split}": labels}
    return dataset_from_arrays("made", arrays)


@pytest.fixture
def finished(composed, tmp_path, monkeypatch):
    """A function that makes a run, and returns its store and its tables."""

    def make(data, *overrides, tasks=3, run="run"):
        run_dir = tmp_path / run
        monkeypatch.setattr(start, "dataset_of", lambda *args, **options: data)
        config = composed(*CHEAP, f"tasks={tasks}", *overrides, f"run_dir={run_dir}")
        assert scale.run(config) == 0
        tables = (
            read_tables(run_dir / table, schema).to_pandas()
            for table, schema in (("log", TASKS), ("evaluations", EVALUATIONS))
        )
        return zarr.open_group(run_dir / "masks.zarr", mode="r"), *tables

    return make


BILINEAR = "family_options.interpolation=bilinear"


@pytest.mark.parametrize(
    ("network", "family", "inputs"),
    [
        (MLP, ["permuted"], {"permutations": (3, 64)}),
        (MLP, ["permuted", "family_options.over=values"], {"permutations": (3, 192)}),
        (MLP, ["rotated"], {"angles": (3,), "sources": (3, 64)}),
        (MLP, ["permuted_rotated", BILINEAR], {"angles": (3,), "permutations": (3, 64)}),
        (MLP, ["split"], {"classes": (3, 2)}),
        (["network=small_conv"], ["rotated", BILINEAR], {"angles": (3,)}),
    ],
)
def test_colour_images_go_through_every_family(network, family, inputs, finished):
    name, *options = family
    store, trained, evaluated = finished(data_of((8, 8, 3)), *network, f"family={name}", *options)
    assert {key: store[f"inputs/{key}"].shape for key in store.attrs["inputs"]} == inputs
    assert len(store.attrs["normalisation"]["mean"]) == 3
    assert trained["accuracy"].mean() > 0.3  # chance is 0.1, and 0.5 for split
    assert set(evaluated["algorithm"]) == {"one_shot", "binary"}
    assert evaluated["accuracy_gg"].mean() == pytest.approx(trained["accuracy"].mean(), abs=0.3)


def test_vectors_are_permuted(finished):
    store, trained, _ = finished(data_of((20,)), *MLP, "family=permuted")
    assert store["inputs/permutations"].shape == (3, 20)
    assert trained["accuracy"].mean() > 0.3


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["family=rotated", *MLP], "images must be square, got 1 by 20 pixels"),
        (["network=small_conv"], "inputs must have shape (C, H, W)"),
    ],
)
def test_vectors_are_no_images(overrides, line, finished):
    with pytest.raises(UserError) as info:
        finished(data_of((20,)), *overrides)
    assert line in str(info.value)
    assert "\n" not in str(info.value)


def test_a_split_may_be_uneven_shuffled_and_renumbered(finished):
    split = [f"family_options.{one}" for one in ("classes=4", "order=seed", "renumber=true")]
    data = data_of((8, 8))
    # Real neurons are the labels of a task, so outputs may be fewer than the classes of the data.
    store, trained, evaluated = finished(data, *MLP, "family=split", *split, "outputs=6")
    classes = store["inputs/classes"][...]
    assert sorted(classes.ravel()) == [*range(10), 65535, 65535]
    assert (classes[2, 2:] == 65535).all()
    assert "position in the task's row of inputs/classes" in store.attrs["labels"]
    assert trained["accuracy"].min() > 0.5
    assert evaluated["accuracy_gg"].min() > 0.5


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["outputs=9"], "outputs must be at least 10, the number of classes of digits, got 9"),
        (
            ["outputs=2", "family_options.renumber=true", "family_options.classes=3"],
            "outputs must be at least 3, the number of classes of a task of digits, got 2",
        ),
        (
            ["outputs=3", "family_options.renumber=true", "family_options.classes=3"],
            "because outputs=3 for 3 classes leaves no superfluous neurons",
        ),
        (
            ["family_options.classes=11", "tasks=1", "evaluate.checkpoints=[1]"],
            "got: classes must be at most 10",
        ),
        (["family_options.classes=3", "tasks=4"], "tasks must be at most 3 for family=split"),
    ],
)
def test_outputs_and_tasks_of_a_split_are_checked(overrides, line, finished):
    with pytest.raises(UserError) as info:
        finished(data_of((8, 8)), *MLP, "family=split", *overrides)
    assert line in str(info.value)
    assert "\n" not in str(info.value)


def test_images_that_stay_in_their_files_give_the_same_run(finished, tmp_path, monkeypatch):
    data = data_of((8, 8, 3), num_classes=4)
    for i, pixels in enumerate(np.moveaxis(data.train.images, 1, -1)):
        path = tmp_path / "images" / str(i % 4) / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    images = f"{tmp_path}/images/"
    whole = load_dataset(images, {"size": 8})
    monkeypatch.setattr(folder, "memory_bytes", lambda: 1000)
    streamed = load_dataset(images, {"size": 8})
    assert not streamed.test.in_memory
    network = ["network=small_conv", "network_options.channels=[6]"]
    runs = [finished(d, *network, run=str(n)) for n, d in enumerate((whole, streamed))]
    assert np.array_equal(runs[0][0]["masks"][:3], runs[1][0]["masks"][:3])
    assert runs[0][1]["accuracy"].tolist() == runs[1][1]["accuracy"].tolist()
    assert runs[0][1]["accuracy"].mean() > 0.5
