"""Masks and tasks are matched by the numbers of batches, counted by hand."""

from harness.plan.ownership import BY_NUMBER, Decided, Mistakes, longest, matched, shares


def decided(*rows):
    """Decisions from (batch, mask, "new" or "")."""
    return [Decided(batch, mask, new == "new") for batch, mask, new in rows]


def test_with_the_task_given_mask_i_belongs_to_task_i():
    assert (BY_NUMBER.task_of(3), BY_NUMBER.mask_of(3)) == (3, 3)


def test_the_tasks_of_a_range_of_batches():
    assert list(shares(5, 27, 10)) == [(0, 5), (1, 10), (2, 7)]
    assert longest(5, 16, 10) == 1
    assert longest(5, 15, 10) == 0  # the first of equals


def test_right_decisions_match_each_mask_with_one_task():
    own = matched(decided((0, 0, "new"), (5, 0, ""), (10, 1, "new"), (15, 1, "")), 20, 10)
    assert (own.tasks, own.masks) == ((0, 1), (0, 1))


def test_a_false_split_gives_a_task_two_masks():
    own = matched(decided((0, 0, "new"), (10, 1, "new"), (13, 2, "new"), (20, 3, "new")), 30, 10)
    assert own.tasks == (0, 1, 1, 2)
    assert own.masks == (0, 2, 3)


def test_a_false_merge_leaves_a_task_without_a_mask_of_its_own():
    own = matched(decided((0, 0, "new"), (10, 0, ""), (20, 1, "new")), 30, 10)
    assert own.tasks == (0, 2)
    assert own.masks == (0, 0, 1)


def test_a_mask_that_the_stream_returns_to_is_used_but_does_not_train():
    own = matched(decided((0, 0, "new"), (10, 1, "new"), (13, 0, ""), (14, 1, "")), 20, 10)
    assert own.tasks == (0, 1)
    # Mask 1 trained on 3 batches of task 1, and was used for 9.
    assert own.masks == (0, 1)
    late = matched(decided((0, 0, "new"), (8, 1, "new"), (11, 0, ""), (12, 1, "")), 40, 10)
    assert late.tasks == (0, 0)  # mask 1 trained on 2 batches of task 0, and on 1 of task 1


def test_skipped_batches_belong_to_no_mask():
    own = matched(decided((0, 0, "new"), (10, None, ""), (20, 0, "")), 30, 10)
    assert own.tasks == (0,)
    assert own.masks == (0, None, 0)


def test_untrained_masks_belong_to_no_task():
    own = matched(decided((0, 0, "new")), 10, 10)
    assert [own.task_of(mask) for mask in (0, 1)] == [0, None]


def test_a_stream_that_has_not_begun_has_no_masks():
    own = matched([], 0, 10)
    assert Mistakes.of(own) == Mistakes(0, 0, 0, 0, 0)
