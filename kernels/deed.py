"""Whose a kernel is, on disk for the broker that comes after.

Not in the zygote's memory, which each later kernel has a copy of and can read.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

NAME = "deed.json"


class Deed(NamedTuple):
    """A kernel's id, and whom it is bound to; nobody while `label` is empty."""

    kernel_id: str
    label: str = ""

    def write(self, directory: Path) -> None:
        """Write it into the kernel's directory. Raises OSError.

        In place and at once: one that was written before takes no more room on a full disk, and is
        read as it was or as it is, whenever this process ends.
        """
        line = json.dumps(self).encode() + b"\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(directory / NAME, flags, 0o600)
        try:
            os.pwrite(file, line, 0)  # what an older one leaves behind its end is not read
        finally:
            os.close(file)

    @staticmethod
    def forget(directory: Path) -> None:
        """Remove it: whose the kernel is nobody shall read. Raises OSError."""
        (directory / NAME).unlink(missing_ok=True)

    @classmethod
    def read(cls, directory: Path) -> Deed | None:
        """Return what was written, or None where nobody knows any more."""
        try:
            line = (directory / NAME).read_bytes().partition(b"\n")[0]
            match json.loads(line):
                case [str(kernel_id), str(label)]:
                    return cls(kernel_id, label)
        except (OSError, ValueError, RecursionError):
            pass
        return None
