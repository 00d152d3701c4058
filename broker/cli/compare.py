"""Whether a cell's outputs are what they were: as text, without what differs each time. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from broker.client.result import image_bytes
from broker.client.terminal import shown

from .cells import Cell, Event

CONTEXT = 3  # lines around a difference
COMPARED = 400  # lines from the first difference on: more cost their square
DIFF = 60  # lines of a difference that are kept
WIDTH = 400  # characters of each
# Notes of a notebook of ours: between the first and the last text of a cell, and at its end.
GAP = re.compile(r"\n?\[[\d,]{1,20} characters of text left out here(?:; [^\]\n]{1,300})?\]\n")
CUT = re.compile(r"\n\[[\d,]+ more of this cell's output and code were not kept\]\n\Z")
REDACTED = "[redacted "  # in code of ours that cannot run as it did

_UNIT = r"(?:ns|µs|μs|us|ms|s|secs?|seconds?)"
_NUMBER = r"\d{1,20}(?:[.,]\d{1,20}){0,6}(?:e[+-]?\d{1,4})?"  # bounded: text may be a stranger's
# What is never twice the same, and what is put in its place; first those that hold others.
PASSING: Sequence[tuple[re.Pattern[str], str]] = (
    (re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]"), ""),
    (re.compile(r"0x[0-9a-fA-F]{4,16}\b"), "0x…"),
    (re.compile(r"\[[\d:?]{4,9}<[^\]\n]{0,60}\]"), "[…]"),  # tqdm's
    (re.compile(rf"(?<![\w.])(?:\d{{1,4}}\s?(?:d|h|min) ){{0,3}}{_NUMBER}\s?{_UNIT}\b"), "… s"),
    (re.compile(r"(?<![\d,])[\d,]{1,20} loops? each\b"), "… loops each"),
    (re.compile(r"(?:/\S{0,200})?/ipykernel_\d+/\d+\.py|<ipython-input-[\w-]{1,80}>"), "Cell"),
    (re.compile(r"\bIn ?\[\d+\]"), "In […]"),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`same`, `different`, `error` (of a cell that had none), or `new`: nothing was recorded.

    `diff` says what differs; of a cell that fails, and did not, how.
    """

    kind: str
    diff: tuple[str, ...] = ()


def judge(recorded: Cell, outputs: Iterable[Event], status: str, why: str = "") -> Verdict:
    """Compare what a cell shows with what was recorded of it; `status` is how it ended now."""
    now, before = Sides(outputs), Sides(recorded.outputs)
    is_new = recorded.count is None and not recorded.outputs
    if status != "ok" and not (status == "error" and before.failed):
        return Verdict("new" if is_new else "error", tuple(clipped([why or status])))
    if is_new:
        return Verdict("new")
    if recorded.left_out and (gap := gap_of(recorded.outputs)) is not None:
        ends = Sides(recorded.outputs[:gap]), Sides(recorded.outputs[gap + 1 :])
        sides = around_gap(*ends, now)
    elif recorded.left_out or before.cut:
        # Only the beginning of the text is known to be all of what was there.
        most = min(len(before.out), len(now.out))
        sides = before.out[:most].split("\n"), now.out[:most].split("\n")
    else:
        sides = before.lines(), now.lines()
    if sides[0] == sides[1]:
        return Verdict("same")
    return Verdict("different", tuple(difference(*sides)))


def gap_of(outputs: Sequence[Event]) -> int | None:
    """Return which output is the note that some of the text was not kept."""
    is_gap = (
        output.get("name") == "stderr" and GAP.fullmatch(str(output.get("text", "")))
        for output in outputs
    )
    return next((at for at, found in enumerate(is_gap) if found), None)


