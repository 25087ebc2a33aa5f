"""The runs take turns in a queue, and the entries of a run keep their order."""

from harness.executors.turns import TurnQueue


def drained(queue):
    return [queue.popleft() for _ in range(len(queue))]


def filled():
    queue = TurnQueue()
    for entry in ("a1", "a2", "a3", "b1", "b2", "c1"):
        queue.append(entry[0], entry)
    return queue


def test_runs_take_turns():
    assert drained(filled()) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_run_that_submits_one_entry_at_a_time_is_not_held_back():
    queue, order = filled(), []
    for i in range(4):
        queue.append("d", f"d{i}")
        while (entry := queue.popleft())[0] != "d":
            order.append(entry)
        order.append(entry)
    assert [entry for entry in order if entry[0] == "d"] == ["d0", "d1", "d2", "d3"]
    assert order.index("d1") <= 6  # one entry of each other run at most comes in between


def test_an_entry_that_is_put_back_comes_next():
    queue = filled()
    assert queue.popleft() == "a1"
    queue.appendleft("a", "a1")
    assert drained(queue) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_the_entries_of_a_run_are_counted_and_dropped():
    queue = filled()
    assert (queue.waiting("b"), queue.waiting("x"), len(queue)) == (2, 0, 6)
    queue.drop("b")
    queue.drop("x")
    assert drained(queue) == ["a1", "c1", "a2", "a3"]
    assert not queue
