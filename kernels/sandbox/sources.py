"""Name the code that shuts kernels in: a zygote of older code is not to be taken for a new one."""

from __future__ import annotations

import hashlib
import os

FOLDERS = ("inside", "sandbox")


def digest() -> str:
    """Return a digest of the files that run in a zygote, as they are on disk now."""
    above = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    found = hashlib.sha256()
    for folder in FOLDERS:
        for name in sorted(os.listdir(os.path.join(above, folder))):
            if name.endswith(".py"):
                with open(os.path.join(above, folder, name), "rb") as file:
                    found.update(file.read())
    return found.hexdigest()
