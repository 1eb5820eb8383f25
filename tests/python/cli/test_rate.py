"""Rate and time left of long runs."""

import pytest

from kldiv.cli import output
from kldiv.cli.output import Rate


@pytest.fixture
def clock(monkeypatch):
    """Time that goes on when it is told to."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(output, "time", clock)
    return clock


def test_what_was_done_before_is_not_of_the_rate(clock):
    rate = Rate(10_000)
    assert rate.speed() == "…"
    rate.found(4000)
    clock.now += 10
    rate(1000)
    assert rate.rows == 5000
    assert rate.speed() == "100 rows/s, 50 s left"


@pytest.mark.parametrize(
    ("rows", "said"),
    [(70, "1 min 9 s"), (4000, "1 h 6 min"), (200_001, "2 d 7 h"), (1, "0 s")],
)
def test_time_left(clock, rows, said):
    rate = Rate(rows)
    clock.now += 1
    rate(1)
    assert rate.speed() == f"1 rows/s, {said} left"
    stream = Rate(None)
    clock.now += 1
    stream(5)
    assert stream.speed() == "5 rows/s"


def test_a_line_a_minute_where_there_is_no_terminal(clock, capsys):
    with output.progress("comparing", 1000, long=True) as advance:
        for _ in range(130):
            clock.now += 1
            advance(1)
    assert capsys.readouterr().err.splitlines() == [
        "kldiv: 60 of 1,000 rows, 1 rows/s, 15 min 40 s left",
        "kldiv: 120 of 1,000 rows, 1 rows/s, 14 min 40 s left",
    ]
    with output.progress("comparing", 1000) as advance:
        clock.now += 1000
        advance(1)
    assert not capsys.readouterr().err
