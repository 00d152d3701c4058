"""What holds for every test."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# No test is timed: whoever else uses the machine, or the first table of all characters, makes an
# example slow.
settings.register_profile("any", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any")

# Whoever starts the tests in the background may have them ignore Ctrl-C, and with them all that
# they start, some of which is ended by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def wardens_ends_noted() -> Iterator[None]:
    """Take the exit statuses of wardens that ended after the loop that would have done so.

    Each would be a warning at the end of the interpreter.
    """
    yield
    if "kernels.warden" in sys.modules:
        for process in sys.modules["kernels.warden"]._started:
            process.poll()
