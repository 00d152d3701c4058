"""Everything that can go wrong with a kernel.

KernelError
├── LaunchError        no kernel came up                                          (the host's)
│   ├── ZygoteFailed   the profile's interpreter or a preload is broken
│   ├── LaunchTimeout  it did not answer in time
│   └── IsolationUnavailable  this host cannot shut kernels in as asked; `layer`, `remedy`
├── KernelDied         the process ended; `reason` says how
├── UnsafePath         a name in a workspace that is not opened; `reason` says why  (the client's)
├── NoRoom             a workspace is at its bound; `bound` says which              (the client's)
└── BadFrame           bytes from a kernel that no honest kernel sends
"""

from __future__ import annotations

from typing import Final

SHOWN_PATH: Final = 200  # characters of a path in a message: it may come from a stranger


class KernelError(Exception):
    """Any failure of this package."""


class LaunchError(KernelError):
    """No kernel came up."""


class ZygoteFailed(LaunchError):
    """The profile's interpreter could not be prepared; the message ends with its last words."""


class LaunchTimeout(LaunchError):
    """The kernel did not answer in time."""


class IsolationUnavailable(LaunchError):
    """This host cannot shut kernels in as asked; `layer` names what is missing or leaks.

    `remedy` is what whoever runs the host can do about it; the message ends with it.
    """

    def __init__(self, message: str, *, layer: str, remedy: str = "") -> None:
        super().__init__(f"{message}; {remedy}" if remedy else message)
        self.layer = layer
        self.remedy = remedy


class KernelDied(KernelError):
    """The kernel's process has ended.

    `reason` is what a person is told: `exit 3`, `signal SIGSEGV`, `killed`, `unknown`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the kernel ended: {reason}")
        self.reason = reason


class BadFrame(KernelError):
    """Bytes from a kernel that no honest kernel sends; the kernel is not to be trusted further."""


class UnsafePath(KernelError):
    """A path below a directory that a stranger writes to does not lead to a plain file of its own.

    `reason` is one of a few fixed words, such as `symlink` or `missing`; see `kernels.safe_open`.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{shown_path(path)!r} is not opened: {reason}")
        self.path = path
        self.reason = reason


class NoRoom(KernelError):
    """A workspace is at its bound; `bound` is `bytes` or `files`, and `most` how many of them."""

    def __init__(self, bound: str, most: int) -> None:
        super().__init__(f"the workspace is full: it holds at most {most:,} {bound}")
        self.bound = bound
        self.most = most


def shown_path(path: str) -> str:
    """Return as much of a stranger's path as a message has room for."""
    return path if len(path) <= SHOWN_PATH else f"{path[:SHOWN_PATH]}…"
