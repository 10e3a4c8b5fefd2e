"""What every display of a run promises: it may be told of a whole run, and of one that fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from motherlode.trainer.checkpoint import Point
from motherlode.trainer.progress import LineDisplay, RunDisplay, SilentDisplay, TerminalDisplay

DISPLAYS: dict[str, tuple[Callable[[], RunDisplay], bool]] = {
    "terminal": (TerminalDisplay, True),
    "lines": (LineDisplay, True),
    "silent": (SilentDisplay, False),
}


@pytest.fixture(params=DISPLAYS)
def display(request: pytest.FixtureRequest) -> tuple[RunDisplay, bool]:
    new, is_shown = DISPLAYS[request.param]
    return new(), is_shown


def test_a_run_is_shown_on_standard_error_alone(
    display: tuple[RunDisplay, bool], capsys: pytest.CaptureFixture[str]
) -> None:
    shown, is_shown = display
    shown.start(2, 4)
    shown.step(1.5, 32)
    shown.point(Point(96, 1.5, {"P@1": 50.25, "R@10": 75.0}))
    shown.step(1.25, 32)
    shown.stop()
    output = capsys.readouterr()
    assert output.out == ""
    assert bool(output.err) == is_shown


def test_lines_say_the_step_the_loss_and_the_quality(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = LineDisplay()
    shown.start(2, 4)
    shown.step(1.5, 32)
    shown.point(Point(96, 1.5, {"P@1": 50.25, "R@10": 75.0}))
    shown.stop()
    line = capsys.readouterr().err
    for part in ("step 3 of 4", "loss 1.500", "P@1 50.2", "R@10 75.0", "examples/s"):
        assert part in line


def test_a_run_that_fails_can_be_stopped_at_once(display: tuple[RunDisplay, bool]) -> None:
    display[0].start(0, 10)
    display[0].stop()
