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


def let_go() -> None:
    """Sleep until killed; children that end are taken in by the system. Returns where it cannot.

    That is on machines there are no instructions for, or where memory may not hold new ones.
    """
    code = _CODE.get(system.MACHINE)
    if code is None:
        return
    try:
        page = mmap.mmap(-1, PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        _leave_sequences()
    except (OSError, ValueError, AttributeError):
        return
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        # No handler may be called; and who ignores this one has no children to wait for.
        signal.signal(number, signal.SIG_IGN if number == signal.SIGCHLD else signal.SIG_DFL)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(address)


def _leave_sequences() -> None:
    """Take back the address that the system writes to at each switch, if the C library gave one."""
    library = ctypes.CDLL(None)
    try:
        offset = ctypes.c_ssize_t.in_dll(library, "__rseq_offset").value
    except ValueError:  # it knows of no such thing
        return
    base = ctypes.c_ulong()
    system.syscall("arch_prctl", _GET_FS, ctypes.addressof(base))
    system.syscall("rseq", base.value + offset, _RSEQ_SIZE, _UNREGISTER, _RSEQ_SIGNATURE)
