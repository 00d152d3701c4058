"""What an execution came to, gathered from its events. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .errors import ExecutionFailed
from .terminal import shown

Event = dict[str, Any]

# Of tables and of charts, for whoever cannot look at them.
DATAFRAME = "application/vnd.broker.dataframe+json"
CHART = "application/vnd.broker.chart+json"


@dataclass(frozen=True, slots=True)
class RemoteError:
    """The exception that ended the code: its class name, message and traceback lines.

    `short` is all of it in one line, with the line of the cell where that is known:
    `ZeroDivisionError: division by zero, cell line 3`.
    """

    name: str
    message: str
    traceback: tuple[str, ...] = ()
    short: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.message}" if self.message else self.name


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file of the session that the code has `created`, `modified` or `deleted`.

    `size` is in bytes, None for one that is gone.
    """

    path: str
    size: int | None
    change: str


@dataclass(frozen=True, slots=True)
class Result:
    """One execution's outcome.

    `status` is ok, error, timeout, interrupted, cancelled, aborted or lost. `state` tells whether
    the variables of earlier executions were there: `warm` if they were, `fresh` in a new session,
    `lost` when an earlier kernel had ended, for the `reason`. `duration` is in seconds. `truncated`
    tells of text that was left out: how many characters were `shown` of the `total`, and the `file`
    of the session that has them. `stdout` and `stderr` are as they came, `\\r` and all.
    """

    status: str
    events: tuple[Event, ...]
    stdout: str = ""
    stderr: str = ""
    data: Mapping[str, Any] | None = None
    displays: tuple[Mapping[str, Any], ...] = ()
    error: RemoteError | None = None
    reason: str | None = None
    generation: int = 0
    state: str = "warm"
    duration: float = 0.0
    execution_count: int | None = None
    truncated: Mapping[str, Any] | None = None
    files: tuple[FileChange, ...] = ()  # what it changed; the first of many, see `files_cut`
    files_cut: bool = False  # more was changed than is listed

    @property
    def value(self) -> str | None:
        """Return the text of the last expression's value, or None when there was none."""
        return None if self.data is None else _text(self.data)

    @property
    def text(self) -> str:
        """Return all text in the order in which it came, as a terminal shows it in the end.

        Of a progress bar that is its last state.
        """
        parts: list[str] = []
        for event in self.events:
            match event.get("type"):
                case "stream":
                    parts.append(str(event.get("text", "")))
                case "display" | "result":
                    parts.append((_text(event.get("data", {})) or "") + "\n")
                case "error":
                    parts.append("\n".join(event.get("traceback", ())) + "\n")
        return shown("".join(parts))

    @property
    def dataframes(self) -> list[Mapping[str, Any]]:
        """Return every table, the displayed ones first: its `columns`, `shape` and first `rows`."""
        return [data[DATAFRAME] for data in self._rich() if isinstance(data.get(DATAFRAME), dict)]

    @property
    def charts(self) -> list[Mapping[str, Any]]:
        """Return every chart, likewise: its `title` and `axes`, each with its `series`."""
        return [data[CHART] for data in self._rich() if isinstance(data.get(CHART), dict)]

    @property
    def images(self) -> list[bytes]:
        """Return every PNG image, the displayed ones first."""
        found = (image_bytes(data["image/png"]) for data in self._rich() if "image/png" in data)
        return [image for image in found if image is not None]

    @property
    def html(self) -> str | None:
        """Return the HTML of the value, or else of the last display that has any."""
        return next(
            (str(data["text/html"]) for data in reversed(self._rich()) if "text/html" in data),
            None,
        )

    def raise_for_status(self) -> Result:
        """Return this result, or raise ExecutionFailed when its status is not `ok`."""
        if self.status == "ok":
            return self
        told = str(self.error) if self.error else self.reason
        raise ExecutionFailed(f"{self.status}: {told}" if told else self.status, self)

    def _rich(self) -> list[Mapping[str, Any]]:
        return [*self.displays, *([] if self.data is None else [self.data])]


def collect(events: Iterable[Event]) -> Result:
    """Gather the events of one execution, of which the last is its `done`."""
    kept = tuple(events)
    streams: dict[str, list[str]] = {"stdout": [], "stderr": []}
    displays: list[Event] = []
    data: Mapping[str, Any] | None = None
    error: RemoteError | None = None
    state, reason = "warm", None
    done: Event = {}
    for event in kept:
        match event.get("type"):
            case "stream":
                streams.setdefault(str(event.get("name")), []).append(str(event.get("text", "")))
            case "display":
                _show(displays, event)
            case "result":
                data = event.get("data", {})
            case "error":
                error = remote_error(event)
            case "session" if state != "lost" or event.get("state") == "restored":
                # The end of a kernel and its successor are told apart; the loss is what counts.
                state, reason = str(event.get("state", state)), event.get("reason")
            case "done":
                done = event
    if state != "lost":  # a loss is told to each client once, whoever's execution came first
        state = str(done.get("state", state))
    return Result(
        status=str(done.get("status", "lost")),
        events=kept,
        stdout="".join(streams["stdout"]),
        stderr="".join(streams["stderr"]),
        data=data,
        displays=tuple(display.get("data", {}) for display in displays),
        error=error,
        reason=done.get("reason") or reason,
        generation=int(done.get("generation") or 0),
        state=state,
        duration=float(done.get("duration") or 0.0),
        execution_count=done.get("execution_count"),
        truncated=done.get("truncated"),
        files=tuple(map(_file_change, done.get("files") or ())),
        files_cut=bool(done.get("files_more") or done.get("files_cut")),
    )


def _file_change(told: Mapping[str, Any]) -> FileChange:
    size = told.get("size")
    return FileChange(
        str(told.get("path")), size if isinstance(size, int) else None, str(told.get("change"))
    )


def collect_answer(answer: Mapping[str, Any]) -> Result:
    """Gather the HTTP answer of an execution that was waited for."""
    events: list[Event] = [*answer.get("outputs", ())]
    done: Event = {**answer.get("done", {}), "type": "done", "status": answer.get("status")}
    done.setdefault("generation", answer.get("generation"))
    if not any(event.get("type") == "session" for event in events):
        events.insert(0, {"type": "session", "state": answer.get("state", "warm")})
    return collect([*(event for event in events if event.get("type") != "done"), done])


def remote_error(event: Mapping[str, Any]) -> RemoteError:
    """Return the exception an `error` event tells of."""
    told = RemoteError(
        str(event.get("name", "")),
        str(event.get("message", "")),
        tuple(event.get("traceback", ())),
    )
    return replace(told, short=str(event.get("short") or told).partition("\n")[0])


def image_bytes(value: object) -> bytes | None:
    """Return the bytes of a binary value: as they are, or from either base64 form."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Mapping):
        value = value.get("base64")
    if not isinstance(value, str):
        return None
    try:
        return base64.b64decode(value)
    except ValueError:  # also of text that is not ASCII
        return None


def _show(displays: list[Event], event: Event) -> None:
    """Add a display; an update takes the place of the display it updates."""
    if event.get("update") and event.get("display_id"):
        for index, earlier in enumerate(displays):
            if earlier.get("display_id") == event["display_id"]:
                displays[index] = event
                return
    displays.append(event)


def _text(data: Mapping[str, Any]) -> str | None:
    text = data.get("text/plain")
    return None if text is None else str(text)
