"""What a cell shows, and shows anew: of updates that follow each other quickly, the newest.

Nobody sees the others, and each would be made, sent, kept and drawn. An update goes at once if its
display has had none for UPDATE_AFTER; else when that has passed, or the cell clears its outputs,
shows something else or ends.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from ipykernel.jsonutil import encode_images
from ipykernel.zmqshell import ZMQDisplayPublisher
from jupyter_client.jsonutil import json_clean

from .streams import flush

UPDATE_AFTER = 0.05  # s
MOST = 100  # displays with an update that waits; and whose last update's time is known, ten times


class Displays(ZMQDisplayPublisher):
    """The publisher of what is displayed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._lock = threading.RLock()
        self._waiting: dict[str, Any] = {}  # messages, by the display's id
        self._sent: dict[str, float] = {}  # when, of the monotonic clock
        self._awaited = False  # a call of `_release_late`

    def publish(  # type: ignore[override]
        self,
        data: Any,
        metadata: Any = None,
        *,
        transient: Any = None,
        update: bool = False,
        **options: Any,
    ) -> None:
        """Send what is displayed, or an update of it; that may wait for a newer one."""
        name = transient.get("display_id") if update and transient else None
        # Hooks take messages away, for a widget that shows them; they are this thread's.
        plain = not self._hooks and not self.store_display_history
        if isinstance(name, str) and plain and not self._is_due(name):
            self._validate_data(data, metadata)
            content = {"data": encode_images(data), "metadata": metadata or {}}
            content["transient"] = transient
            self._keep(name, json_clean(content))
            return
        self.release()
        super().publish(data, metadata, transient=transient, update=update, **options)

    def clear_output(self, wait: bool = False) -> None:
        """Clear what was displayed; what has waited until now goes first."""
        self.release()
        super().clear_output(wait)

    def release(self) -> None:
        """Send every update that waits."""
        session: Any = self.session
        while self._waiting:
            with self._lock:
                for name, message in list(self._waiting.items()):
                    session.send(self.pub_socket, message, ident=self.topic)
                    # Then: a signal handler may raise before it is sent.
                    self._sent[name] = time.monotonic()
                    self._waiting.pop(name, None)

    def end(self) -> None:
        """Send what waits at the end of a cell; the first update of the next goes at once."""
        self.release()
        self._sent.clear()

    def _flush_streams(self) -> None:
        flush()

    def _is_due(self, name: str) -> bool:
        now = time.monotonic()
        loop = getattr(self.pub_socket, "io_loop", None)
        if name in self._waiting or now - self._sent.get(name, 0.0) < UPDATE_AFTER:
            return loop is None or len(self._waiting) >= MOST
        if len(self._sent) >= 10 * MOST:
            self._sent.clear()
        self._sent[name] = now
        return True

    def _keep(self, name: str, content: Any) -> None:
        session: Any = self.session
        message = session.msg("update_display_data", content, parent=self.parent_header)
        with self._lock:
            self._waiting[name] = message
            if not self._awaited:
                socket: Any = self.pub_socket
                loop = socket.io_loop.asyncio_loop
                loop.call_soon_threadsafe(loop.call_later, UPDATE_AFTER, self._release_late)
                self._awaited = True

    def _release_late(self) -> None:
        socket: Any = self.pub_socket
        # Whoever holds it may wait for room, which this thread must not.
        if not self._lock.acquire(blocking=False):
            socket.io_loop.asyncio_loop.call_later(UPDATE_AFTER, self._release_late)
            return
        try:
            self._awaited = False
            self.release()
        finally:
            self._lock.release()
        socket.flush()
