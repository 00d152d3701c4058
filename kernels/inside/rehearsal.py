"""Run cells before the fork, for what they leave behind: imports, caches, specialised code.

Made once it is shared by all kernels; made after the fork, each would have its own.
"""

from __future__ import annotations

from typing import Any


def rehearse(app: Any) -> None:
    """Do nothing yet."""
