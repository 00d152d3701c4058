"""Which request an interrupt is meant for, from the control thread that reads it to the main one.

A signal carries no name. Without one, an interrupt that comes when its cell has just ended would
stop the next cell in its place.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

REPEAT_AFTER = 0.02  # s from an interrupt to the next, if nothing came of it; then twice as long
REPEAT_UNTIL = 1.0  # s
NOBODY = "nobody"  # no request's id
STRAY = 1.0  # s in which a signal that was sent is heard, if the main thread hears any


def _signal() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


class Aim:
    """Compares what an interrupt is meant for with what the main thread serves.

    `aim` and `follow` are the control thread's, all else is the main one's.
    """

    def __init__(
        self,
        *handlers: Any,
        send: Callable[[], None] = _signal,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._clock = clock
        self.handlers = [*handlers]  # of SIGINT, ours, the innermost last
        self.serving = ""  # the id of the request
        self._meant = ""  # the id that the signal on its way is for
        self._heard = True  # a signal's handler has run: Python's part of it, not C's
        self._is_waking = False  # a wake's signal is on its way
        self._stray_until = 0.0  # when no second signal of the wakes can be under way any more

    def aim(self, content: Any) -> bool:
        """Take an interrupt's content; tell whether a signal is to be sent.

        It names the `request` it is meant for, or is for whatever is served.
        """
        named = content.get("request") if isinstance(content, dict) else None
        serving = self.serving
        if named and named != serving:
            return False
        self._heard, self._stray_until = False, 0.0  # whatever is heard now may be this one
        if self._are_ours:  # else nobody would take it from here
            self._meant = serving
        return True

    def wake(self) -> None:
        """Wake the main thread from a sleep, for what awaits it there; this interrupts nothing.

        It is sent again if the one before was not heard, which may have come just before a sleep.
        Then both may be heard after all, the second when nothing tells any more whom it is for.
        """
        if self._are_ours and self._heard:  # else an interrupt is on its way, which wakes it too
            if self._is_waking:
                self._stray_until = self._clock() + STRAY
            self._meant, self._is_waking = NOBODY, True
            self._send()

    def follow(self) -> None:
        """Interrupt again, as long as nothing shows that the signal was noticed.

        One that comes when the main thread has let go of the interpreter and is about to sleep in
        the kernel is noted, wakes nobody, and would be acted on only at the end of that sleep.
        """
        self._later(REPEAT_AFTER, self._meant)

    def _later(self, seconds: float, meant: str) -> None:
        asyncio.get_running_loop().call_later(seconds, self._repeat, seconds, meant)

    def _repeat(self, waited: float, meant: str) -> None:
        # A handler of the cell's own might not take two for one.
        if self._heard or not self._are_ours or waited > REPEAT_UNTIL or meant != self.serving:
            if self._meant == meant:  # swallowed below Python; what comes later is not for it
                self._meant = ""
            return
        self._meant = meant
        self._send()
        self._later(2 * waited, meant)

    @property
    def _are_ours(self) -> bool:
        return signal.getsignal(signal.SIGINT) in self.handlers

    def hear(self) -> bool:
        """Note that a signal has come; tell whether it is meant for what is served.

        One that nobody aimed, from outside, is, but right behind wakes.
        """
        meant, self._meant, self._heard = self._meant, "", True
        self._is_waking = False  # last: a wake that comes between these knows of the one before
        return meant == self.serving if meant else self._clock() >= self._stray_until
