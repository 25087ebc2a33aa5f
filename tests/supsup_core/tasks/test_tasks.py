import numpy as np
import pytest
from scipy import ndimage

from supsup_core import names
from supsup_core.names import FAMILIES
from supsup_core.tasks.make import first_equals, make_task, task_inputs
from supsup_core.tasks.permuted import Permuted
from supsup_core.tasks.protocol import Setting, Task
from supsup_core.tasks.rotated import BilinearRotation, angle_between, rotation_source


def family_of(name, **options):
    return names.load("family", FAMILIES, name)(**options)


def task(family, task_id=1, seed=0, num_tasks=5, side=5, num_classes=10, **options):
    setting = Setting(seed, num_tasks, (side, side), num_classes)
    return make_task(family_of(family, **options), task_id, setting)


@pytest.fixture
def images(rng):
    """Three images of 5x5 pixels without any black pixel."""
    return rng.integers(1, 256, (3, 25), dtype=np.uint8)


def rotated(images, angle):
    """Rotate images by means of `rotation_source`. Returns: (N, side, side) images."""
    side = int(images.shape[1] ** 0.5)
    padded = np.concatenate([images, np.zeros((len(images), 1), np.uint8)], axis=1)
    return padded[:, rotation_source(side, angle)].reshape(-1, side, side)


def test_permutation_names_the_pixel_each_input_comes_from(images):
    permuted = task("permuted")
    made = permuted.images(images)
    for j, source in enumerate(permuted.source):
        assert np.array_equal(made[:, j], images[:, source])
    assert sorted(permuted.source) == list(range(25))


def test_permutations_differ_by_task_and_seed_but_not_by_number_of_tasks():
    base = task("permuted", 1, seed=0).source
    assert not np.array_equal(base, task("permuted", 2, seed=0).source)
    assert not np.array_equal(base, task("permuted", 1, seed=1).source)
    assert not np.array_equal(base, task("permuted", 0, seed=1).source)
    assert np.array_equal(base, task("permuted", 1, seed=0, num_tasks=99).source)


def test_first_permutation_is_pinned():
    assert task("permuted", 0, side=3).source.tolist() == [1, 4, 0, 3, 5, 8, 6, 7, 2]


@pytest.mark.parametrize("side", [4, 5])
@pytest.mark.parametrize("quarter_turns", [-1, 0, 1, 2, 3, 4])
def test_rotation_by_right_angles_is_exact_and_counter_clockwise(rng, side, quarter_turns):
    images = rng.integers(1, 256, (3, side * side), dtype=np.uint8)
    expected = np.rot90(images.reshape(3, side, side), quarter_turns, axes=(1, 2))
    assert np.array_equal(rotated(images, 90.0 * quarter_turns), expected)


def test_rotation_by_zero_is_the_identity():
    assert rotation_source(28, 0.0).tolist() == list(range(784))


def test_small_rotation_moves_the_right_edge_up():
    image = np.zeros((1, 81), dtype=np.uint8)
    image[0, 4 * 9 + 8] = 255  # middle of the right edge
    rows, columns = np.nonzero(rotated(image, 20.0)[0])
    assert (rows < 4).all()
    assert len(rows) == 1
    assert columns == [8]


def test_pixels_from_outside_are_background():
    source = rotation_source(8, 45.0).reshape(8, 8)
    corners = source[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 64).all()
    white = np.full((1, 64), 255, dtype=np.uint8)
    assert np.array_equal(rotated(white, 45.0)[0] == 0, source == 64)
    assert (source[2:6, 2:6] < 64).all()


@pytest.mark.parametrize("family", ["rotated", "permuted_rotated"])
@pytest.mark.parametrize("num_tasks", [1, 7, 36])
def test_angles_divide_the_full_circle_evenly(family, num_tasks):
    tasks = [task(family, i, num_tasks=num_tasks) for i in range(num_tasks)]
    angles = [one.parameters["angles"] for one in tasks]
    assert angles[0] == 0
    np.testing.assert_allclose(np.diff([*angles, 360.0]), 360 / num_tasks)
    assert angle_between(num_tasks) == pytest.approx(360 / num_tasks)


def test_permuted_rotated_is_rotated_then_permuted(images):
    both = task("permuted_rotated")
    turned, mixed = task("rotated"), task("permuted")
    assert (both.source == 25).any()
    assert np.array_equal(both.images(images), mixed.images(turned.images(images)))
    assert not np.array_equal(both.images(images), turned.images(mixed.images(images)))


