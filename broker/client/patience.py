"""How long a client waits for the broker's answer, and after how long it says that it does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: for an answer, and before the log of `broker.client` tells of the wait.

    None as an answer's is 30 over HTTP, and 10 for a socket to open; as the notice's, never.
    """

    answer: float | None = None
    notice: float | None = None

    @contextmanager
    def awaiting(self, url: str) -> Iterator[None]:
        """Say once, if what is done meanwhile takes long, that an answer is waited for."""
        if self.notice is None:
            yield
            return
        timer = threading.Timer(self.notice, _tell, (url,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


USUAL = Patience()


def _tell(url: str) -> None:
    import logging  # which only a long wait needs

    logging.getLogger("broker.client").warning("waiting for %s to answer", url)
