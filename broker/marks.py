"""How far each session's events are numbered, and what it runs: kept through the broker's death.

A file of fixed slots, mapped into memory. A write is a store into the page cache, which outlives
the process that made it; it costs no system call. Not kept: anything through the machine's death,
for which the kernels do not live on either. A file that is another's, damaged or of another life of
the machine is replaced; where there is none, marks are kept in memory alone.

One slot, in numbers of 8 bytes unless said otherwise:

    0  16 bytes that stand for the session
    2  0 free, 1 in use, 2 its session has ended
    3  the session's generation
    4  the last number given
    5  Unix time of its last use, s
    6  iopub messages of the kernel that have been taken in,
    7  and the last number given before the newest of them
    8  the number that ends what runs: once it is given, nothing runs; 0 while that is not known
    9  1 when an event has told of its beginning, 2 when one has told of an error, or their sum
    10 the length of what follows, and its CRC-32: (length << 32) | crc; 0 for nothing
    11 what runs, as JSON
"""

from __future__ import annotations

import logging
import mmap
import os
import time
import zlib
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import orjson

logger = logging.getLogger(__name__)

MAGIC = b"broker marks 1\0\0"
SLOT = 1024  # bytes
WORDS = SLOT // 8
RECORD = 11 * 8  # where the record begins
FREE, USED, ENDED = 0, 1, 2
STATE, GENERATION, LAST, TIME, TAKEN, BEFORE, END, TOLD, HEAD = 2, 3, 4, 5, 6, 7, 8, 9, 10
HIGH = 4  # of the file's own words: the highest slot that was ever used
MOST = 2**53 - 1  # a number that JSON carries everywhere
BEGUN, FAILED = 1, 2  # of what was told
ALONE, CALL = -1, -2  # in place of a cell's number
UNKEPT, KEPT, WITHHELD = 0, 1, 2  # in the transcript: not, or as it is, or without what it says
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Running(NamedTuple):
    """An execution that a kernel runs."""

    id: str  # the client's
    message: str  # the kernel's id of its request
    began: float  # Unix s
    timeout: float  # s from then on, 0 for none
    silent: bool = False
    cell: int = -1  # its number in a batch; below that, ALONE or CALL
    rest: int = 0  # cells of the batch that are to run after it
    answers: bool = False  # who asked for it can answer what it asks
    used: float | None = None  # CPU seconds that the kernel had used before it
    kept: int = KEPT  # one of UNKEPT, KEPT, WITHHELD
    visits: bool = False  # a visitor of another tenant asked for it
    started: bool = False  # an event has told of its beginning,
    failed: bool = False  # and one of an error