@pytest.mark.parametrize("side", [4, 5])
@pytest.mark.parametrize("quarter_turns", [-1, 0, 1, 2, 3, 4])
def test_interpolation_turns_by_right_angles_exactly(rng, side, quarter_turns):
    images = rng.integers(0, 256, (3, side * side), dtype=np.uint8)
    expected = np.rot90(images.reshape(3, side, side), quarter_turns, axes=(1, 2))
    found = BilinearRotation(side, 90.0 * quarter_turns)(images)
    assert np.array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize("angle", [0.3, 33.3, 100.0, 211.5])
@pytest.mark.parametrize("side", [7, 28])
def test_interpolation_is_that_of_scipy(rng, side, angle):
    image = rng.integers(0, 256, (side, side), dtype=np.uint8)
    expected = ndimage.rotate(
        image.astype(float), angle, reshape=False, order=1, mode="grid-constant"
    )
    found = BilinearRotation(side, angle)(image.reshape(1, -1)).reshape(side, side)
    # Positions are wrong by up to 1/512 in two directions, and the result by up to 1/2.
    assert np.abs(found - expected).max() <= 0.5 + 2 * 255 / 512


def test_interpolated_white_stays_white_inside():
    white = np.full((1, 81), 255, dtype=np.uint8)
    found = BilinearRotation(9, 17.0)(white).reshape(9, 9)
    assert (found[2:7, 2:7] == 255).all()
    assert found[0, 0] < 255


def test_interpolated_permuted_rotated_is_rotated_then_permuted(images):
    both = task("permuted_rotated", interpolation="bilinear")
    turned, mixed = task("rotated", interpolation="bilinear"), task("permuted")
    assert np.array_equal(both.images(images), mixed.images(turned.images(images)))
    assert not np.array_equal(both.images(images), images)


@pytest.mark.parametrize("family", ["rotated", "permuted_rotated"])
def test_an_unknown_interpolation_is_refused(family):
    with pytest.raises(ValueError, match="interpolation must be one of nearest, bilinear, got"):
        family_of(family, interpolation="cubic")


def count_different(family, num_tasks, side, **options):
    tasks = [task(family, i, num_tasks=num_tasks, side=side, **options) for i in range(num_tasks)]
    return int((first_equals(tasks, side**2) == np.arange(num_tasks)).sum())


@pytest.mark.parametrize(
    ("side", "num_tasks", "different"), [(8, 24, 24), (8, 100, 84), (28, 86, 86), (28, 180, 172)]
)
def test_rotations_by_whole_pixels_are_counted(side, num_tasks, different):
    assert count_different("rotated", num_tasks, side) == different


def test_the_first_equal_task_is_named():
    tasks = [task("rotated", i, num_tasks=25, side=8) for i in range(25)]
    firsts = np.arange(25)
    firsts[13] = 12
    assert first_equals(tasks, 64).tolist() == firsts.tolist()


@pytest.mark.parametrize(
    ("family", "num_tasks", "options"),
    [
        ("rotated", 500, {"interpolation": "bilinear"}),
        ("permuted_rotated", 100, {}),
        ("permuted", 100, {}),
        ("split", 5, {}),
    ],
)
def test_families_of_different_tasks_have_no_equal_tasks(family, num_tasks, options):
    assert count_different(family, num_tasks, 8, **options) == num_tasks


def test_permutations_alone_lose_no_pixel():
    assert [f for f in FAMILIES if task(f).is_permutation] == ["permuted"]


@pytest.mark.parametrize("source", [None, [0, 1, 1], [0, 1, 3]])
def test_what_is_said_to_be_a_permutation_must_be_one(source):
    source = None if source is None else np.array(source, np.uint16)
    with pytest.raises(ValueError, match="task 4 must have a permutation as source"):
        Task(4, source=source, is_permutation=True)


def test_a_task_chooses_pixels_or_classes():
    with pytest.raises(ValueError, match="task 2 must have a source or classes, got both"):
        Task(2, source=np.zeros(4, np.uint16), classes=(0, 1))


class Inverted:
    """A change of images that is linear in no pixel."""

    num_pixels = 25
    rule = "255 minus each pixel"

    def __call__(self, pixels):
        return 255 - pixels


def test_a_task_may_change_images_by_any_rule_before_it_chooses_pixels(images):
    source = task("rotated").source
    made = Task(0, change=Inverted(), source=source, parameters={"strengths": 1.0}).images(images)
    assert np.array_equal(made, Task(0, source=source).images(255 - images))


def test_a_change_needs_parameters_that_define_it():
    with pytest.raises(ValueError, match="so it must have parameters that"):
        Task(2, change=Inverted())


