import io
import logging
import re

import pytest
from rich.console import Console

from harness.reporting import display as display_module
from harness.reporting.display import (
    BAR_WIDTH,
    LINE_WIDTH,
    NARROW_BAR_WIDTH,
    SECONDS_BETWEEN_LINES,
    LineDisplay,
    LiveDisplay,
    make_console,
    make_display,
    say,
)


@pytest.fixture
def clock(monkeypatch):
    """A clock in seconds, which moves only when the test sets `now`."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    found = Clock()
    monkeypatch.setattr(display_module, "time", found)
    return found


@pytest.fixture
def lines():
    """The messages of the logger `harness`. Handlers that another test left have no effect."""
    found = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    logger = logging.getLogger("harness")
    before = logger.level, logger.propagate, logger.handlers[:]
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    yield found
    logger.setLevel(before[0])
    logger.propagate = before[1]
    logger.handlers[:] = before[2]


def test_lines_come_at_most_every_few_seconds(clock, lines):
    with LineDisplay() as display:
        display.add("training", 1000, 0, "tasks", "task given")
        for second in range(1, 61):
            clock.now = 100.0 + second
            display.update("training", second, 0.5)
    assert len(lines) == 60 / SECONDS_BETWEEN_LINES
    assert lines[0] == "training: 5/1000 tasks, 1/s, 995 s left, task given 0.5000"


def test_the_last_line_is_always_logged_and_once(clock, lines):
    display = LineDisplay()
    display.add("training", 3, 0, "tasks", "task given")
    clock.now += SECONDS_BETWEEN_LINES
    display.update("training", 2, None)
    clock.now += 0.001
    display.update("training", 3, 0.25)
    display.update("training", 3, 0.25)
    clock.now += SECONDS_BETWEEN_LINES
    display.update("training", 3, 0.25)
    assert [line.partition(",")[0] for line in lines] == [
        "training: 2/3 tasks",
        "training: 3/3 tasks",
    ]
    assert "given" not in lines[0]
    assert lines[1].endswith("task given 0.2500")
    assert "left" not in lines[1]


def test_each_bar_has_its_own_lines(clock, lines):
    display = LineDisplay()
    display.add("training", 10, 0, "tasks", "task given")
    display.add("evaluating 5 masks", 4, 0, "parts", "one_shot H")
    clock.now += SECONDS_BETWEEN_LINES
    display.update("training", 1, None)
    display.update("evaluating 5 masks", 1, None)
    assert [line.split(":")[0] for line in lines] == ["training", "evaluating 5 masks"]


def test_the_rate_of_a_resumed_run_counts_what_this_start_did(clock, lines):
    display = LineDisplay()
    display.add("training", 100, 90, "tasks", "task given")
    clock.now += 10
    display.update("training", 95, None)
    assert lines == ["training: 95/100 tasks, 0.5/s, 10 s left"]


def test_a_bar_that_was_full_from_the_start_is_not_logged(clock, lines):
    display = LineDisplay()
    display.add("training", 100, 100, "tasks", "task given")
    clock.now += 60
    display.update("training", 100, 0.5)
    assert lines == []


def terminal(width=140):
    return Console(file=io.StringIO(), force_terminal=True, width=width)


def plain(console):
    """Return the text of a console, without colours and cursor movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


def test_bars_show_name_count_rate_and_accuracy():
    console = terminal()
    with LiveDisplay(console) as display:
        display.add("training", 40, 10, "tasks", "task given")
        display.add("evaluating 25 masks", 8, 0, "parts", "one_shot H")
        display.update("training", 25, 0.9354, under_way=6.5)
    training, evaluating = plain(console).splitlines()[-2:]
    assert re.search(r"^training +\S+ 25\+6/40 [0-9.e+]+/s ", training)
    assert training.rstrip().endswith(" 0.9354 task given")
    assert re.search(r"^evaluating 25 +\S+ 0/8", evaluating)
    assert "/s" not in evaluating
    assert "left" not in evaluating
    assert "one_shot" not in evaluating


@pytest.fixture
def bar_clock():
    """A function: width -> (console, display, now). now[0] is the bars' time in seconds."""

    def make(width):
        console = terminal(width)
        display = LiveDisplay(console)
        now = [100.0]
        display._progress.get_time = lambda: now[0]
        return console, display, now

    return make


@pytest.mark.parametrize("width", [80, 120])
def test_each_bar_fits_one_line_whole(width, bar_clock):
    console, display, now = bar_clock(width)
    with display:
        display.add("training", 2500, 0, "tasks", "task given")
        display.add("evaluating 2500 masks", 15000, 0, "queries", "one_shot H")
        now[0] += 2016
        display.update("training", 2402, 0.93512, under_way=64.2)
        display.update("evaluating 2500 masks", 2, 0.5)
        display._progress.refresh()
    lines = plain(console).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    training, evaluating = (" ".join(line.split()) for line in lines[-2:])
    assert re.fullmatch(
        r"training \S{6,24} 2402\+64/2500 1\.22/s 0:00:27 left 0\.9351 task given", training
    )
    assert re.fullmatch(
        r"evaluating 2500 \S{6,24}( \S+)? 2/15000 0\.000992/s 4199:26:24 left 0\.5000 .*",
        evaluating,
    )


def test_the_bar_alone_shrinks_where_there_is_little_room(bar_clock):
    lengths = {}
    for width in (80, 120):
        console, display, now = bar_clock(width)
        with display:
            display.add("evaluating 2500 masks", 2500, 0, "tasks", "one_shot H")
            now[0] += 100
            display.update("evaluating 2500 masks", 124, 0.9351)
            display._progress.refresh()
        line = plain(console).splitlines()[-1].rstrip()
        assert line.startswith("evaluating 2500 ")
        assert line.endswith(" 124/2500 1.24/s 0:31:56 left 0.9351 one_shot H")
        lengths[width] = len(line) - len(line.replace("━", "").replace("╺", "").replace("╸", ""))
    assert (lengths[80], lengths[120]) == (NARROW_BAR_WIDTH, BAR_WIDTH)


