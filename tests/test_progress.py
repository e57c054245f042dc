"""One line says what is running: of a run its stage, rate and time left, of other work how far it is."""

import io
import time

import pytest
from rich.console import Console

from pipelines.runtime import progress
from pipelines.runtime.progress import Bars, Whole, bars, duration_text, left_text, rate_text


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_run_says_stage_rate_and_time_left_from_training_and_distilling() -> None:
    clock = Clock()
    shown = Bars(Whole(4, 1, (1000, 1000, 2000)), clock)
    assert shown.line() == "stage 2/4"
    with shown.bar("training 0002", 1000, "rows") as training:
        clock.now = 10
        training.advance(400)
        # 400 of 4,000 rows are learned and none is distilled: 200 of 4,000 rows of work in 10 s.
        assert shown.line() == "stage 2/4, 20 rows/s, 3 min left; training 0002 40%"
        training.advance(600)
    with shown.bar("training 0003", 1000, "rows"), shown.bar("optimising", 4, "iterations") as optimising:
        clock.now = 20
        optimising.advance(2)
        assert shown.line() == "stage 2/4, 38 rows/s, 87 s left; training 0003 0%; optimising 50%"
    shown.committed(1000)
    assert shown.line().startswith("stage 3/4, 50 rows/s, 60 s left")


def test_a_reference_that_is_reused_counts_as_learned_when_its_block_is_distilled() -> None:
    clock = Clock()
    shown = Bars(Whole(2, 0, (500, 500)), clock)
    clock.now = 5
    shown.committed(500)
    assert shown.line() == "stage 2/2, 100 rows/s, 5 s left"


def test_a_stream_has_no_end_and_says_nothing_while_it_waits() -> None:
    clock = Clock()
    shown = Bars(Whole(None, 16), clock)
    assert shown.line() == ""
    with shown.bar("training 0017", 300, "rows") as training:
        clock.now = 3
        training.advance(150)
        assert shown.line() == "stage 17, 25 rows/s; training 0017 50%"


def test_other_work_says_how_much_is_done() -> None:
    clock = Clock()
    shown = Bars(clock=clock)
    assert shown.line() == ""
    with shown.bar("cells", 12, "cells") as bar:
        assert shown.line() == "cells 0/12"
        clock.now = 120
        bar.advance(3)
        assert shown.line() == "cells 3/12, 1.5 cells/min, 6 min left"
    shown.follow("reading", 1, 2)
    assert shown.line() == "reading 1/2"
    shown.follow("reading", 2, 2)
    assert shown.line() == ""


@pytest.mark.parametrize(
    ("done", "seconds", "text"),
    [(0, 5, ""), (1, 100, "0.6 rows/min"), (5, 4, "1.2 rows/s"), (36_000, 3, "12,000 rows/s")],
)
def test_a_slow_rate_is_per_minute_and_never_zero(done: int, seconds: float, text: str) -> None:
    assert rate_text(done, seconds, "rows") == text


def test_time_left() -> None:
    assert left_text(1, 100, 5) == left_text(0, 0, 5) == left_text(100, 100, 5) == ""
    assert left_text(50, 100, 60) == "60 s left"
    assert [duration_text(s) for s in (89, 90, 5300, 5400, 90_000)] == [
        "89 s",
        "2 min",
        "88 min",
        "1 h 30 min",
        "25 h 0 min",
    ]


def test_off_a_terminal_there_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not none, and not one per batch."""
    out = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=out, soft_wrap=True))
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.2)
    with bars() as shown, shown.bar("training [0001]", 10_000, "rows") as bar:
        deadline = time.monotonic() + 30
        while out.getvalue().count("\n") < 2 and time.monotonic() < deadline:
            bar.advance(1)
            time.sleep(0.0005)
    lines = out.getvalue().splitlines()
    assert 2 <= len(lines) <= 3 and all(line.startswith("training [0001] ") for line in lines)


def test_a_line_as_long_as_the_terminal_and_standard_output_stays_where_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=40, soft_wrap=True, highlight=False)
    monkeypatch.setattr(progress, "console", console)
    with bars() as shown, shown.bar("a label that is much longer than the terminal is wide", 9, "rows"):
        print('{"stage": 1}')
        console.print("stage 1 committed")
        time.sleep(0.5)
    assert capsys.readouterr().out == '{"stage": 1}\n'
    assert "a label that is much longer than the te…" in screen.getvalue()
    assert "stage 1 committed" in screen.getvalue()