def around_gap(first: Sides, last: Sides, now: Sides) -> tuple[list[str], list[str]]:
    """Return the lines that were kept of a long text, and as many of what is shown now."""
    before: list[str] = []
    shown: list[str] = []
    for kind in ("out", "err"):
        head, tail, text = (getattr(one, kind) for one in (first, last, now))
        one, other = (side.split("\n") if side else [] for side in (head, tail))
        lines = text.split("\n") if text else []
        whole = len(text) >= len(head) + len(tail)
        if whole and text.startswith(head) and text.endswith(tail):
            lines = [*one, *other]
        elif len(lines) > len(one) + len(other):
            lines = [*lines[: len(one)], *lines[len(lines) - len(other) :]]
        before += [*one, *other]
        shown += lines
    if not last.cut:
        before += [line for side in (first, last) for line in side.rest()]
        shown += now.rest()
    return before, shown


class Sides:
    """The outputs of a cell by what they are: each stream whole, and the rest in its order."""

    def __init__(self, outputs: Iterable[Event]) -> None:
        out: list[str] = []
        err: list[str] = []
        self._rest: list[str] = []
        self.failed = False
        for output in outputs:
            match output.get("type"):
                case "stream":
                    (err if output.get("name") == "stderr" else out).append(str(output["text"]))
                case "error":
                    self.failed = True
                    self._rest.append(f"{output.get('name')}: {output.get('message')}")
                case "display" | "result":
                    self._rest += pieces(output.get("data") or {})
        whole = "".join(err)
        self.cut = CUT.search(whole) is not None
        self.err = steady(CUT.sub("", whole))
        self.out = steady("".join(out))

    def lines(self) -> list[str]:
        """Return them as lines, in an order that does not depend on when a stream was flushed."""
        err = [f"stderr: {line}" for line in self.err.split("\n")] if self.err else []
        return [*(self.out.split("\n") if self.out else ()), *err, *self.rest()]

    def rest(self) -> list[str]:
        """Return the lines of what is no stream's."""
        return [line for piece in self._rest for line in steady(piece).split("\n")]


def pieces(data: Event) -> list[str]:
    """Return what a display shows: of an image that there is one and how large, else its text."""
    images = sorted(form for form in data if form.startswith("image/"))
    if images:
        return [f"[{form}{pixels(form, data[form])}]" for form in images]
    for form in ("text/plain", "text/markdown", "text/latex", "text/html"):
        if isinstance(data.get(form), str):
            return [data[form]]
    return [f"[{', '.join(sorted(map(str, data)))}]"] if data else []


def pixels(form: str, value: object) -> str:
    """Return the size of a PNG or GIF image, or nothing where it cannot be told."""
    content = image_bytes(value) or b""
    if form == "image/png" and content[12:16] == b"IHDR" and len(content) >= 24:
        width, height = content[16:20], content[20:24]
        return f" {int.from_bytes(width, 'big')}x{int.from_bytes(height, 'big')}"
    if form == "image/gif" and len(content) >= 10:
        width, height = content[6:8], content[8:10]
        return f" {int.from_bytes(width, 'little')}x{int.from_bytes(height, 'little')}"
    return ""


def steady(text: str) -> str:
    """Return text without addresses, times and colours, as a terminal shows it in the end."""
    text = shown(text)
    for pattern, instead in PASSING:
        text = pattern.sub(instead, text)
    return "\n".join(line.rstrip() for line in text.split("\n")).strip("\n")


def difference(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Return a unified diff of the first lines that differ."""
    pairs = zip(before, now, strict=False)
    alike = next((n for n, (one, other) in enumerate(pairs) if one != other), None)
    start = max(0, (min(len(before), len(now)) if alike is None else alike) - CONTEXT)
    one, other = (clipped(islice(side, start, start + COMPARED)) for side in (before, now))
    is_cut = max(len(before), len(now)) > start + COMPARED
    if is_cut:
        # What one side lacks at its cut is no difference, unless it is all that is known.
        steps = difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
        kind, end, _, other_end, _ = steps[-1]
        if kind != "equal" and len(steps) > 2:
            one, other = one[:end], other[:other_end]
    told = difflib.unified_diff(one, other, "recorded", "replayed", lineterm="", n=CONTEXT)
    lines = [*islice(told, DIFF)]
    if next(told, None) is not None or is_cut:
        lines.append("…")
    return lines


def clipped(lines: Iterable[str]) -> list[str]:
    """Return lines of bounded length."""
    return [line if len(line) <= WIDTH else f"{line[:WIDTH]}…" for line in lines]
