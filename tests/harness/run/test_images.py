"""A batch may not have more images than the smallest task has."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.data.dataset import grey_dataset
from harness.data.file_images import FileImages
from harness.errors import UserError
from harness.run.images import check_images, fewest_images
from harness.run.spec import RunSpec
from harness.workers.queries import Queries, queries_of_tasks
from supsup_core.data import ImageSet
from supsup_core.tasks.split import Split


def labelled(counts):
    """Make images of 64 pixels: counts[c] images of class c."""
    labels = np.repeat(np.arange(10), counts).astype(np.uint8)
    return np.zeros((len(labels), 64), np.uint8), labels


# The classes 4 and 5 of task 2 have the fewest images.
TRAIN = labelled([50, 50, 40, 40, 9, 11, 60, 60, 60, 60])
TEST = labelled([20, 20, 20, 20, 3, 4, 20, 20, 5, 4])
DATA = grey_dataset("uneven", TRAIN, TEST, (0.5, 0.3))


@pytest.fixture
def check(composed):
    def run(*overrides):
        spec = RunSpec(composed("outputs=20", *overrides), (1, 8, 8), 10)
        check_images(spec, DATA)

    return run


def test_the_smallest_of_uneven_tasks_limits_all(composed):
    spec = RunSpec(composed("family=split", "tasks=5"), (1, 8, 8), 10)
    assert fewest_images(spec, DATA.train) == (20, 2)
    assert fewest_images(spec, DATA.test) == (7, 2)
    two = RunSpec(composed("family=split", "tasks=2"), (1, 8, 8), 10)
    assert fewest_images(two, DATA.train) == (80, 1)


def test_the_queries_of_a_task_are_the_batches_that_are_evaluated(composed):
    for overrides in (
        ("evaluate.batch_size=6", "evaluate.batches=null"),
        ("evaluate.batch_size=2", "evaluate.batches=3"),
        ("evaluate.batch_size=6", "evaluate.batches=null", *UNITS),
    ):
        config = composed("family=split", "tasks=5", "outputs=20", *overrides)
        spec = RunSpec(config, (1, 8, 8), 10)
        num_queries = queries_of_tasks(spec, DATA.test)
        queries = Queries(spec, DATA.test, torch.device("cpu"))
        for task_id in range(5):
            assert num_queries(task_id) == len(queries.of(task_id).batches)


def test_a_task_without_classes_has_all_images(composed):
    spec = RunSpec(composed("family=permuted", "tasks=5"), (1, 8, 8), 10)
    assert fewest_images(spec, DATA.train) == (440, 0)


SPLIT = ["family=split", "tasks=5"]
UNITS = ["network=units", "network_options.hidden=[8]", "train=unit"]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            [*SPLIT, "train.batch_size=21"],
            "train.batch_size must be at most 20, the number of training images of task 2, got 21: "
            "try train.batch_size=20",
        ),
        (
            [*SPLIT, "train.batch_size=20", "evaluate.num_images=8"],
            "evaluate.num_images must be at most 7, the number of test images of task 2, got 8: "
            "try evaluate.num_images=7",
        ),
        (
            [*SPLIT, *UNITS, "train.batch_size=20"],
            "evaluate.batch_size must be at most 7, the number of test images of task 2, got 128: "
            "try evaluate.batch_size=7",
        ),
        (
            ["train.batch_size=441"],
            "train.batch_size must be at most 440, the number of training images of task 0, got "
            "441: try train.batch_size=440",
        ),
    ],
)
def test_more_images_than_a_task_has_are_refused(check, overrides, line):
    with pytest.raises(UserError) as refused:
        check(*overrides)
    assert str(refused.value) == line


def test_as_many_images_as_the_smallest_task_has_pass(check):
    check(*SPLIT, "train.batch_size=20", "evaluate.num_images=7")
    check(*SPLIT, *UNITS, "train.batch_size=20", "evaluate.num_images=7")
    check(*SPLIT, "train.batch_size=20")  # one image per query, and a batch of seven


def test_a_family_that_fails_is_refused_with_its_line(check, monkeypatch):
    def fail(self, task_id, setting):
        raise ValueError("no classes left")

    monkeypatch.setattr(Split, "make", fail)
    where = f"{__file__}, line {fail.__code__.co_firstlineno + 1}"
    with pytest.raises(UserError) as refused:
        check(*SPLIT)
    assert f"got: no classes left ({where}): choose another family" in str(refused.value)


def test_grey_images_that_do_not_fit_into_memory_need_another_network(composed):
    files = FileImages(["a.png"] * 440, 8, 1)
    train = ImageSet(files, DATA.train.labels, (0.5,), (0.3,))
    data = replace(DATA, train=train)
    with pytest.raises(UserError) as refused:
        check_images(RunSpec(composed("outputs=20"), (1, 8, 8), 10), data)
    assert str(refused.value) == (
        "data must be small enough for a quarter of this machine's memory with "
        "network=lenet_300_100, which needs all grey images at once, got 440 training images of "
        "(1, 8, 8): try a smaller data_options.size, or network=small_conv"
    )
    conv = composed("outputs=20", "network=small_conv", "evaluate.num_images=2")
    check_images(RunSpec(conv, (1, 8, 8), 10), data)
