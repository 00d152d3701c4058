"""Compile answers to system calls into a seccomp filter's program.

A tree halves the ranges of numbers, so that a call costs some eight comparisons; calls that are
allowed whatever their arguments cost nothing, as Linux 5.11 and later tries each number once at
installation and keeps the answer. Rules look at the arguments, behind the tree.

include/uapi/linux/filter.h, include/uapi/linux/seccomp.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000  # SECCOMP_RET_KILL_PROCESS: a killed thread would leave the others
ERRNO: Final = 0x00050000  # with the errno in the low bits; with none, the call is not made
ALL_BITS: Final = 0xFFFFFFFF

LOAD, AND, RETURN, JUMP, JUMP_EQUAL, JUMP_FROM = 0x20, 0x54, 0x06, 0x05, 0x15, 0x35
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
MOST: Final = 4096  # BPF_MAXINSNS


class Where(NamedTuple):
    """Hold where the low word of an argument, masked, is one of the values.

    Use it for arguments that are an int to the kernel, or of which no high bit means anything.
    """

    argument: int
    values: tuple[int, ...]
    mask: int = ALL_BITS


class Case(NamedTuple):
    """Take the action where all conditions hold."""

    action: int
    conditions: tuple[Where, ...]


class Rule(NamedTuple):
    """Take the action of the first case that holds."""

    cases: tuple[Case, ...]
    otherwise: int


class Instruction(NamedTuple):
    """Say one instruction; an empty label is the next instruction."""

    code: int
    value: int = 0
    yes: str = ""
    no: str = ""


Code = Iterator[Instruction | str]  # a string is a label of the instruction that follows
Answer = int | Rule


def _label(number: int, answer: Answer) -> str:
    """Name an answer: all calls with one action share its return, each rule is its own."""
    return f"return {answer:#x}" if isinstance(answer, int) else f"rule {number}"


def _rule(place: str, rule: Rule) -> Code:
    yield place
    for index, (action, conditions) in enumerate(rule.cases):
        otherwise = f"{place} after {index}"
        for order, (argument, values, mask) in enumerate(conditions):
            held = f"{place} held {index} {order}"
            yield Instruction(LOAD, ARGUMENTS + 8 * argument)
            if mask != ALL_BITS:
                yield Instruction(AND, mask)
            for value in values[:-1]:
                yield Instruction(JUMP_EQUAL, value, yes=held)
            yield Instruction(JUMP_EQUAL, values[-1], no=otherwise)
            yield held
        yield Instruction(RETURN, action)
        yield otherwise
    yield Instruction(RETURN, rule.otherwise)


def _ranges(labels: Mapping[int, str], otherwise: str) -> list[tuple[int, str]]:
    """Return where each run of numbers with the same label starts, from 0 on."""
    ranges: list[tuple[int, str]] = []
    for number in sorted({0} | labels.keys() | {number + 1 for number in labels}):
        label = labels.get(number, otherwise)
        if not ranges or ranges[-1][1] != label:
            ranges.append((number, label))
    return ranges


def _search(ranges: list[tuple[int, str]], place: str) -> Code:
    """Halve the ranges until one is left."""
    yield place
    if len(ranges) == 1:  # a rule, which lies too far ahead for a conditional jump
        yield Instruction(JUMP, yes=ranges[0][1])
        return
    middle = len(ranges) // 2
    below, above = ranges[:middle], ranges[middle:]
    near = [
        half[0][1] if len(half) == 1 and half[0][1].startswith("return") else f"{place}{side}"
        for side, half in (("<", below), (">", above))
    ]
    yield Instruction(JUMP_FROM, above[0][0], yes=near[1], no=near[0])
    for label, half in zip(near, (below, above), strict=True):
        if label.startswith(place):
            yield from _search(half, label)


def _assemble(code: Code) -> bytes:
    labels: dict[str, int] = {}
    instructions: list[Instruction] = []
    for item in code:
        if isinstance(item, str):
            labels[item] = len(instructions)
        else:
            instructions.append(item)
    if len(instructions) > MOST:
        raise ValueError(f"{len(instructions)} instructions are more than {MOST}")
    packed = []
    for index, (opcode, value, yes, no) in enumerate(instructions):
        near, far = (labels[label] - index - 1 if label else 0 for label in (yes, no))
        if opcode == JUMP:
            packed.append(struct.pack("=HBBI", opcode, 0, 0, near))
        else:  # struct.error if a label lies behind, or more than 255 ahead
            packed.append(struct.pack("=HBBI", opcode, near, far, value))
    return b"".join(packed)


def _code(
    architecture: int, answers: Mapping[int, Answer], otherwise: int, end: int | None
) -> Code:
    kill, unlisted = _label(0, KILL), _label(0, otherwise)
    labels = {number: _label(number, answer) for number, answer in answers.items()}
    yield Instruction(LOAD, ARCHITECTURE)
    yield Instruction(JUMP_EQUAL, architecture, no=kill)
    yield Instruction(LOAD, NUMBER)
    if end is not None:
        yield Instruction(JUMP_FROM, end, yes=kill)
    yield from _search(_ranges(labels, unlisted), ":")
    actions = {KILL, otherwise} | {a for a in answers.values() if isinstance(a, int)}
    for action in sorted(actions):
        yield _label(0, action)
        yield Instruction(RETURN, action)
    for number, answer in answers.items():
        if isinstance(answer, Rule):
            yield from _rule(labels[number], answer)


def compile_answers(
    architecture: int, answers: Mapping[int, Answer], *, otherwise: int, end: int | None = None
) -> bytes:
    """Return the program that gives each call's number its answer, and others `otherwise`.

    A call of another architecture (AUDIT_ARCH_…), or numbered `end` or above, kills the process.
    ValueError or struct.error if the program is too long for the kernel or for its jumps.
    """
    return _assemble(_code(architecture, answers, otherwise, end))
