"""What `broker top` shows: rows with their rates, in an order, one of them selected. Pure.

Times are the caller's monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Row = dict[str, Any]
Name = tuple[str, str]  # tenant and session

# Rows off the screen that are measured with it: a sort by memory finds all in time.
EXTRA: Final = 8


def _name(row: Row) -> Name:
    return row["tenant"], row["session"]


def _text(row: Row) -> str:
    return " ".join(str(row[part]) for part in ("session", "tenant", "state", "profile")).lower()


def _number(name: str) -> Callable[[Row], float]:
    """Return what sorts by a number; a row without it is below all."""
    return lambda row: -1.0 if row[name] is None else float(row[name])


@dataclass(frozen=True, slots=True)
class Order:
    """One way to sort; `largest` comes first where it is about numbers."""

    title: str
    key: Callable[[Row], Any]
    largest: bool = True


# By the key that asks for it.
ORDERS: Final[Mapping[str, Order]] = {
    "c": Order("CPU %", _number("cpu_percent")),
    "m": Order("memory", _number("held")),
    "u": Order("USS", _number("uss")),
    "i": Order("idle", _number("idle")),
    "s": Order("state", lambda row: str(row["state"]), largest=False),
    "t": Order("cell time", _number("cell_seconds")),
    "n": Order("name", _name, largest=False),
}


@dataclass
class Ranking:
    """The sessions, as one who looks at them has arranged them."""

    order: str = "c"
    reverse: bool = False
    filter: str = ""
    selected: Name | None = None
    offset: int = 0  # rows above the screen
    rows: list[Row] = field(default_factory=list)  # as they are shown
    _all: list[Row] = field(default_factory=list)
    _used: dict[str, tuple[float, float]] = field(default_factory=dict)  # s of CPU, and when
    _rates: dict[str, float] = field(default_factory=dict)
    _memory: dict[str, tuple[Row, float]] = field(default_factory=dict)  # and when

    def take(self, rows: Sequence[Row], now: float) -> None:
        """Take in what the sessions are now."""
        self._all = [dict(row) for row in rows]
        live = {str(row["kernel"]) for row in rows}
        for known in (self._used, self._rates, self._memory):
            for kernel in known.keys() - live:
                del known[kernel]
        for row in rows:
            used = (row.get("usage") or {}).get("cpu_seconds")
            if used is not None:
                self._rate(row["kernel"], used, now)
        self._arrange()

    def measure(self, kernels: Sequence[Row], now: float) -> None:
        """Take in the memory of some kernels, and their time where no cgroup counts it."""
        counted = {row["kernel"] for row in self._all if row.get("usage")}
        for kernel in kernels:
            name = str(kernel["kernel"])
            self._memory[name] = kernel, now
            if name not in counted and kernel.get("cpu_seconds") is not None:
                self._rate(name, kernel["cpu_seconds"], now)
        self._arrange()

    def to_measure(self, height: int) -> list[str]:
        """Return the kernels to measure: those on the screen, and a few long ago or never."""
        shown = [row["kernel"] for row in self.screen(height) if row["kernel"]]
        rest = [row["kernel"] for row in self.rows if row["kernel"] and row["kernel"] not in shown]
        rest.sort(key=lambda kernel: self._memory.get(kernel, ({}, 0.0))[1])
        return shown + rest[:EXTRA]

    def _rate(self, kernel: str, used: float, now: float) -> None:
        before = self._used.get(kernel)
        self._used[kernel] = used, now
        if before is not None and now > before[1]:
            self._rates[kernel] = max(0.0, 100 * (used - before[0]) / (now - before[1]))

    def _arrange(self) -> None:
        for row in self._all:
            memory = self._memory.get(row["kernel"], ({}, 0.0))[0]
            usage = row.get("usage") or {}
            rate = self._rates.get(row["kernel"])
            row["cpu_percent"] = None if rate is None else round(rate, 1)
            row["pss"], row["uss"] = memory.get("pss"), memory.get("uss")
            row["held"] = row["pss"] if usage.get("memory") is None else usage["memory"]
            row["cell_seconds"] = row["cell"]["seconds"] if row.get("cell") else None
        order = ORDERS[self.order]
        wanted = [row for row in self._all if self.filter.lower() in _text(row)]
        wanted.sort(key=lambda row: (row["tenant"], row["session"]))
        wanted.sort(key=order.key, reverse=order.largest is not self.reverse)
        self.rows = wanted
        names = [_name(row) for row in wanted]
        if self.selected not in names:
            self.selected = names[0] if names else None

    def sort(self, key: str) -> None:
        """Sort by another key; by the same one, the other way round."""
        self.reverse = not self.reverse if key == self.order else False
        self.order = key
        self._arrange()

    def narrow(self, text: str) -> None:
        """Show only the sessions with this text in their name, tenant, state or profile."""
        self.filter = text
        self._arrange()

    def move(self, by: int) -> None:
        """Select another row."""
        if self.rows:
            at = min(max(0, self._at() + by), len(self.rows) - 1)
            self.selected = _name(self.rows[at])

    def screen(self, height: int) -> list[Row]:
        """Return the rows that fit, the selected one among them."""
        at = self._at()
        self.offset = max(0, min(self.offset, at, len(self.rows) - height))
        self.offset = max(self.offset, at - height + 1)
        return self.rows[self.offset : self.offset + height]

    def _at(self) -> int:
        return next((at for at, row in enumerate(self.rows) if _name(row) == self.selected), 0)
