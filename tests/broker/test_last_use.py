"""When a session whose kernel outlived its broker was last used."""

from __future__ import annotations

import time

import pytest

from broker.adoption import last_use
from broker.marks import Mark, Running
from broker.store import SessionRecord

NOW = 1_000_000


def record(state: str = "ready") -> SessionRecord:
    parties = ("t", "s", "node", "kernel", 3, "python", state, "", "")
    return SessionRecord(*parties, created=0.0, last_used=NOW - 50.0, expires=0.0, leased=True)


def mark(monkeypatch: pytest.MonkeyPatch, *, used: int, ended: bool = True) -> Mark:
    """Return the mark of a session that ran something, up to a time."""
    made = Mark()
    monkeypatch.setattr(time, "time", lambda: float(used))
    made.bound(3, fresh=True)
    made.number(1)
    made.run(Running("cell", "k_1", 0.0, 0))
    made.ending()
    if ended:
        made.number(2)
    monkeypatch.setattr(time, "time", lambda: float(NOW))
    return made


@pytest.mark.parametrize(
    ("used", "ended", "state", "expected"),
    [
        (NOW - 20, True, "ready", (NOW - 20, True)),  # the store had not been told yet
        (NOW - 80, True, "ready", (NOW - 50, True)),
        (NOW + 80, True, "ready", (NOW, True)),  # the clock was set back
        (NOW - 20, True, "busy", (NOW - 20, True)),
        (NOW - 20, False, "busy", (NOW - 20, False)),
    ],
)
def test_the_later_of_mark_and_record_counts_but_no_time_to_come(
    monkeypatch: pytest.MonkeyPatch,
    used: int,
    ended: bool,
    state: str,
    expected: tuple[float, bool],
) -> None:
    assert last_use(record(state), mark(monkeypatch, used=used, ended=ended), 3) == expected


def test_a_mark_of_another_generation_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    other = mark(monkeypatch, used=NOW - 20)
    assert last_use(record(), other, 4) == (NOW - 50, True)
    assert last_use(record("busy"), other, 4) == (NOW - 50, False)
