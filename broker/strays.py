"""What a kernel publishes that is no running execution's: threads of earlier cells still print."""

from __future__ import annotations

from collections.abc import Iterator

from broker.execution import Event, Execution, OutputLimits
from broker.requests import Execute
from kernels.messages import Message

NOBODYS = Execute(id="-", code="")


class Strays:
    """Turn such messages into events; between two calls of `renew` no more than of an execution."""

    def __init__(self, limits: OutputLimits) -> None:
        self._limits = limits
        self._count: Execution | None = None  # made when there is something to count

    @property
    def bounded(self) -> bool:
        """Tell whether a bound kept back, of the message taken last, some or all."""
        return self._count is not None and self._count.bounded

    def renew(self) -> None:
        """Begin to count anew."""
        self._count = None

    def take(self, message: Message) -> Iterator[Event]:
        """Yield the events that a message on iopub stands for; they belong to no request."""
        if self._count is None:
            self._count = Execution(NOBODYS, None, 0.0, self._limits)
        for event in self._count.take("iopub", message):
            if event["type"] != "started":
                del event["id"]
                yield event
