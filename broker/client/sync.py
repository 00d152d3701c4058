"""One session, for threads; `Broker` gives it."""

from __future__ import annotations

import queue
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, Self

from .calls import (
    BatchResult,
    Cell,
    batch_fields,
    call_fields,
    collect_batch,
    execute_fields,
    heard,
    returned,
)
from .door import Door, Row
from .errors import BrokerError, OutputLost, SessionGone
from .files import Files
from .find import Place
from .functions import Function
from .inputs import answering
from .line import Dialler, Line, Watch
from .losses import OnLost, check_state
from .result import Event, Result, collect
from .resume import RECONNECT
from .serving import ToolServer
from .socket import PING_INTERVAL
from .wire import Deliver, Limits, socket_url


class Session:
    """One session's connection. Leaving the `with` block lets go of the session and keeps it.

    Its methods may be called from several threads; executions run in the order of their calls.

    A connection that was lost is made anew for up to `reconnect` seconds, and what had been asked
    for goes on as if nothing had happened: each event once, and in order. What cannot go on raises
    StateLost or OutputLost. With `reconnect=0` a lost connection is ConnectionLost, and made anew
    by the next call. `ping_interval` is in seconds: a peer that vanished is missed after two.

    `tenant` is for the operator: another tenant's session is joined, and never made.

    `on_lost="raise"` makes StateLost of a result that is lost, and of the first after a loss that
    was not raised yet and no restart of one's own; otherwise its `state` or `status` says so.
    """

    def __init__(
        self,
        place: Place,
        name: str,
        profile: str | None = None,
        limits: Limits | None = None,
        *,
        tenant: str | None = None,
        reconnect: float = RECONNECT,
        on_lost: OnLost = "result",
        ping_interval: float = PING_INTERVAL,
    ) -> None:
        self.name = name
        self.tenant = tenant
        self.profile = profile
        self.limits = limits
        self.on_lost = on_lost
        self._place = place
        self._reconnect = reconnect
        self._ping_interval = ping_interval
        self._creates = True
        self.tools = ToolServer(
            place,
            lambda: socket_url(place.url, name, profile=profile, limits=limits, tenant=tenant),
        )
        self._line = Line(name, self._dialler())
        self._watches: set[Watch] = set()

    @classmethod
    def _visiting(cls, *about: Any, creates: bool, others: Deliver, **options: Any) -> Self:
        """Return a session that is made only if told so; `others` hears what others cause."""
        session = cls(*about, **options)
        session._creates = creates
        session._line.link.others = others
        return session

    @property
    def generation(self) -> int:
        """Return the generation last heard of; 0 before the first."""
        return self._line.link.generation

    @property
    def files(self) -> Files:
        """Return the session's files; the session starts, or is joined, at their first use."""
        return Files(Door(self._place), self.name, self.attach, tenant=self.tenant)

    def execute(
        self,
        code: str,
        *,
        timeout: float | None = None,
        on_event: Callable[[Event], object] | None = None,
        **options: Any,
    ) -> Result:
        """Run code and return what came of it; `on_event` sees each event as it comes.

        `timeout` in seconds is the broker's to keep. `options` are further fields of the
        protocol's `execute`: `inputs`, values by the name of the variable that each is to be;
        `env` and `cwd`, for as long as it runs; `silent`, `store_history`, `stop_on_error`,
        `metadata`. `on_input(prompt, password)` returns the line that code asks for, or None for
        the end of input, which is what such code gets without it.
        A failure of the code is a result; a refusal of the request raises BrokerError.
        """
        return self._collected(self.stream(code, timeout=timeout, **options), on_event)

    def stream(
        self, code: str, *, timeout: float | None = None, **options: Any
    ) -> Generator[Event, None, None]:
        """Run code and yield its events as they come, `done` last.

        To stop listening early does not stop the code: `interrupt()` does. OutputLost is raised
        behind `done` when events before it are gone.
        """
        on_input, inputs = options.pop("on_input", None), options.pop("inputs", None)
        fields = execute_fields(inputs, **options)
        asking = self._ask("execute", code=code, timeout=timeout, **fields)
        yield from answering(asking, on_input, self._line)

    def batch(
        self,
        cells: Iterable[Cell],
        *,
        stop_on_error: bool = True,
        on_event: Callable[[Event], object] | None = None,
    ) -> BatchResult:
        """Run cells one after the other, with nothing in between; return their results.

        A cell is code, or {"code": …, "timeout": s}. Those after one that fails do not run, unless
        told otherwise; the result of each has the status `aborted`.
        """
        fields = batch_fields(cells, stop_on_error=stop_on_error)
        asking = answering(self._ask("batch", **fields), None, self._line)
        batch = collect_batch(heard(asking, on_event))
        for result in batch:
            check_state(result, self.on_lost, self._line.link)
        return batch

    def call(
        self,
        function: Function,
        /,
        *args: Any,
        _timeout: float | None = None,
        _env: Mapping[str, str] | None = None,
        _cwd: str | None = None,
        _on_event: Callable[[Event], object] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call a function in the session, and return what it returns, as plain data.

        The function is one of the session's, by its name; or source; or a function here, whose
        source is sent, and nothing of what is around it. Raises ExecutionFailed if it fails. What
        has no plain form is returned as `Shown`, its MIME bundle.
        """
        options = {"timeout": _timeout, "env": _env, "cwd": _cwd}
        fields = call_fields(function, args, kwargs, **options)
        asking = answering(self._ask("call", **fields), None, self._line)
        return returned(self._collected(asking, _on_event))

    def configure(
        self, env: Mapping[str, str | None] | None = None, cwd: str | None = None
    ) -> None:
        """Set environment variables and the directory of all that is asked for from now on.

        None removes a variable. They hold for the session's later kernels, too. Where there is no
        such directory, the next execution says so, runs nothing, and the former one stays.
        """
        self._answer("configure", env=env, cwd=cwd)
        self._line.link.surround(env, cwd)

    def watch(self, after: int | None = None) -> Generator[Event, None, None]:
        """Yield every event of the session, whoever caused it, on a connection that only watches.

        With `after`, those first that came later than that number. A lost connection is made anew;
        where events are gone, a `session` event says which in `missed`. `detach()` ends it. Raises
        UnknownSession if there is no such session, SessionGone when it ends.
        """
        watch = Watch(self._dialler(watch=True), after)
        self._watches.add(watch)
        try:
            yield from watch.events()
        finally:
            self._watches.discard(watch)

    def interrupt(self, target: str | None = None) -> Any:
        """Interrupt what runs, or only `target`; raises NotRunning when it does not run."""
        return self._answer("interrupt", target=target)

    def cancel(self, target: str) -> Any:
        """Take the execution `target` (an event's `id`) out of the queue; raises NotRunning."""
        return self._answer("cancel", target=target)

    def complete(self, code: str, cursor: int | None = None) -> Any:
        """Return how the code may go on at the cursor, its end by default.

        `matches` go from `cursor_start` to `cursor_end`. Raises KernelBusy.
        """
        return self._answer("complete", code=code, cursor=len(code) if cursor is None else cursor)

    def inspect(self, code: str, cursor: int | None = None) -> Any:
        """Return what is known of the name at the cursor: `found`, `data` by MIME type."""
        return self._answer("inspect", code=code, cursor=len(code) if cursor is None else cursor)

    def variables(self, names: Sequence[str] | None = None, *, most: int | None = None) -> Any:
        """Return the session's variables, also while it runs; raises KernelBusy."""
        return self._answer("variables", names=None if names is None else [*names], max=most)

    def history(self, most: int | None = None) -> Any:
        """Return the last cells that have run: `cells`, the newest last."""
        return self._answer("history", max=most)

    def notebook(self) -> Row:
        """Return what the session has run as a notebook (nbformat 4.5)."""
        return Door(self._place).notebook(self.name, self.tenant)

    def restart(self, *, keep_files: bool = True) -> Any:
        """Give the session a new kernel: generation + 1, no variables, its files or none."""
        answer = self._answer("restart", keep_files=keep_files)
        self._line.link.known_loss = answer["generation"]
        return answer

    def close(self) -> Any:
        """End the session: its kernel is gone. `detach()` keeps it."""
        try:
            return self._answer("close")
        except SessionGone:
            return None  # someone else was faster
        finally:
            self.detach()

    def ping(self) -> None:
        """Return once the broker has answered."""
        self._answer("ping")

    def attach(self) -> None:
        """Connect now rather than at the first use; raises what the broker refuses with."""
        self._line.open()

    def detach(self) -> None:
        """Disconnect, and keep the session; an execution goes on without us."""
        for watch in tuple(self._watches):
            watch.close()
        self.tools.close()
        self._line.close()

    def __enter__(self) -> Self:
        self.attach()
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def _collected(
        self, coming: Iterable[Event], on_event: Callable[[Event], object] | None
    ) -> Result:
        events: list[Event] = []
        try:
            events.extend(heard(coming, on_event))
        except OutputLost as lost:
            if events and events[-1].get("type") == "done":
                lost.result = collect(events)
            raise
        return check_state(collect(events), self.on_lost, self._line.link)

    def _answer(self, kind: str, **fields: Any) -> Any:
        event: Event = {}
        for event in self._ask(kind, **fields):  # noqa: B007 - the last one is the answer
            pass
        return {k: v for k, v in event.items() if k not in ("type", "id", "seq")}

    def _ask(self, kind: str, **fields: Any) -> Generator[Event, None, None]:
        inbox: queue.SimpleQueue[Event | BrokerError] = queue.SimpleQueue()
        asked = self._line.ask(kind, inbox.put, **fields)
        try:
            while True:
                event = inbox.get()
                if isinstance(event, BrokerError):
                    raise event
                yield event
                if asked.ends_with(event):
                    asked.check()
                    return
        finally:
            self._line.link.forget(asked.id)

    def _dialler(self, *, watch: bool = False) -> Dialler:
        def address(url: str, after: int | None) -> str:
            asked: dict[str, Any] = {"after": after, "watch": watch, "tenant": self.tenant}
            if not watch:
                asked |= {"profile": self.profile, "limits": self.limits, "create": self._creates}
            return socket_url(url, self.name, **asked)

        return Dialler(
            self._place.url,
            address,
            self._place.token,
            reconnect=self._reconnect,
            ping_interval=self._ping_interval,
            patience=self._place.patience,
        )