class Mark:
    """One session's slot, or as much memory of this process alone."""

    def __init__(self, numbers: memoryview | None = None, at: int = 0) -> None:
        if numbers is None:
            numbers = memoryview(bytearray(SLOT)).cast("Q")
        self._numbers = numbers
        self._bytes = numbers.cast("B")
        self._at = at
        self._last = at + LAST

    def __repr__(self) -> str:
        return f"<Mark {self._at // WORDS}: {self.last}, generation {self.generation}>"

    @property
    def last(self) -> int:
        """Return the last number given; 0 for none, or for one that nobody can have given."""
        last = self._numbers[self._last]
        return last if last <= MOST else 0

    @property
    def generation(self) -> int:
        """Return the generation that was numbered last."""
        return self._numbers[self._at + GENERATION]

    @property
    def used(self) -> int:
        """Return the Unix time, in s, at which it was bound or its last execution ended, or 0."""
        return self._numbers[self._at + TIME]

    def number(self, seq: int) -> None:
        """Note that a number is being given, before anybody can have seen it."""
        self._numbers[self._last] = seq

    def bound(self, generation: int, *, fresh: bool) -> None:
        """Note the session's kernel; a fresh one has said nothing and runs nothing."""
        self._numbers[self._at + GENERATION] = generation
        if fresh:  # else nobody has used it since
            self._numbers[self._at + TIME] = int(time.time())
        # What is numbered from here on says nothing of the message that was taken in last.
        self._numbers[self._at + TAKEN] = 0 if fresh else self.taken
        self._numbers[self._at + BEFORE] = 0
        if fresh:
            self._numbers[self._at + HEAD] = 0

    def taking(self, count: int) -> None:
        """Note that this message of the kernel's, counted from 1, is being taken in."""
        numbers, at = self._numbers, self._at
        numbers[at + BEFORE] = numbers[self._last]
        numbers[at + TAKEN] = count

    @property
    def taken(self) -> int:
        """Return how many messages have been taken in for good: the newest if it gave a number."""
        count = self._numbers[self._at + TAKEN]
        return max(0, count - (self._numbers[self._at + BEFORE] >= self._numbers[self._last]))

    def run(self, running: Running) -> None:
        """Note what the kernel is about to be asked."""
        numbers, at = self._numbers, self._at
        numbers[at + HEAD] = numbers[at + END] = 0
        numbers[at + TOLD] = BEGUN * running.started | FAILED * running.failed
        try:
            text = orjson.dumps(running[:-2])
        except TypeError:  # an id that is no text
            return
        if len(text) <= SLOT - RECORD:  # else an id of the longest, of the widest characters
            start = at * 8 + RECORD
            self._bytes[start : start + len(text)] = text
            numbers[at + HEAD] = len(text) << 32 | zlib.crc32(text)

    def told(self, kind: str) -> None:
        """Note that an event of what runs is being told: its `started`, or an `error`."""
        self._numbers[self._at + TOLD] |= BEGUN if kind == "started" else FAILED

    def ending(self) -> None:
        """Note that the next number ends what runs."""
        self._numbers[self._at + TIME] = int(time.time())
        self._numbers[self._at + END] = self._numbers[self._last] + 1

    @property
    def has_ended(self) -> bool:
        """Tell whether it is certain that what was run last has ended."""
        return 0 < self._numbers[self._at + END] <= self._numbers[self._last]

    @property
    def running(self) -> Running | None:
        """Return what runs, or None where that is not known."""
        if self.has_ended:
            return None
        head = self._numbers[self._at + HEAD]
        length = head >> 32
        if not 0 < length <= SLOT - RECORD:
            return None
        start = self._at * 8 + RECORD
        text = bytes(self._bytes[start : start + length])
        if zlib.crc32(text) != head & 0xFFFFFFFF:
            return None
        with suppress(ValueError, TypeError):
            match orjson.loads(text):
                case [
                    str(id),
                    str(message),
                    float(began),
                    int() | float() as timeout,
                    bool(silent),
                    int(cell),
                    int(rest),
                    *more,  # nothing, in what an older broker has written
                ]:
                    told = self._numbers[self._at + TOLD]
                    answers = more[:1] == [True]
                    used = next((each for each in more[1:] if isinstance(each, float)), None)
                    kept = more[2] if len(more) > 2 else UNKEPT if silent else WITHHELD
                    kept = kept if kept in (UNKEPT, KEPT) else WITHHELD
                    known = (answers, used, kept, more[3:4] == [True])
                    flags = bool(told & BEGUN), bool(told & FAILED)
                    return Running(id, message, began, timeout, silent, cell, rest, *known, *flags)
        return None

    def end(self) -> None:
        """Note that the session has ended; its numbers go on if it comes again."""
        self._numbers[self._at + HEAD] = 0
        self.orphan()

    def orphan(self) -> None:
        """Note that no kernel lives on; what it ran is told of when the session comes again."""
        self._numbers[self._at + TIME] = int(time.time())
        # A session that nobody has seen an event of has nothing to go on from.
        self._numbers[self._at + STATE] = ENDED if self.last else FREE

    def forget(self) -> None:
        """Give the slot back: no session of this name comes again."""
        self._numbers[self._at + HEAD] = 0
        self._numbers[self._at + STATE] = FREE


