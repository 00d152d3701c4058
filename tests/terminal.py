"""A program on a terminal of its own, as somebody sits at it: what it shows, and keys for it."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.peer import Place

CTRL_C, CTRL_D, ENTER, TAB, UP = "\x03", "\x04", "\r", "\t", "\x1b[A"
# ECMA-48 control sequences, what names a window, and the shorter escapes.
DRAWING = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Z0-9]|[=>78])|\r"
)
UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|[()])?\Z")
PATIENCE = 30.0  # s


class Terminal:
    """What a program shows, without what colours it and moves the cursor."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self.all = ""  # it has shown so far
        self.seen = ""  # of that, what came after the last key, and behind the last `until`
        self._descriptor = descriptor
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""  # the beginning of a sequence

    def until(self, text: str) -> str:
        """Return what is shown up to this text, which is waited for; what follows is next."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            self._read_for(repr(text), deadline)
        before, _, self.seen = self.seen.partition(text)
        return before

    def until_match(self, pattern: str) -> re.Match[str]:
        """Wait until what is seen since the last key has this, in whatever order it was drawn."""
        deadline = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.seen)) is None:
            self._read_for(repr(pattern), deadline)
        return found

    def press(self, keys: str) -> None:
        """Send keys, and look only at what comes now."""
        self.seen = ""
        os.write(self._descriptor, keys.encode())

    def settings(self) -> list[object]:
        """Return the terminal's, as `tcgetattr` has them."""
        return termios.tcgetattr(self._descriptor)

    def end(self) -> int:
        """Return the exit status, once it has ended by itself and all of it was read."""
        deadline = time.monotonic() + PATIENCE
        while self._read("its end", deadline):
            pass
        return self.process.wait(PATIENCE)

    def _read_for(self, what: str, deadline: float) -> None:
        if not self._read(what, deadline):
            pytest.fail(f"it has ended without {what}: {self.all[-4000:]!r}")

    def _read(self, what: str, deadline: float) -> bool:
        """Take in what comes next; False where nothing ever will."""
        left = max(0.0, deadline - time.monotonic())
        if not left or not select.select([self._descriptor], [], [], left)[0]:
            pytest.fail(f"no {what} in {self.all[-4000:]!r}")
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:  # EIO: the far end has closed
            return False
        text = self._rest + self._decoder.decode(data)
        cut = UNFINISHED.search(text)
        self._rest = cut[0] if cut else ""
        shown = DRAWING.sub("", text[: len(text) - len(self._rest)])
        self.seen += shown
        self.all += shown
        return bool(data)


@contextmanager
def terminal(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    rows: int = 30,
    columns: int = 140,
) -> Iterator[Terminal]:
    """Run a program on a terminal of this size; it is killed at the end if it still runs."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    told = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}
    told |= {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}  # nobody here tells positions
    try:
        with subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=told,
            cwd=cwd,
            start_new_session=True,
            # Its own, so that Ctrl-C is a signal where no prompt reads it.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        ) as process:
            os.close(theirs)
            try:
                yield Terminal(process, ours)
            finally:
                process.kill()
    finally:
        os.close(ours)


@contextmanager
def broker_on_terminal(place: Place, *arguments: str, **environ: str) -> Iterator[Terminal]:
    """Run the broker command against a broker, on a terminal."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    told = {"BROKER_URL": place.url, "BROKER_TOKEN": place.token, **environ}
    program = [str(Path(sys.executable).parent / "broker"), *arguments]
    with terminal(program, env=kept | told) as shown:
        yield shown
