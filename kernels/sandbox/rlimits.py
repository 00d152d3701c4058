"""Set the resource limits of a process by our names for them.

They bound single processes; a cgroup bounds the kernel whole. Where there is none, these and the
number of processes are all that stands.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from typing import Final

NAMES: Final = {
    "open_files": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,  # threads too, of the user in this user namespace
    "file_bytes": resource.RLIMIT_FSIZE,  # SIGXFSZ, or EFBIG where that is ignored (as by Python)
    "data_bytes": resource.RLIMIT_DATA,
    "address_bytes": resource.RLIMIT_AS,
    "stack_bytes": resource.RLIMIT_STACK,
    "cpu_seconds": resource.RLIMIT_CPU,
    "core_bytes": resource.RLIMIT_CORE,
    "message_queue_bytes": resource.RLIMIT_MSGQUEUE,
    "locked_bytes": resource.RLIMIT_MEMLOCK,
    "pending_signals": resource.RLIMIT_SIGPENDING,  # POSIX timers too
    "realtime_priority": resource.RLIMIT_RTPRIO,
}
# Of these, 0 is a limit like any other. Of the rest it would leave nothing that runs.
MAY_BE_NOTHING: Final = frozenset(
    {"core_bytes", "message_queue_bytes", "locked_bytes", "realtime_priority"}
)


def apply(limits: Mapping[str, int]) -> None:
    """Set soft and hard limits; a hard limit that is lower already stays.

    A name that is absent is left alone, and so is a 0 unless 0 makes sense of it
    (`MAY_BE_NOTHING`). Of the stack only the soft limit is set: threads take their size from it,
    and a program may want more. ValueError names unknown limits; nothing is then set.
    """
    if unknown := sorted(limits.keys() - NAMES):
        raise ValueError(f"unknown limits: {', '.join(unknown)}")
    for name, value in limits.items():
        if value <= 0 and not (value == 0 and name in MAY_BE_NOTHING):
            continue
        kind = NAMES[name]
        _, hard = resource.getrlimit(kind)
        soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (soft, hard if name == "stack_bytes" else soft))
