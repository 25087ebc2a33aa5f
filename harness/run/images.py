"""Check that every task has as many images as the configuration uses at once.

Tasks may have different numbers of images, because a family may give each task its own classes.
All tasks of a run train with the same batch size, and all queries show the same number of images.
So the task with the fewest images limits both. A larger number is refused, and not lowered: the
run would store another number than the user typed, and a comparison of two recipes on two families
would compare other batch sizes than the recipes say.
"""

import numpy as np

from harness.config.checks import must_be
from harness.config.schema import AUTO
from harness.data.dataset import Dataset
from harness.run.same_tasks import family_errors
from harness.run.spec import RunSpec
from supsup_core.data import ImageSet


def check_images(spec: RunSpec, data: Dataset) -> None:
    """Check the keys that the images of the smallest task limit.

    Args:
        spec: the specification of the run; its values of `auto` may be unresolved.
        data: the data set of the run.

    Raises:
        UserError: train.batch_size is above the number of training images of a task, or a query
            needs more test images than a task has.
    """
    config = spec.config
    evaluate = config.evaluate
    # A network that normalises infers from the whole batch if num_images is auto.
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
    """Find the task with the fewest images.

    Returns:
        The number of its images, and its task number.
    """
    counts = np.bincount(images.labels, minlength=spec.num_classes)
    fewest, its_task = len(images.labels), 0
    if spec.task(0).classes is None:  # then no task of the family has classes
        return fewest, its_task
    for task_id in range(spec.config.tasks):
        classes = spec.task(task_id).classes or ()
        num_images = int(counts[sorted(set(classes))].sum())
        if num_images < fewest:
            fewest, its_task = num_images, task_id
    return fewest, its_task
