"""A program on a terminal of its own: what it shows, and keys for it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

# ECMA-48 control sequences, what names a window, and the shorter escapes.
ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Z0-9]|[=>78])"
)
PATIENCE = 20.0  # s


class Terminal:
    """What a program shows, without what colours it and moves the cursor."""

    def __init__(self, process: subprocess.Popen[bytes], ours: int, theirs: int) -> None:
        self.process = process
        self._ours = ours
        self._theirs = theirs
        self._raw = b""

    @property
    def seen(self) -> str:
        """Return what it has shown since a key was pressed last."""
        return ESCAPES.sub("", self._raw.decode(errors="replace"))

    def until(self, pattern: str, *, after: bool = False) -> re.Match[str]:
        """Wait until what it shows has this; `after` forgets what came before."""
        deadline = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.seen)) is None:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._ours], [], [], left)[0]:
                pytest.fail(f"no {pattern!r} in {self.seen[-4000:]!r}")
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # EIO: the far end has closed
                data = b""
            if not data:
                pytest.fail(f"it has ended, and no {pattern!r} in {self.seen[-4000:]!r}")
            self._raw += data
        if after:
            self._raw = b""
        return found

    def press(self, keys: str) -> None:
        """Send keys, and look only at what comes now."""
        self._raw = b""
        os.write(self._ours, keys.encode())

    def settings(self) -> list[object]:
        """Return the terminal's, as `tcgetattr` has them."""
        return termios.tcgetattr(self._theirs)

    def end(self) -> int:
        """Return the exit status, once it has ended by itself."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self._ours], [], [], 0.1)[0]:
                os.read(self._ours, 65536)  # else it would wait for somebody to read
        return self.process.wait(1)


@contextmanager
def terminal(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    rows: int = 30,
    columns: int = 140,
) -> Iterator[Terminal]:
    """Run a program on a terminal of this size; it is killed at the end if it still runs."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    told = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}
    try:
        with subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**told, "TERM": "xterm-256color"},
            cwd=cwd,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        ) as process:
            try:
                yield Terminal(process, ours, theirs)
            finally:
                process.kill()
    finally:
        os.close(ours)
        os.close(theirs)
