"""The report of a search says which trial is the best, and why its options matter."""

import re
import shutil

import pandas as pd
import pytest

from analysis import report
from analysis.drawing.parallel import parallel_coordinates
from analysis.drawing.style import legend_entries
from analysis.load import configuration, load
from analysis.search import best_of, importance, options_of, scored
from analysis.sections import search
from analysis.sections.search import failures, scores, values
from harness.tables.files import write_table

METRIC = "expected_accuracy"


@pytest.fixture
def found(search_dir):
    return scored(load(search_dir, "trials").to_pandas(), METRIC)


@pytest.fixture
def options(search_dir):
    return options_of(configuration(search_dir), load(search_dir, "trials").to_pandas())


def texts_of(section):
    return [getattr(part, "text", "") for part in section.parts]


def test_the_page_begins_with_the_best_trial_and_stands_alone(search_dir, found):
    page, best = (search_dir / report.NAME).read_text(), found.loc[found["score"].idxmax()]
    assert (
        page.partition("</h1>")[2]
        .strip()
        .startswith(
            f'<p class="result">Of 16 trials, trial {best["trial"]} is the best: {METRIC} '
            f"{best['score']:.4f} with learning_rate {best['train.learning_rate']:.4g}, optimizer "
        )
    )
    assert re.findall(r"(?:src|href)=\"(?!#|data:)[^\"]*", page.replace("xlink:href", "href")) == []
    assert page.count("<figure>") == page.count('role="img"') == 3
    assert "Trials 3 and 11 failed three times." in page
    assert "OSError: no &lt;b&gt;labels&lt;/b&gt;" in page
    assert "<i>" not in page
    # Each trial with a score has a text in the history, and one in the parallel coordinates.
    for row in found.itertuples():
        assert f"<title>trial {row.trial}: {METRIC} {row.score:.4f}, {row.steps} steps" in page
        assert f"<title>trial {row.trial}, {row.status}: {METRIC} {row.score:.4f}; learn" in page


def test_trials_are_ordered_by_their_ends_and_only_finished_ones_are_the_best():
    trials = pd.DataFrame(
        {
            "trial": [0, 1, 2, 3, 4],
            "status": ["finished", "stopped", "failed", "finished", "finished"],
            "measured_at": [5, 1, 2, 3, 4],
            METRIC: [0.5, 0.9, 0.8, 0.6, 0.6],
        }
    )
    found = scored(trials, METRIC)
    assert found["trial"].tolist() == [1, 3, 4, 0]
    assert found["best"].fillna(-1).tolist() == [-1, 0.6, 0.6, 0.6]
    assert best_of(found)["trial"] == 3
    assert best_of(found[:1]) is None


def test_the_option_that_makes_the_score_is_the_most_important(found, options):
    amounts = importance(found, options)
    assert amounts.index[0] == "train.learning_rate"
    assert amounts.sum() == pytest.approx(1)
    assert [(one.label, one.is_range, one.is_log) for one in options] == [
        ("learning_rate", True, True),
        ("optimizer", False, False),
        ("hidden", False, False),
    ]


def test_few_trials_have_sentences_in_place_of_panels(found, options):
    few = search._importance(found[:11], options).text
    assert few.endswith("It needs 12 trials with a score, and this search has 11.")
    equal = search._importance(found.assign(score=0.5), options).text
    assert equal == "No option is important: all trials have the same score."
    assert "one option" in search._importance(found, options[:1]).text
    for section in (scores(found[:0], METRIC), values(found[:0], options, METRIC)):
        assert texts_of(section) == ["No trial has a score yet."]


def test_one_trial_and_many_trials_are_drawn(found, options):
    assert len(parallel_coordinates(found[:1], options, METRIC).axes[0].collections) == 1
    many = pd.concat([found] * 30, ignore_index=True)
    lines = parallel_coordinates(many, options, METRIC).axes[0].collections
    assert sum(len(one.get_segments()) for one in lines) == 300
    [panel] = scores(many, METRIC).parts[0].panels
    assert "<title>" not in panel  # a text for each of 420 points would make the page large


def test_groups_of_trials_with_equal_scores_are_told_apart(found, options):
    equal = found.assign(score=[0.0] * 8 + [0.5] * (len(found) - 8))
    labels = list(legend_entries(parallel_coordinates(equal, options, METRIC)))
    assert len(labels) == 5 + 1  # and the best trial
    assert labels[0] == f"ranks {len(found) - 2} to {len(found)}: score 0.0000 to 0.0000"


def test_failures_are_told_in_a_sentence(found):
    assert failures(found) == "No trial failed."
    one = pd.DataFrame({"trial": [7], "status": ["failed"], "error": [None]})
    assert failures(one).startswith("Trial 7 failed three times. The same command")


def test_a_search_that_only_failed_has_a_page_of_sentences(search_dir, tmp_path):
    folder = shutil.copytree(search_dir, tmp_path / "found")
    table = load(folder, "trials")
    failed = table.filter([status == "failed" for status in table["status"].to_pylist()])
    write_table(failed, folder / "trials" / "trials.parquet", "s")
    page = report.write(folder).read_text()
    assert "2 of 16 trials have ended, and none of them has finished." in page
    assert "<figure>" not in page
    assert page.count("No trial has a score yet.") == 2
    assert "No trial has finished yet." in page


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("metric: expected_accuracy", "metric: speed", "wrong value of tune.metric: restore"),
        ("scheduler: asha", "", "wrong value of tune.scheduler: restore"),
    ],
)
def test_a_damaged_configuration_is_one_line(search_dir, tmp_path, old, new, said):
    folder = shutil.copytree(search_dir, tmp_path / "found")
    file = folder / "config.yaml"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ValueError, match=said):
        report.write(folder)