def test_a_task_changes_images_or_chooses_classes():
    with pytest.raises(ValueError, match="task 2 must have a change or classes, got both"):
        Task(2, change=Inverted(), parameters={"strengths": 1.0}, classes=(0, 1))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda pixels: pixels / 2, r"images of uint8 \(3, 25\), got float64 \(3, 25\)"),
        (lambda pixels: pixels[:, 1:], r"images of uint8 \(3, 25\), got uint8 \(3, 24\)"),
    ],
)
def test_pixels_of_a_changed_image_stay_whole_numbers(images, wrong, message):
    class Wrong(Inverted):
        def __call__(self, pixels):
            return wrong(pixels)

    with pytest.raises(ValueError, match=f"task 1 must make {message}"):
        Task(1, change=Wrong(), parameters={"strengths": 1.0}).images(images)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            {"change": BilinearRotation(6, 5.0), "parameters": {"angles": 5.0}},
            "images of 25 pixels, got a change for 36 pixels",
        ),
        (
            {"source": np.arange(24, dtype=np.uint16)},
            r"source of type uint16 and shape \(25,\), got uint16 and \(24,\)",
        ),
        ({"source": np.full(25, 26, np.uint16)}, "indices up to 25 in its source, got 26"),
        ({"classes": (9, 10)}, r"classes in \[0, 10\), got \(9, 10\)"),
        ({"classes": ()}, r"classes in \[0, 10\), got \(\)"),
    ],
)
def test_a_task_for_other_images_is_refused(made, message):
    class Wrong(Permuted):
        def make(self, task_id, setting):
            return Task(task_id, **made)

    with pytest.raises(ValueError, match=f"task 1 must .*{message}"):
        make_task(Wrong(), 1, Setting(0, 5, (5, 5), 10))


def test_split_tasks_share_the_classes_out_and_keep_images_and_labels(images):
    tasks = [task("split", i) for i in range(5)]
    assert [t.classes for t in tasks] == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    assert tasks[1].images(images) is images
    labels = np.array([2, 9, 3, 0, 2, 1], dtype=np.uint8)
    assert tasks[1].members(labels).tolist() == [0, 2, 4]
    assert tasks[3].members(labels).tolist() == []


def test_tasks_of_the_whole_data_set_have_every_image():
    labels = np.array([2, 9, 3], dtype=np.uint8)
    assert task("permuted").members(labels).tolist() == [0, 1, 2]


def test_only_the_split_family_is_limited_by_the_classes():
    assert [family_of("split").max_tasks(n) for n in (2, 7, 10)] == [1, 3, 5]
    assert [family_of("split", classes=3).max_tasks(n) for n in (2, 9, 10, 11)] == [1, 3, 3, 4]
    for name in ("permuted", "rotated", "permuted_rotated"):
        assert family_of(name).max_tasks(10) is None


@pytest.mark.parametrize("task_id", [-1, 5, 6])
def test_split_task_beyond_the_classes_is_refused(task_id):
    with pytest.raises(ValueError, match=rf"\[0, 5\), got {task_id}"):
        task("split", task_id, num_tasks=9)


@pytest.mark.parametrize("family", ["permuted", "rotated"])
def test_task_beyond_the_run_is_refused(family):
    with pytest.raises(ValueError, match=r"\[0, 5\), got 5"):
        task(family, 5)


def test_unknown_family_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=f"{', '.join(FAMILIES)}, got 'mirrored'"):
        task("mirrored")


def test_pixels_of_an_oblong_are_permuted_and_not_rotated():
    setting = Setting(0, 5, (3, 4), 10)
    assert sorted(make_task(family_of("permuted"), 1, setting).source) == list(range(12))
    with pytest.raises(ValueError, match="images must be square, got 3 by 4 pixels"):
        make_task(family_of("rotated"), 1, setting)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        *((family, {}) for family in ("permuted", "rotated", "permuted_rotated", "split")),
        ("rotated", {"interpolation": "bilinear"}),
    ],
)
def test_channels_change_alike(family, options, rng):
    images = rng.integers(1, 256, (4, 3, 5, 5), dtype=np.uint8)
    one = task(family, **options)
    made = one.images(images)
    assert made.shape == images.shape
    for c in range(3):
        alone = one.images(np.ascontiguousarray(images[:, c]))
        assert np.array_equal(made[:, c], alone)
        assert np.array_equal(alone.reshape(4, 25), one.images(images[:, c].reshape(4, 25)))


@pytest.mark.parametrize("family", ["permuted", "rotated", "permuted_rotated"])
@pytest.mark.parametrize(("side", "dtype"), [(255, np.uint16), (256, np.uint32)])
def test_sources_of_large_images_have_32_bits(family, side, dtype):
    one = task(family, 1, side=side)
    assert one.source.dtype == dtype
    assert task_inputs([one]).popitem()[1].dtype == dtype
    pixels = np.arange(side**2, dtype=np.uint32).astype(np.uint8)[None]
    shown = np.append(pixels[0], 0)[one.source.astype(np.int64)]
    assert np.array_equal(one.images(pixels)[0], shown)


