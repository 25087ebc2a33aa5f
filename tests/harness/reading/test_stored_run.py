"""A run that is read from Python has the masks, the accuracies and the answers of its tables."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from safetensors import safe_open

from composing import configured
from harness import open_run
from harness.data.catalogue import load_dataset
from harness.errors import UserError
from harness.run.spec import RunSpec
from harness.scale import run
from harness.workers.queries import Queries

WAYS = {
    "mlp": ("network=mlp", "network_options.hidden=[12]"),
    "edge_popup": ("network=mlp", "network_options.hidden=[12]", "method=edge_popup"),
    "every_algorithm": (
        "network=mlp",
        "network_options.hidden=[12]",
        "method=edge_popup",
        "evaluate.algorithms=[one_shot,binary,max_logit,min_entropy]",
    ),
    "signed": ("network=mlp", "network_options.hidden=[12]", "method=signed"),
    "batche": ("network=mlp", "network_options.hidden=[12]", "method=batche"),
    "lower_bound": ("network=mlp", "network_options.hidden=[12]", "method=lower_bound"),
    "units": ("network=units", "network_options.hidden=[16]", "train=unit", "train.steps=8"),
    "resnet": (
        "network=resnet18_slim",
        "network_options.width=4",
        "method=edge_popup",
        "tasks=2",
        "evaluate.checkpoints=[2]",
    ),
}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """A function from a key of WAYS to the folder of such a run, which is trained once."""

    @cache
    def train(way: str) -> Path:
        run_dir = tmp_path_factory.mktemp(way) / "run"
        given = (
            "data=digits outputs=12 tasks=3 train.steps=8 train.learning_rate=0.01 "
            "evaluate.num_images=2 evaluate.batch_size=64 evaluate.batches=null "
            f"evaluate.checkpoints=[3] executor=serial run_dir={run_dir}"
        )
        config = configured(*given.split(), *WAYS[way])
        assert run(config) == 0
        return run_dir

    return train


@pytest.mark.parametrize("way", WAYS)
def test_a_model_has_the_accuracy_of_the_table_to_the_image(folder_of, way):
    stored, data = open_run(folder_of(way)), load_dataset("digits")
    spec = RunSpec(stored.config, data.input_shape, data.num_classes)
    queries = Queries(spec, data.test, torch.device("cpu"))
    evaluations = stored.table("evaluations").to_pylist()
    assert {row["task_id"] for row in evaluations} == set(stored.task_ids)
    for row in evaluations:
        task, model = stored.task(row["task_id"]), stored.model(row["task_id"])
        right = count = 0
        # A network without stored statistics normalises over a batch, so the batches matter.
        for batch in queries.of(task.task_id).batches:
            with torch.no_grad():
                logits = model(torch.from_numpy(task.images(data.test.images[batch])))
            right += int((logits.argmax(dim=1).numpy() == data.test.labels[batch]).sum())
            count += len(batch)
        assert row["accuracy_gg"] == right / count


@pytest.mark.parametrize("algorithm", ["one_shot", "binary", "max_logit", "min_entropy"])
def test_inference_gives_the_answers_of_the_table(folder_of, algorithm):
    directory = folder_of("every_algorithm")
    stored, data = open_run(directory), load_dataset("digits")
    spec = RunSpec(stored.config, data.input_shape, data.num_classes)
    queries = Queries(spec, data.test, torch.device("cpu"))
    objective = None if algorithm in ("max_logit", "min_entropy") else "H"
    for row in stored.table("evaluations").to_pylist():
        if (row["algorithm"], row["objective"]) != (algorithm, objective):
            continue
        images = queries.images([queries.of(row["task_id"])])
        found = stored.infer(images, algorithm, objective)
        assert float((found.tasks == row["task_id"]).double().mean()) == row["task_accuracy"]
        assert found.scores.shape == (len(images), 3)
        if algorithm != "binary":
            assert torch.equal(found.scores.argmin(dim=1), found.tasks)


def test_pixels_of_one_query_are_normalised(folder_of):
    stored, data = open_run(folder_of("mlp")), load_dataset("digits")
    pixels = stored.task(1).images(data.test.images[:4])
    floats = torch.from_numpy((pixels / 255 - data.test.mean[0]) / data.test.std[0]).float()
    whole, by_hand = stored.infer(pixels), stored.infer(floats[None])
    assert torch.equal(whole.tasks, by_hand.tasks)
    torch.testing.assert_close(whole.scores, by_hand.scores, rtol=1e-3, atol=1e-6)


def test_a_mask_is_the_mask_of_the_store(folder_of):
    directory = folder_of("edge_popup")
    group = zarr.open_group(directory / "masks.zarr", mode="r")
    plane = group.attrs["planes"][0]
    row = np.unpackbits(np.asarray(group["masks"][2]), bitorder="little")
    first = 8 * plane["byte_offset"]
    expected = row[first : first + plane["num_bits"]].astype(bool)
    found = open_run(directory).mask(2)[plane["tensor"]]
    assert found.dtype == torch.bool
    assert np.array_equal(found.numpy().ravel(), expected)


def test_a_model_moves_saves_and_has_two_modes(folder_of):
    stored = open_run(folder_of("resnet"))
    model = stored.model(0)
    inputs = torch.randn((6, *stored.network.input_shape))
    with torch.no_grad():
        own, of_batch = model(inputs), model.train()(inputs)
        assert not torch.equal(own, of_batch)  # the statistics of the task, and of the batch
        assert torch.equal(model.eval()(inputs), own)
        other = stored.model(1)
        assert not torch.equal(other(inputs), own)
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(inputs), own)
        assert model.to(torch.float64)(inputs.double()).dtype == torch.float64
    assert not list(model.parameters())


@pytest.mark.parametrize("way", ["edge_popup", "signed", "resnet"])
def test_an_export_has_the_mask_and_the_floats(tmp_path, folder_of, way):
    stored, path = open_run(folder_of(way)), tmp_path / "mask.safetensors"
    stored.export(1, path)
    with safe_open(path, "pt") as file:
        for name, mask in stored.mask(1).items():
            assert torch.equal(file.get_tensor(f"mask.{name}"), mask)
        for name, gain in stored.gains(1).items():
            if way == "signed":
                assert torch.equal(file.get_tensor(f"gain.{name}"), gain)
            else:
                assert f"gain.{name}" not in file.keys()  # noqa: SIM118  # it is no mapping
        floats = [key for key in file.keys() if key.startswith("float.")]  # noqa: SIM118
        assert bool(floats) == (way == "resnet")
        assert file.metadata()["task"] == "1"


def test_what_is_not_there_is_said_in_one_line(tmp_path, folder_of):
    with pytest.raises(UserError, match=r"run_dir must be the folder of one run, got"):
        open_run(tmp_path)
    stored = open_run(folder_of("mlp"))
    with pytest.raises(ValueError, match=r"task_id must be a committed task, .* got 3"):
        stored.mask(3)
    with pytest.raises(ValueError, match=r"algorithm must be one of .*one_shot.*, got 'two_shot'"):
        stored.infer(np.zeros((1, 64), np.uint8), "two_shot")
    with pytest.raises(ValueError, match="objective must be one of H, G"):
        stored.infer(np.zeros((1, *stored.network.input_shape), np.uint8), "one_shot", None)
    with pytest.raises(ValueError, match="images must have the shape"):
        stored.infer(np.zeros((1, 3), np.uint8))
    with pytest.raises(ValueError, match="num_tasks must lie in"):
        stored.infer(np.zeros((1, *stored.network.input_shape), np.uint8), num_tasks=4)
    with pytest.raises(ValueError, match="table must be one of tasks, evaluations"):
        stored.table("masks")


def test_tables_that_do_not_exist_are_empty(folder_of):
    stored = open_run(folder_of("mlp"))
    assert len(stored.table("tasks")) == 3
    assert len(stored.table("reservoir")) == 0