def test_a_full_bar_keeps_its_rate(bar_clock):
    console, display, now = bar_clock(80)
    with display:
        display.add("training", 2500, 500, "tasks", "task given")
        now[0] += 100
        display.update("training", 2500, 0.9351)
        now[0] += 900
        display._progress.refresh()
    line = plain(console).splitlines()[-1].rstrip()
    assert "2500/2500 20/s " in line
    assert "left" not in line


@pytest.mark.parametrize("measure", ["one_shot_ranked H", "gradient_descent H_first_layer"])
def test_numbers_stay_whole_in_80_columns_and_only_a_long_name_is_cut(measure, bar_clock):
    console, display, now = bar_clock(80)
    with display:
        display.add("training", 2500, 0, "tasks", "task given")
        display.add("evaluating 2500 masks", 15000, 0, "queries", measure)
        now[0] += 100
        display.update("training", 1402, 0.93512, under_way=64.2)
        display.update("evaluating 2500 masks", 12402, 0.93513)
        display._progress.refresh()
    training, evaluating = plain(console).splitlines()[-2:]
    assert " 1402+64/2500 14.7/s 0:01:10 left 0.9351 task given" in training
    assert " 12402/15000 " in evaluating
    assert " 124/s " in evaluating
    assert f" 0:00:20 left 0.9351 {measure[:8]}" in evaluating
    assert max(len(line) for line in (training, evaluating)) <= 80


def test_rate_and_time_left_wait_for_the_first_unit_that_is_kept(clock, lines, bar_clock):
    """Until then, kernels are compiled and actors start, so a rate would say hours for a minute."""
    display = LineDisplay()
    console, live, now = bar_clock(80)
    with live:
        for bars in (display, live):
            bars.add("training", 32, 0, "tasks", "task given")
        clock.now += 20
        now[0] += 20
        for bars in (display, live):
            bars.update("training", 0, None, under_way=2.0)
        live._progress.refresh()
        early = plain(console).splitlines()[-1]
        clock.now += 20
        now[0] += 20
        for bars in (display, live):
            bars.update("training", 8, 0.5, under_way=2.0)
        live._progress.refresh()
    assert lines == [
        "training: 0+2/32 tasks",
        "training: 8+2/32 tasks, 0.25/s, 88 s left, task given 0.5000",
    ]
    assert " 0+2/32" in early
    assert "left" not in early
    assert "/s" not in early
    late = " ".join(plain(console).splitlines()[-1].split())
    assert late.endswith(" 8+2/32 0.25/s 0:01:28 left 0.5000 task given")


def test_rates_have_no_exponent(clock, lines):
    display = LineDisplay()
    display.add("evaluating 5 masks", 4000, 0, "queries", "one_shot H")
    clock.now += 1.0
    display.update("evaluating 5 masks", 4000, None)
    assert lines == ["evaluating 5 masks: 4000/4000 queries, 4000/s"]


@pytest.fixture
def kept_log(lines):
    """Restore the logger that make_display changes."""


@pytest.mark.usefixtures("kept_log")
def test_bars_are_for_terminals_lines_for_the_rest():
    assert isinstance(make_display(terminal(), quiet=False), LiveDisplay)
    assert isinstance(make_display(terminal(), quiet=True), LineDisplay)
    assert isinstance(make_display(Console(file=io.StringIO()), quiet=False), LineDisplay)


@pytest.mark.usefixtures("kept_log")
def test_a_log_line_does_not_tear_a_live_bar():
    console = terminal()
    with make_display(console, quiet=False) as display:
        display.add("training", 40, 0, "tasks", "task given")
        logging.getLogger("harness.storage.store").warning("damaged: %s", "a chunk")
    assert re.search(r"damaged: a chunk *\n", plain(console))


@pytest.mark.usefixtures("kept_log")
def test_lines_go_to_stderr_with_the_time(capsys):
    display = make_display(Console(file=io.StringIO()), quiet=False)
    display.add("training", 1, 0, "tasks", "task given")
    display.update("training", 1, None)
    said = capsys.readouterr()
    assert said.out == ""
    date = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"  # ISO 8601
    assert re.fullmatch(rf"{date} training: 1/1 tasks, \S+/s\n", said.err)


@pytest.mark.usefixtures("kept_log")
def test_a_log_line_on_a_terminal_has_an_iso_date_and_breaks_between_words_only():
    console = terminal(80)
    path = f"/{'long/' * 20}2026_11_26"
    with make_display(console, quiet=False):
        logging.getLogger("harness").info("training with %s numbers in %s", "1.25 " * 20, path)
    lines = [line.rstrip() for line in plain(console).splitlines() if line.strip()]
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d training with 1\.25 ", lines[0])
    said = " ".join(lines).split()
    assert said.count("1.25") == 20
    assert path in said
    assert [line for line in lines if len(line) > 80] == [path]


def test_a_text_wraps_between_words_on_a_terminal_and_not_at_all_elsewhere():
    text = "4.25 " * 30 + "[red]end"
    console = terminal(80)
    say(console, text)
    assert " ".join(plain(console).split()) == text
    assert max(map(len, plain(console).splitlines())) <= 80
    elsewhere = Console(file=io.StringIO(), width=80)
    say(elsewhere, text)
    assert elsewhere.file.getvalue() == f"{text}\n"


def test_tables_have_room_where_there_is_no_terminal(capsys):
    assert make_console().width == LINE_WIDTH