def test_a_permutation_over_values_mixes_channels(rng):
    images = rng.integers(1, 256, (2, 3, 4, 5), dtype=np.uint8)
    setting = Setting(0, 5, (4, 5), 10, channels=3)
    one = make_task(family_of("permuted", over="values"), 1, setting)
    assert sorted(one.source) == list(range(60))
    expected = images.reshape(2, 60)[:, one.source].reshape(images.shape)
    assert np.array_equal(one.images(images), expected)
    assert len(make_task(family_of("permuted"), 1, setting).source) == 20
    tasks = [make_task(family_of("permuted", over="values"), i, setting) for i in range(3)]
    assert first_equals(tasks, 60).tolist() == [0, 1, 2]


def test_over_values_of_one_channel_is_over_pixels():
    assert np.array_equal(task("permuted", over="values").source, task("permuted").source)


def made(family, **options):
    tasks = [task(family, i, **options) for i in range(3)]
    return tasks, task_inputs(tasks)


def test_inputs_of_permutations():
    tasks, inputs = made("permuted")
    assert {name: (a.dtype, a.shape) for name, a in inputs.items()} == {
        "permutations": (np.uint16, (3, 25))
    }
    assert np.array_equal(inputs["permutations"][2], tasks[2].source)


@pytest.mark.parametrize("family", ["rotated", "permuted_rotated"])
def test_inputs_of_rotations(family):
    tasks, inputs = made(family)
    assert {name: (a.dtype, a.shape) for name, a in inputs.items()} == {
        "angles": (np.float64, (3,)),
        "sources": (np.uint16, (3, 25)),
    }
    assert inputs["angles"].tolist() == [0, 72, 144]
    assert np.array_equal(inputs["sources"][2], tasks[2].source)


def test_inputs_of_interpolated_rotations():
    _, inputs = made("rotated", interpolation="bilinear")
    assert list(inputs) == ["angles"]
    tasks, inputs = made("permuted_rotated", interpolation="bilinear")
    assert list(inputs) == ["angles", "permutations"]
    assert np.array_equal(inputs["permutations"][2], tasks[2].source)


def test_inputs_of_splits():
    _, inputs = made("split")
    assert list(inputs) == ["classes"]
    assert inputs["classes"].dtype == np.uint16
    assert inputs["classes"].tolist() == [[0, 1], [2, 3], [4, 5]]


def splits(num_tasks, num_classes=10, seed=0, **options):
    return [
        task("split", i, seed, num_tasks, num_classes=num_classes, **options)
        for i in range(num_tasks)
    ]


def test_the_last_split_task_may_have_fewer_classes():
    tasks = splits(4, num_classes=11, classes=3)
    assert [one.classes for one in tasks] == [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10)]
    expected = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 65535]]
    assert task_inputs(tasks)["classes"].tolist() == expected
    assert task_inputs(tasks[3:], most_classes=3)["classes"].tolist() == expected[3:]


def test_a_task_of_one_class_is_refused():
    with pytest.raises(ValueError, match=r"task_id must be in \[0, 3\), got 3"):
        splits(4, num_classes=10, classes=3)
    with pytest.raises(ValueError, match="classes must be >= 2, got 1"):
        family_of("split", classes=1)


def test_a_task_of_more_classes_than_there_are_is_refused():
    with pytest.raises(ValueError, match="classes must be at most 10, the number of classes"):
        splits(1, classes=11)


def test_classes_can_be_shuffled_by_the_seed_alone():
    shuffled = [one.classes for one in splits(5, order="seed")]
    assert sorted(sum(shuffled, ())) == list(range(10))
    assert shuffled == [one.classes for one in splits(5, order="seed")]
    assert shuffled[:2] == [one.classes for one in splits(2, order="seed")]
    assert shuffled != [one.classes for one in splits(5, order="seed", seed=1)]
    assert shuffled != [one.classes for one in splits(5)]


def test_labels_are_renumbered_in_the_order_of_the_classes():
    one = Task(0, classes=(7, 2, 9), renumbers=True)
    labels = np.array([[9, 7], [2, 7]], dtype=np.uint8)
    assert one.labels(labels).tolist() == [[2, 0], [1, 0]]
    assert Task(0, classes=(7, 2, 9)).labels(labels).tolist() == labels.tolist()
    assert one.labels(labels).dtype == np.int64
    assert [t.renumbers for t in splits(2, renumber=True)] == [True, True]


@pytest.mark.parametrize("classes", [None, (), (1, 1)])
def test_a_task_that_renumbers_needs_different_classes(classes):
    with pytest.raises(ValueError, match="task 3 must have different classes if it renumbers"):
        Task(3, classes=classes, renumbers=True)
