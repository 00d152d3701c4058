"""Sleep without memory: for a process that has nothing left to do but to be there.

A reaper holds a kernel's pid namespace. As a sleeping interpreter it would hold nearly 2 MB of its
own as well, and page tables; here it lets go of everything but one page with the few instructions
that do that. There is no stack and no data then, and nothing in it to be attacked.
"""

from __future__ import annotations

import ctypes
import mmap
import signal

from . import system

PAGE = mmap.PAGESIZE
# Called with the address of the page it is in. x86-64: the arguments of a call are in rdi and rsi,
# its number in rax; `syscall` leaves r12 alone.
_X86_64 = bytes.fromhex(
    "4989fc"  # mov r12, rdi
    "4889fe"  # mov rsi, rdi
    "31ff"  # xor edi, edi
    "b80b000000 0f05"  # munmap(0, page)
    "498dbc2400100000"  # lea rdi, [r12 + 4096]
    "48be00f0ffffff7f0000"  # mov rsi, 0x7ffffffff000: where the addresses of programs end
    "4829fe"  # sub rsi, rdi
    "b80b000000 0f05"  # munmap(page + 4096, all the rest)
    "b822000000 0f05"  # pause()
    "ebf7"  # and again
)
_CODE = {"x86_64": _X86_64}
_GET_FS = 0x1003  # arch_prctl(2)
_RSEQ_SIZE, _UNREGISTER, _RSEQ_SIGNATURE = 32, 1, 0x53053053  # glibc's, of rseq(2)


class Sleeper:
    """What lets a forked child go of all its memory.

    To be made before the fork, when all signal handlers are set: a child that runs little code of
    its own makes few pages its own.
    """

    def __init__(self) -> None:
        self._page: mmap.mmap | None = None
        code = _CODE.get(system.MACHINE)
        if code is None:
            return
        try:
            self._rseq = _registered_sequences()
            page = mmap.mmap(-1, PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            page.write(code)
            self._address = ctypes.addressof(ctypes.c_char.from_buffer(page))
            system.mprotect(self._address, PAGE, mmap.PROT_READ | mmap.PROT_EXEC)
        except (OSError, AttributeError):
            return
        self._page = page
        self._sleep = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._address)
        # No handler may be called; and who ignores this one has no children to wait for.
        self._actions = [(int(signal.SIGCHLD), int(signal.SIG_IGN))]
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
            if signal.getsignal(number) is not signal.SIG_DFL:
                self._actions.append((int(number), int(signal.SIG_DFL)))

    def let_go(self) -> None:
        """Sleep until killed. The system takes in children that end. Returns where it cannot.

        That is on machines there are no instructions for, or where memory may not hold new ones.
        """
        if self._page is None:
            return
        for number, action in self._actions:
            signal.signal(number, action)
        if self._rseq:
            system.syscall("rseq", self._rseq, _RSEQ_SIZE, _UNREGISTER, _RSEQ_SIGNATURE)
        self._sleep(self._address)


def _registered_sequences() -> int:
    """Return the address that the system writes to at each switch; 0 if the C library gave none."""
    try:
        offset = ctypes.c_ssize_t.in_dll(ctypes.CDLL(None), "__rseq_offset").value
    except ValueError:  # it knows of no such thing
        return 0
    base = ctypes.c_ulong()
    system.syscall("arch_prctl", _GET_FS, ctypes.addressof(base))
    return base.value + offset
