"""The terminal of `broker top`: keys in, tables out, until `q`."""

from __future__ import annotations

import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .keys import Keys, raw
from .ranking import ORDERS, Ranking
from .sampling import Sample, Sampler, Source
from .text import console, printable
from .top import FIRST, headline, made, nothing

if TYPE_CHECKING:
    from rich.console import Group

    from broker.client import Broker

FRAME = 4  # lines that are no rows: the headline, an empty one, the titles, the foot
HELP = "↑↓ select  k kill  i interrupt  / filter  c m u I s t n sort  q quit"


class View:
    """What one person looks at, and does."""

    def __init__(self, broker: Broker, source: Source, ranking: Ranking, interval: float) -> None:
        self._broker = broker
        self._source = source
        self._ranking = ranking
        self._sampler = Sampler(self._look, interval)
        self._lock = threading.Lock()
        self._sample: Sample | None = None
        self._message = ""
        self._is_away = False  # nobody answered, and the message says so
        self._asked: tuple[str, str] | None = None  # whose end is to be confirmed
        self._typing: str | None = None  # the filter, while it is typed
        self._ended = False
        self._console = console()

    def run(self) -> None:
        """Show and obey, until one quits."""
        from rich.live import Live

        before = signal.signal(signal.SIGWINCH, lambda *_: self._sampler.tell())
        try:
            with (
                raw(sys.stdin.fileno()) as keys,
                Live(self._drawn(), console=self._console, screen=True, auto_refresh=False) as live,
                self._sampler,
            ):
                while not self._ended:
                    self._wait(keys)
                    live.update(self._drawn(), refresh=True)
        except (KeyboardInterrupt, EOFError):
            pass
        finally:
            signal.signal(signal.SIGWINCH, before)

    def _wait(self, keys: Keys) -> None:
        ready, _, _ = select.select([keys.descriptor, self._sampler.descriptor], [], [])
        if self._sampler.descriptor in ready:
            self._sampler.heard()
        if keys.descriptor in ready:
            for key in keys.read():
                with self._lock:
                    self._press(key)

    @property
    def _height(self) -> int:
        return max(1, self._console.size.height - FRAME)

    # In the sampler's thread

    def _look(self) -> None:
        from broker.client import BrokerError

        try:
            sample = self._source.sample()
            is_first = self._sample is None
            with self._lock:
                self._sample = sample
                self._ranking.take(sample.rows, sample.at)
                wanted = self._ranking.to_measure(self._height)
                if self._is_away:
                    self._is_away, self._message = False, ""
            self._sampler.tell()
            measured = self._source.measure(wanted)
            with self._lock:
                self._ranking.measure(measured, time.monotonic())
        except BrokerError as error:
            self._is_away = True
            self._say(f"{error.message}; trying again")
            return
        if is_first:  # a rate takes two
            threading.Timer(FIRST, self._sampler.hurry).start()

    def _say(self, text: str) -> None:
        self._message = printable(text)
        self._sampler.tell()

    # Keys

    def _press(self, key: str) -> None:
        self._message = ""
        if self._asked is not None:
            self._confirm(key)
        elif self._typing is not None:
            self._type(key)
        elif (steps := self._steps().get(key)) is not None:
            self._ranking.move(steps)
        elif key in ORDERS and key != "i":
            self._ranking.sort(key)
        elif (action := self._actions().get(key)) is not None:
            action()

    def _steps(self) -> dict[str, int]:
        page, every = self._height, len(self._ranking.rows)
        steps = {"up": -1, "K": -1, "down": 1, "j": 1, "page up": -page, "page down": page}
        return {**steps, "home": -every, "end": every}

    def _actions(self) -> dict[str, Callable[[], None]]:
        return {
            "I": lambda: self._ranking.sort("i"),
            "k": self._ask,
            "i": self._interrupt,
            "/": lambda: setattr(self, "_typing", ""),
            "escape": lambda: self._ranking.narrow(""),
            " ": self._sampler.hurry,
            "q": lambda: setattr(self, "_ended", True),
            "stop": lambda: setattr(self, "_ended", True),
        }

    def _ask(self) -> None:
        self._asked = self._ranking.selected

    def _confirm(self, key: str) -> None:
        (tenant, name), self._asked = self._asked or ("", ""), None
        if key in ("y", "Y"):
            end = self._broker.kill
            self._do(f"{name} ended", lambda: end(name, tenant=tenant))
        else:
            self._message = f"{name} lives on"

    def _interrupt(self) -> None:
        if self._ranking.selected is not None:
            tenant, name = self._ranking.selected
            interrupt = self._broker.interrupt
            self._do(f"{name} interrupted", lambda: interrupt(name, tenant=tenant))

    def _type(self, key: str) -> None:
        text = self._typing or ""
        if key in ("enter", "escape"):
            self._typing = None
            text = text if key == "enter" else ""
        elif key == "backspace":
            self._typing = text = text[:-1]
        elif len(key) == 1 and key.isprintable():
            self._typing = text = text + key
        self._ranking.narrow(text)

    def _do(self, done: str, ask: Callable[[], Any]) -> None:
        """Ask the broker for something, without keeping the screen waiting."""
        from broker.client import BrokerError

        def work() -> None:
            try:
                ask()
                self._say(done)
            except BrokerError as error:
                self._say(error.message)
            self._sampler.hurry()

        threading.Thread(target=work, daemon=True).start()

    # The picture

    def _drawn(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        with self._lock:
            ranking, sample = self._ranking, self._sample
            parts: list[Any] = []
            if sample is None:
                parts.append(Text("looking …"))
            elif not sample.rows:
                parts.append(Text(nothing(sample.node)))
            else:
                head = headline(ranking, sample.node, sample.total)
                parts.append(Text(head, style="bold", no_wrap=True, overflow="ellipsis"))
                parts.append(Text())
                rows, width = ranking.screen(self._height), self._console.size.width
                parts.append(made(ranking, rows, width, selects=True))
            parts.append(Text(self._foot(), style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*parts)

    def _foot(self) -> str:
        if self._asked is not None:
            tenant, name = self._asked
            return f"end {name} of tenant {tenant}, with its variables and files? y/N"
        if self._typing is not None:
            return f"filter: {self._typing}_"
        return self._message or HELP
