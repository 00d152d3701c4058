"""Give up every capability, and every way to one, for good.

capabilities(7). Call it where CAP_SETPCAP is held, which is so in a user namespace of one's own.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Collection
from typing import Final

from .system import PR_CAP_AMBIENT, PR_CAPBSET_DROP, PR_SET_SECUREBITS, prctl, syscall

PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
PR_CAPBSET_READ: Final = 23
# Each with the bit that locks it: root's uid gives nothing (NOROOT), nor do changes of uid
# (NO_SETUID_FIXUP), nor can a capability be made ambient. KEEP_CAPS is locked while unset.
SECUREBITS: Final = (1 << 0 | 1 << 1) | (1 << 2 | 1 << 3) | 1 << 5 | (1 << 6 | 1 << 7)

_HEADER: Final = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
_SETS: Final = 6  # words: effective, permitted, inheritable; then the same for capabilities 32-63


def drop() -> None:
    """Empty the bounding, ambient, effective, permitted and inheritable sets of this thread.

    PermissionError without CAP_SETPCAP; nothing has then changed.
    """
    bound(())
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    prctl(PR_SET_SECUREBITS, SECUREBITS)
    syscall("capset", _HEADER, bytes(4 * _SETS))


def bound(keep: Collection[int]) -> None:
    """Drop from the bounding set what is not named: no later program has it, root's neither."""
    capability = 0
    try:
        while True:
            if capability not in keep:
                prctl(PR_CAPBSET_DROP, capability)
            else:
                prctl(PR_CAPBSET_READ, capability)
            capability += 1
    except OSError as error:
        if error.errno != errno.EINVAL:  # the number after the last that this Linux knows
            raise
