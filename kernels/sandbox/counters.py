"""A number that the system keeps in a file, read again and again."""

from __future__ import annotations

import os


class Counter:
    """Read such a file through a descriptor that stays open: one call, where opening takes ten.

    The descriptor is opened by the first `read`, and closed by `close`.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def __repr__(self) -> str:
        return f"<Counter {self._path}>"

    def read(self) -> int | None:
        """Return the number; None if there is no such file, or no longer, or it has none."""
        try:
            if self._descriptor < 0:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            return int(os.pread(self._descriptor, 32, 0))
        except (OSError, ValueError):  # ENODEV: the group has been removed
            return None

    def close(self) -> None:
        """Close the descriptor; the next `read` opens it anew."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
