"""What the sandbox's own attempts at getting out make of what they meet."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable

import pytest

from kernels.sandbox import selftest


def starting(most: int, error: int) -> Callable[[], int]:
    """Return what starts so many processes, and then fails."""
    left = iter(range(most))

    def start() -> int:
        if next(left, None) is None:
            raise OSError(error, "refused")
        return subprocess.Popen(["/bin/sh", "-c", "kill -STOP $$"]).pid

    return start


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.ENOMEM])
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_bound_that_a_fork_bomb_meets_is_proof(error: int) -> None:
    safe, evidence = selftest.fork_bomb(starting(3, error))
    assert (safe, evidence) == (True, f"{errno.errorcode[error]} after 3")


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.ENOENT, errno.EACCES])
def test_a_fork_bomb_that_was_not_set_off_proves_nothing(error: int) -> None:
    safe, evidence = selftest.fork_bomb(starting(0, error))
    assert (safe, evidence) == (False, f"{errno.errorcode[error]} after 0")
