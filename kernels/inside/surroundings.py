"""Environment variables and the working directory: for good, or while one request is served."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

ATTEMPTS = 8  # to put things back: a signal handler of the session's may raise in between


class Surroundings:
    """What the process has around it, and what is to be put back."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def change(self, env: dict[str, str | None], cwd: str | None, home: str) -> None:
        """Change them for good; None removes a variable. A relative directory is beneath `home`.

        Raises OSError, with all changed but the directory.
        """
        for name, value in env.items():
            _set(name, value)
        if cwd is not None:
            _enter(cwd, home, "; the former one stays")

    def lend(self, env: dict[str, str | None], cwd: str | None, home: str) -> None:
        """Change them until they are put back. Raises OSError."""
        if cwd is not None:
            try:
                back = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:  # we are where nobody may be any more
                back = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._undo.append(partial(_go_back, back))
            _enter(cwd, home)
        for name, value in env.items():
            self._undo.append(partial(_set, name, os.environ.get(name)))
            _set(name, value)

    @property
    def lent(self) -> int:
        """Count what is lent."""
        return len(self._undo)

    def put_back(self, down_to: int = 0) -> None:
        """Have things as they were before they were lent; the last one first, down to so many."""
        for _ in range(ATTEMPTS):
            try:
                while len(self._undo) > down_to:
                    self._undo[-1]()
                    self._undo.pop()
                return
            except OSError:  # a directory that nobody may enter any more
                self._undo.pop()
            except BaseException:  # noqa: S112 - the session's own; ours is done all the same
                continue


def _enter(cwd: str, home: str, then: str = "") -> None:
    try:
        os.chdir(os.path.join(home, cwd))
    except OSError as error:
        raise type(error)(error.errno, f"cwd: {error.strerror}{then}", cwd) from None


def _set(name: str, value: Any) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _go_back(directory: int) -> None:
    try:
        os.fchdir(directory)
    finally:
        os.close(directory)
