"""The broker command on a pseudo-terminal, as somebody types at it."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.system.peer import Place

CTRL_C, CTRL_D, ENTER, TAB, UP = "\x03", "\x04", "\r", "\t", "\x1b[A"
# With a terminal of its own, so that Ctrl-C is a signal where no prompt reads it.
_PROGRAM = """import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from broker.cli import main
main()
"""
_DRAWING = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[()][0-9A-Z]|\x1b[=>78]|\r")


class Terminal:
    """A program on a terminal: what it shows, and what is typed."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self._descriptor = descriptor
        self._seen = ""
        self.all = ""  # it has shown so far, without what draws

    def until(self, text: str, timeout: float = 30.0) -> str:
        """Return what is shown up to this text, which is waited for."""
        while text not in self._seen:
            if not select.select([self._descriptor], [], [], timeout)[0]:
                pytest.fail(f"no {text!r} in {self.all[-2000:]!r}")
            data = b""
            with suppress(OSError):  # the far end of the terminal has closed
                data = os.read(self._descriptor, 65536)
            if not data:
                pytest.fail(f"it ended without {text!r}: {self.all[-2000:]!r}")
            shown = _DRAWING.sub("", data.decode(errors="replace"))
            self._seen += shown
            self.all += shown
        before, _, self._seen = self._seen.partition(text)
        return before

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._descriptor, keys.encode())

    def end(self) -> int:
        """Return the exit status, once it has shown everything."""
        with suppress(OSError):
            while True:
                if not select.select([self._descriptor], [], [], 30.0)[0]:
                    pytest.fail(f"it does not end: {self.all[-2000:]!r}")
                if not (data := os.read(self._descriptor, 65536)):
                    break
                self.all += _DRAWING.sub("", data.decode(errors="replace"))
        return self.process.wait(20)


@contextmanager
def terminal(place: Place, *arguments: str, **environ: str) -> Iterator[Terminal]:
    """Run a command against a broker on a terminal."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    told = {"BROKER_URL": place.url, "BROKER_TOKEN": place.token, "TERM": "xterm"}
    told |= {"PROMPT_TOOLKIT_NO_CPR": "1", **environ}
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=kept | told,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            yield Terminal(process, ours)
        finally:
            process.kill()
            os.close(ours)
