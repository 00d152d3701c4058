"""What the sandbox's own attempts at getting out make of what they meet."""

from __future__ import annotations

import os

import pytest

from kernels.sandbox import selftest


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (BlockingIOError(11, "no more"), (True, "EAGAIN after 0")),
        (OSError(12, "no memory"), (True, "ENOMEM after 0")),
        (FileNotFoundError(2, "no program"), (False, "ENOENT after 0")),
        (PermissionError(13, "not executable"), (False, "EACCES after 0")),
    ],
)
def test_a_fork_bomb_that_was_not_set_off_proves_nothing(
    monkeypatch: pytest.MonkeyPatch, error: OSError, verdict: selftest.Verdict
) -> None:
    def refuse(*_: object) -> int:
        raise error

    monkeypatch.setattr(os, "posix_spawn", refuse)
    assert selftest.fork_bomb() == verdict
