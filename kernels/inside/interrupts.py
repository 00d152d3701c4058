"""Which request an interrupt is meant for, from the control thread that reads it to the main one.

A signal carries no name. Without one, an interrupt that comes when its cell has just ended would
stop the next cell in its place.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import Any

REPEAT_AFTER = 0.02  # s from an interrupt to the next, if nothing came of it; then twice as long
REPEAT_UNTIL = 1.0  # s
NOBODY = "nobody"  # no request's id


class Aim:
    """Compares what an interrupt is meant for with what the main thread serves.

    `aim` and `follow` are the control thread's, all else is the main one's.
    """

    def __init__(self, *handlers: Any) -> None:
        self.handlers = [*handlers]  # of SIGINT, ours, the innermost last
        self.serving = ""  # the id of the request
        self._meant = ""  # the id that the signal on its way is for
        self._heard = True  # a signal's handler has run: Python's part of it, not C's

    def aim(self, content: Any) -> bool:
        """Take an interrupt's content; tell whether a signal is to be sent.

        It names the `request` it is meant for, or is for whatever is served.
        """
        named = content.get("request") if isinstance(content, dict) else None
        serving = self.serving
        if named and named != serving:
            return False
        self._heard = False
        if self._are_ours:  # else nobody would take it from here
            self._meant = serving
        return True

    def wake(self) -> None:
        """Wake the main thread from a sleep, for what awaits it there; this interrupts nothing."""
        if self._are_ours and self._heard:  # else an interrupt is on its way, which wakes it too
            self._meant = NOBODY
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

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
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        self._later(2 * waited, meant)

    @property
    def _are_ours(self) -> bool:
        return signal.getsignal(signal.SIGINT) in self.handlers

    def hear(self) -> bool:
        """Note that a signal has come; tell whether it is meant for what is served.

        One that nobody aimed, from outside, always is.
        """
        meant, self._meant, self._heard = self._meant, "", True
        return not meant or meant == self.serving
