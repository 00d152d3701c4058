"""Run a seccomp program as the kernel would: classic BPF over struct seccomp_data."""

from __future__ import annotations

import struct
from typing import NamedTuple

X86_64, AARCH64, I386, ARM = 0xC000003E, 0xC00000B7, 0x40000003, 0x40000028
ARCHITECTURES = {"x86_64": X86_64, "aarch64": AARCH64}

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


class Verdict(NamedTuple):
    """What the program returned, after how many instructions."""

    action: int
    steps: int


def interpret(
    program: bytes, architecture: int, number: int, arguments: tuple[int, ...] = ()
) -> Verdict:
    """Return the verdict; AssertionError for what the kernel would not have loaded."""
    padded = (*arguments, *[0] * 6)[:6]
    data = struct.pack("<IIQ6Q", number, architecture, 0x7F0000000000, *padded)
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator = place = steps = 0
    while True:
        opcode, yes, no, value = code[place]
        place += 1
        steps += 1
        if opcode == 0x20:  # ld [k]
            assert value % 4 == 0
            assert value < len(data)
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif opcode == 0x54:  # and #k
            accumulator &= value
        elif opcode == 0x05:  # ja
            place += value
        elif opcode == 0x15:  # jeq #k
            place += yes if accumulator == value else no
        elif opcode == 0x35:  # jge #k
            place += yes if accumulator >= value else no
        elif opcode == 0x06:  # ret #k
            return Verdict(value, steps)
        else:
            raise AssertionError(f"no such instruction: {opcode:#x}")