class Marks:
    """The marks of a node's sessions. Close it when none is written any more."""

    def __init__(self, path: Path | None, slots: int = 4096) -> None:
        self._slots = slots
        size = (slots + 1) * SLOT
        self._map = _mapped(path, size) if path is not None else mmap.mmap(-1, size)
        self._numbers = memoryview(self._map).cast("Q")
        self._slot_of: dict[bytes, int] = {}
        self._ended: dict[bytes, int] = {}  # those to be taken by others first, oldest first
        self._free: list[int] = []
        self._scan()

    def __repr__(self) -> str:
        return f"<Marks: {len(self._slot_of)} of {self._slots}>"

    def _scan(self) -> None:
        ended = []
        self._high = min(self._numbers[HIGH], self._slots)  # no slot above was ever used
        for slot in range(self._high, 0, -1):
            at = slot * WORDS
            state = self._numbers[at + STATE]
            if state in (USED, ENDED):
                name = self._map[slot * SLOT : slot * SLOT + 16]
                self._slot_of[name] = slot
                # Whose kernel lives on is told by its adoption, which takes it up again.
                ended.append((self._numbers[at + TIME], name, slot))
            else:
                self._free.append(slot)  # so that the lowest is taken first
        self._ended = {name: slot for _, name, slot in sorted(ended)}

    def of(self, tenant: str, session: str) -> Mark:
        """Return the mark of a session, with what is known of it; a new one starts from nothing."""
        name = blake2b(f"{tenant}\0{session}".encode(errors="replace"), digest_size=16).digest()
        slot = self._slot_of.get(name, 0)
        if not slot or self._numbers[slot * WORDS + STATE] == FREE:
            slot = slot or self._take()
            if not slot:
                return Mark()  # more sessions than slots
            self._slot_of[name] = slot
            at = slot * SLOT
            self._map[at : at + SLOT] = name + bytes(SLOT - len(name))
        self._ended.pop(name, None)
        self._numbers[slot * WORDS + STATE] = USED
        return Mark(self._numbers, slot * WORDS)

    def _take(self) -> int:
        """Return a slot that nobody uses: a free one, or else of the session longest ended."""
        if self._free:
            return self._free.pop()
        if self._high < self._slots:
            self._high += 1
            self._numbers[HIGH] = self._high
            return self._high
        if not self._ended:
            ended = [each for each in self._slot_of.items() if self._state(each[1]) != USED]
            ended.sort(key=lambda each: self._numbers[each[1] * WORDS + TIME])
            self._ended = dict(ended)
        for name, slot in list(self._ended.items()):
            del self._ended[name]
            if self._state(slot) != USED:
                del self._slot_of[name]
                return slot
        return 0

    def _state(self, slot: int) -> int:
        return self._numbers[slot * WORDS + STATE]

    def sweep(self) -> None:
        """Note as ended what no kernel lives on of, now that all have been adopted."""
        for slot in self._ended.values():
            if self._state(slot) == USED:
                Mark(self._numbers, slot * WORDS).orphan()

    def close(self) -> None:
        """Let go of the file."""
        with suppress(BufferError):  # a session is still there: it goes with the process
            self._numbers.release()
            self._map.close()


def _mapped(path: Path, size: int) -> mmap.mmap:
    """Map the file, made anew unless it is ours, of this life of the machine and of this size."""
    head = MAGIC + _boot() + size.to_bytes(8, "little")
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            known = os.fstat(descriptor).st_size == size
            if not known or os.pread(descriptor, len(head), 0) != head:
                os.ftruncate(descriptor, 0)
                # A page that has no room on a full disk would end us when it is written.
                os.posix_fallocate(descriptor, 0, size)
                os.pwrite(descriptor, head, 0)
            return mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
    except OSError as error:
        logger.warning("%s: %s; event numbers end with the broker", path, error.strerror)
        return mmap.mmap(-1, size)


def _boot() -> bytes:
    try:
        return blake2b(BOOT_ID.read_bytes(), digest_size=8).digest()
    except OSError:
        return bytes(8)


def beyond() -> int:
    """Return a number above all that can have been given: microseconds, which no session outruns.

    For a session whose numbers are not known: whoever saw some is told honestly that all between
    is missed, and mistakes none for another.
    """
    return time.time_ns() // 1000
