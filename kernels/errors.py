"""Everything that can go wrong with a kernel.

KernelError
├── LaunchError        no kernel came up                                          (the host's)
│   ├── ZygoteFailed   the profile's interpreter or a preload is broken
│   └── LaunchTimeout  it did not answer in time
├── KernelDied         the process ended; `reason` says how
└── BadFrame           bytes from a kernel that no honest kernel sends
"""

from __future__ import annotations


class KernelError(Exception):
    """Any failure of this package."""


class LaunchError(KernelError):
    """No kernel came up."""


class ZygoteFailed(LaunchError):
    """The profile's interpreter could not be prepared; the message ends with its last words."""


class LaunchTimeout(LaunchError):
    """The kernel did not answer in time."""


class KernelDied(KernelError):
    """The kernel's process has ended.

    `reason` is what a person is told: `exit 3`, `signal SIGSEGV`, `killed`, `unknown`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the kernel ended: {reason}")
        self.reason = reason


class BadFrame(KernelError):
    """Bytes from a kernel that no honest kernel sends; the kernel is not to be trusted further."""
