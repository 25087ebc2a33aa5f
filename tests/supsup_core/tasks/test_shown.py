"""Images that tasks change on a GPU are those that the host makes."""

import numpy as np
import pytest

from pretended_cuda import CUDA, PretendedCuda
from supsup_core.data import ImageSet
from supsup_core.tasks.shown import ShownImages

INDEX = np.array([5, 0, 0, 59])


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("permuted", {}),
        ("rotated", {}),
        ("split", {}),
        ("permuted_rotated", {"interpolation": "bilinear"}),
    ],
)
@pytest.mark.parametrize("shape", [(16,), (3, 4, 4)])
def test_a_gpu_shows_the_images_of_the_host(family, options, shape, make_tasks, rng):
    images = rng.integers(1, 256, (60, *shape), dtype=np.uint8)
    data = ImageSet(images, np.zeros(60, np.uint8), (0.5,), (0.3,))
    tasks = make_tasks(family, **options)  # for images of 4 x 4 pixels
    with PretendedCuda() as gpu:
        shown = ShownImages(data, CUDA)
        for task in tasks:
            gpu.reset()
            found = shown.of(task, INDEX)
            if task.change is None:
                assert gpu.uploaded_bytes <= 8 * (len(INDEX) + images[0].size)
            assert np.array_equal(found.cpu().numpy(), task.images(images[INDEX]))
