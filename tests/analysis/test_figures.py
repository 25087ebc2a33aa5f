import pandas as pd

from analysis.figures import accuracy_by_masks


def test_every_way_to_infer_is_drawn_at_its_mean():
    rows = pd.DataFrame(
        {
            "num_tasks": [2, 2, 4, 4, 9],
            "num_distractors": [0, 0, 0, 0, 5],
            "num_images": [1] * 5,
            "algorithm": [*["one_shot", "max_logit"] * 2, "one_shot"],
            "objective": [*["H", None] * 2, "H"],
            "accuracy_gg": [0.9, 0.9, 0.8, 0.8, 0.8],
            "accuracy_gnu": [0.7, 0.6, 0.5, 0.4, 0.3],
            "task_accuracy": [1.0, 0.9, 0.8, 0.7, 0.6],
        }
    )

    left, right = accuracy_by_masks(rows).axes

    drawn = {c.get_label(): list(c.lines[0].get_ydata()) for c in left.containers}
    untrained = "one_shot H, with untrained masks"
    assert drawn == {"one_shot H": [0.7, 0.5], "max_logit": [0.6, 0.4], untrained: [0.3]}
    inferred = {c.get_label(): list(c.lines[0].get_ydata()) for c in right.containers}
    assert inferred == {"one_shot H": [1.0, 0.8], "max_logit": [0.9, 0.7], untrained: [0.6]}
    [given] = [line for line in left.lines if line.get_label()[0] != "_"]
    assert given.get_label() == "task given (GG)"
    assert list(given.get_xdata()) == [2, 4]


def test_inferences_from_more_images_are_a_line_of_their_own():
    rows = pd.DataFrame(
        {
            "num_tasks": [2, 2],
            "num_distractors": [0, 0],
            "algorithm": ["max_logit"] * 2,
            "objective": [None, None],
            "num_images": [1, 4],
            "accuracy_gg": [0.9, 0.9],
            "accuracy_gnu": [0.7, 0.8],
            "task_accuracy": [0.8, 0.9],
        }
    )

    left, _ = accuracy_by_masks(rows).axes

    drawn = {c.get_label(): list(c.lines[0].get_ydata()) for c in left.containers}
    assert drawn == {"max_logit, images: 1": [0.7], "max_logit, images: 4": [0.8]}
