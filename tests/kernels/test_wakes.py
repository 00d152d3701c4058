"""A main thread that is woken is not interrupted, however the signals come."""

from __future__ import annotations

import signal

import pytest

from kernels.inside.interrupts import STRAY, Aim


class Woken:
    """An aim whose signals a test counts and has heard; nobody is sent any."""

    def __init__(self) -> None:
        self.sent, self.now = 0, 0.0
        ours = signal.getsignal(signal.SIGINT)
        self.aim = Aim(ours, send=self._send, clock=lambda: self.now)
        self.aim.serving = "cell"

    def _send(self) -> None:
        self.sent += 1

    def hear(self, times: int = 1) -> list[bool]:
        """Return whether each of so many signals is an interrupt."""
        return [self.aim.hear() for _ in range(times)]


@pytest.mark.parametrize("wakes", [1, 2, 3])
def test_wakes_interrupt_nothing_whether_they_are_heard_together_or_apart(wakes: int) -> None:
    for heard in range(1, wakes + 1):
        woken = Woken()
        for _ in range(wakes):
            woken.aim.wake()
        assert woken.sent == wakes  # one that is noted just before a sleep wakes nobody
        assert woken.hear(heard) == [False] * heard


def test_a_wake_right_behind_others_interrupts_nothing() -> None:
    woken = Woken()
    woken.aim.wake()
    woken.aim.wake()
    assert woken.hear() == [False]
    woken.aim.wake()
    assert woken.hear(2) == [False, False]


def test_a_signal_from_outside_is_taken_once_no_wake_can_be_under_way() -> None:
    woken = Woken()
    woken.aim.wake()
    assert woken.hear(2) == [False, True]  # there was one only
    woken.aim.wake()
    woken.aim.wake()
    assert woken.hear() == [False]
    woken.now += STRAY
    assert woken.hear() == [True]


def test_an_interrupt_behind_wakes_is_taken() -> None:
    woken = Woken()
    woken.aim.wake()
    woken.aim.wake()
    assert woken.aim.aim({"request": "cell"})
    assert woken.hear() == [True]
    woken.aim.wake()
    woken.aim.wake()
    assert woken.hear() == [False]
    assert woken.aim.aim({"request": "cell"})
    woken.aim.serving = "next"
    assert woken.hear() == [False]  # meant for another


def test_nobody_is_woken_while_an_interrupt_is_on_its_way() -> None:
    woken = Woken()
    woken.aim.aim({})
    woken.aim.wake()
    assert woken.sent == 0
    assert woken.hear() == [True]
