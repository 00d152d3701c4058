"""How long a client waits for the broker's answer, and after how long it says that it does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: for an answer, and before the log of `broker.client` tells of the wait.

    None as an answer's is 30 over HTTP, and 10 for a socket to open; as the notice's, never. Each
    server's slowness is told once.
    """

    answer: float | None = None
    notice: float | None = None
    _told: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    @contextmanager
    def awaiting(self, url: str) -> Iterator[None]:
        """Say, if what is done meanwhile takes long and for the first time, what is waited for."""
        if self.notice is None or url in self._told:
            yield
            return
        timer = threading.Timer(self.notice, self._tell, (url,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _tell(self, url: str) -> None:
        import logging  # which only a long wait needs

        self._told.add(url)
        logging.getLogger("broker.client").warning("waiting for %s to answer", url)


USUAL = Patience()
