"""Check that every task has as many images as the configuration uses at once.

Tasks may have different numbers of images, because a family may give each task its own classes. But
all tasks of a run train with the same batch size, and all queries have the same number of images.
So both numbers must not exceed the number of images of the smallest task.

If a number is too large, the configuration is refused. The number is not lowered, for two reasons.
The run would store another number than the user typed. And a comparison of two recipes would use
other batch sizes than the recipes give.
"""

from collections.abc import Callable

import numpy as np

from harness.config.checks import must_be
from harness.config.names import AUTO
from harness.data.dataset import Dataset
from harness.run.same_tasks import family_errors
from harness.run.spec import RunSpec
from supsup_core.data import ImageSet
from supsup_core.training.choose import reads_whole_arrays


def check_images(spec: RunSpec, data: Dataset) -> None:
    """Check the keys that must not exceed the number of images of the smallest task.

    Args:
        spec: the run's specification. Its configuration may still contain `auto`.
        data: the run's data set.

    Raises:
        UserError: train.batch_size is above the number of training images of a task, or a query
            needs more test images than a task has. Or the images are not in memory, and the network
            needs them there.
    """
    config = spec.config
    evaluate = config.evaluate
    in_memory = data.train.in_memory and data.test.in_memory
    if not in_memory and reads_whole_arrays(spec.network, data.train.channels):
        raise must_be(
            "data",
            f"small enough for a quarter of this machine's memory with network={config.network}, "
            "which needs all grey images at once",
            f"{len(data.train.images)} training images of {data.input_shape}",
            "a smaller data_options.size, or network=small_conv",
        )
    # If num_images is auto, a network that normalises over a batch infers from the whole batch.
    automatic = evaluate.batch_size if spec.network.normalises else 1
    is_automatic = evaluate.num_images == AUTO
    shown = automatic if is_automatic else int(evaluate.num_images)
    with family_errors(config.family):
        checked = (
            ("train.batch_size", config.train.batch_size, data.train, "training"),
            (
                f"evaluate.{'batch_size' if is_automatic else 'num_images'}",
                shown,
                data.test,
                "test",
            ),
        )
        for key, wanted, images, kind in checked:
            most, task_id = fewest_images(spec, images)
            if wanted > most:
                raise must_be(
                    key,
                    f"at most {most}, the number of {kind} images of task {task_id}",
                    wanted,
                    f"{key}={most}",
                )


def fewest_images(spec: RunSpec, images: ImageSet) -> tuple[int, int]:
    """Find the task with the fewest images; the first such task if there are several.

    Returns:
        The number of images of this task, and the task's number.
    """
    if spec.task(0).classes is None:  # then every task has all images
        return len(images.labels), 0
    num_images = images_of_tasks(spec, images)
    return min((num_images(task_id), task_id) for task_id in range(spec.config.tasks))


def images_of_tasks(spec: RunSpec, images: ImageSet) -> Callable[[int], int]:
    """Return a function from a task number to the number of images that the task has."""
    counts = np.bincount(images.labels, minlength=spec.num_classes)

    def num_images(task_id: int) -> int:
        classes = spec.task(task_id).classes
        return len(images.labels) if classes is None else int(counts[sorted(set(classes))].sum())

    return num_images
