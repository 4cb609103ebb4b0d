"""What each reporter shows, and that nothing of it reaches stdout."""

import io

import pytest
from rich.console import Console

from prunecli import progress
from prunecli.progress import (
    PLAIN_INTERVAL_S,
    PlainReporter,
    Reporter,
    RichReporter,
    SilentReporter,
    make_reporter,
)

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """`time.monotonic` gives the last entry."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[-1])
    return now


def use(reporter: Reporter) -> None:
    with reporter.step("training", total=10) as step:
        step.update(5, "loss 1.0")
    reporter.say("epoch 1")
    reporter.warn("layer [aten.conv2d] is frozen")


def test_silence_but_for_warnings(capsys: Captured) -> None:
    use(SilentReporter())
    out, err = capsys.readouterr()
    assert (out, err) == ("", "WARNING layer [aten.conv2d] is frozen\n")


def test_plain_lines_come_at_intervals_with_time_left(capsys: Captured, clock: list[float]) -> None:
    with PlainReporter().step("training", total=100) as step:
        step.update(10, "too early")
        clock.append(100.0 + PLAIN_INTERVAL_S)
        step.update(20, "loss 1.0")
        clock.append(101.0 + PLAIN_INTERVAL_S)
        step.update(30, "too early again")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "training",
        f"training  20%  {PLAIN_INTERVAL_S * 80 / 20:.0f} s left  loss 1.0",
        f"training: {PLAIN_INTERVAL_S + 1:.1f} s",
    ]


def test_plain_step_without_total_says_no_share(capsys: Captured, clock: list[float]) -> None:
    with PlainReporter().step("reading") as step:
        clock.append(110.0)
        step.update(3)
    assert capsys.readouterr().err.splitlines() == ["reading", "reading", "reading: 10.0 s"]


def test_short_plain_step_is_one_line_and_says_and_warns(
    capsys: Captured, clock: list[float]
) -> None:
    use(PlainReporter())
    assert capsys.readouterr().err.splitlines() == [
        "training",
        "epoch 1",
        "WARNING layer [aten.conv2d] is frozen",
    ]


def test_failed_plain_step_does_not_claim_an_end(capsys: Captured, clock: list[float]) -> None:
    def fail() -> None:
        with PlainReporter().step("reading"):
            clock.append(200.0)
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 (raised above)
        fail()
    assert capsys.readouterr().err.splitlines() == ["reading"]


def test_bars_on_a_terminal_keep_texts_with_brackets(capsys: Captured) -> None:
    reporter = RichReporter()
    shown = io.StringIO()
    reporter.console = Console(file=shown, force_terminal=True, width=100, _environ={})
    with reporter.step("reading [red]", total=10) as step:
        step.update(5, "layer [0]")
    reporter.say("kept [1]")
    reporter.warn("frozen [aten.conv2d]")
    text = shown.getvalue()
    for part in ("reading [red]", "layer [0]", "kept [1]", " frozen [aten.conv2d]"):
        assert part in text
    assert capsys.readouterr() == ("", "")


def test_reporter_fits_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_reporter(quiet=True), SilentReporter)
    monkeypatch.setattr(progress.sys, "stderr", io.StringIO())
    assert isinstance(make_reporter(quiet=False), PlainReporter)
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    assert isinstance(make_reporter(quiet=False), RichReporter)
