"""What the cell of a session asks of its clients while it runs, and what they answer.

Everything a kernel asks is a stranger's: bounded, checked, and refused here, whatever the code
inside believes it may do. A cell can call what a client of its session has registered, and nothing
else. What is answered is never kept: it may be a password.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any, Protocol

import orjson

from broker.audience import Audience
from broker.errors import BadMessage, Forbidden, NotRunning, QueueFull, TooLarge
from broker.execution import Execution
from broker.outputs import Event, plain
from broker.replay import size_of
from broker.requests import InputReply, ToolResult, Tools
from broker.roles import Client, SessionKernel, SessionLimits
from broker.tagged import packed, unpacked
from broker.tools import Offer, Offers
from kernels.messages import Message

MOST_ARGUMENTS = 1 << 20  # bytes of one call's, as JSON; as in the kernel
MOST_RESULT = 4 << 20  # bytes, as JSON
PROMPT = 4096  # characters
NUMBER = 64  # characters of a kernel's own number of a call
REFUSED = "\x04"  # what other kernels take for the end of input
ENDED = "the execution has ended"


class Place(Protocol):
    """Where the cell runs: a session, as it is seen here."""

    audience: Audience
    kernel: SessionKernel | None
    limits: SessionLimits

    def kill(self, reason: str) -> None:
        """End the kernel at once."""


@dataclass(slots=True, eq=False)
class Question:
    """A line of input that the cell waits for."""

    event: Event
    asked: object  # the kernel's own number of it, where it gives one
    size: int


@dataclass(slots=True, eq=False)
class Call:
    """A call of a host tool that is open. `client` answers it, and nobody else."""

    event: Event
    number: str  # the kernel's own
    client: Client | None  # None for one of an earlier broker's, until it comes back
    execution: Execution | None
    size: int


class Dialogue:
    """The questions and calls of one session's cell."""

    def __init__(self, place: Place, emit: Callable[[Execution, Event], None]) -> None:
        self._place = place
        self._emit = emit  # an event of an execution, as all others of it are
        self._question: Question | None = None
        self._calls: dict[str, Call] = {}  # by the id that clients see
        self._numbers: dict[str, str] = {}  # of kernel's own numbers, the ids
        self._offers = Offers()
        self._told: object = ()  # the tools that the kernel knows of
        self._away: dict[Client, asyncio.TimerHandle] = {}
        # Until then, what was served under an earlier broker may be served again.
        self._returning: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        asks = "asks" if self._question is not None else "asks nothing"
        return f"<Dialogue: {asks}, {len(self._calls)} calls, {self._offers!r}>"

    # The kernel

    def begin(self, *, warm: bool) -> None:
        """Take up a kernel; one that is `warm` may know of tools that there were.

        What its cell has asked of an earlier broker, it asks again: a line of input of whoever is
        there, calls of whoever comes back to serve them.
        """
        self._told = None if warm else ()
        kernel = self._place.kernel
        if warm and kernel is not None and kernel.is_ours:
            self._returning = self._after_grace(self._expect_nobody)
            try:
                kernel.channels.ask_again()
            except BlockingIOError:
                self._place.kill("bad_frame")

    def brief(self, kernel: SessionKernel, content: dict[str, Any]) -> None:
        """Add to a request to run a cell what tools there are, if the kernel knows of others."""
        if self._told is not self._offers.described and kernel.is_ours:
            self._told = self._offers.described
            content["broker"] = {**content.get("broker", {}), "tools": self._offers.told()}

    def end(self) -> None:
        """End what is open: the execution has, and a thread that it left may still wait."""
        question, self._question = self._question, None
        if question is not None and _number(question.asked):  # others might keep it for the next
            self._refuse(ENDED, question.asked)
        for call in [*self._calls.values()]:
            self._fail(call, "Cancelled", ENDED)
        self._stop_expecting()

    def lose(self) -> None:
        """Forget what is open: the kernel is lost."""
        self._stop_expecting()
        self._question = None
        self._calls.clear()
        self._numbers.clear()

    def take(self, message: Message, running: Execution | None, *, own: bool, busy: bool) -> bool:
        """Take what a kernel asks; return whether it stands for anything.

        `own` says that it is asked for what runs, and `busy` that anything runs.
        """
        if message.type == "input_request":
            return self._ask(message, running if own else None)
        number = message.metadata.get("call")
        if not isinstance(number, str) or not 0 < len(number) <= NUMBER:
            return False
        if message.type == "broker_tool_call":
            return self._call(message, number, running, busy=busy)
        if message.type == "broker_tool_cancel":
            return self._cancel(number)
        return False

    def _ask(self, message: Message, running: Execution | None) -> bool:
        asked = message.metadata.get("asked")
        if self._question is not None and _number(asked) == _number(self._question.asked) != {}:
            return False  # asked again before it was known that we had heard it
        if running is None or not running.answers:
            self._refuse("nobody can answer an input request of this execution", asked)
            return False
        if (before := self._question) is not None and not running.affords(before.size):
            self._refuse("too many input requests that nobody could answer", asked)
            return False
        content = {} if message.is_heavy else message.content
        prompt = content.get("prompt")
        event: Event = {
            "type": "input_request",
            "id": running.id,
            "prompt": _prompt(prompt) if isinstance(prompt, str) else "",
            "password": content.get("password") is True,
        }
        if number := _number(asked):
            event["question"] = number["asked"]
        self._question = Question(event, asked, size_of(event))
        self._tell(running, event)
        return True

    def _refuse(self, why: str, asked: object) -> None:
        self._send("input_reply", {"value": REFUSED, "refused": why, **_number(asked)})

    def _call(
        self, message: Message, number: str, running: Execution | None, *, busy: bool
    ) -> bool:
        if number in self._numbers:
            return False
        name = message.metadata.get("name")
        name = name if isinstance(name, str) and len(name) <= NUMBER else ""
        offer = self._offers.find(name)
        arguments: dict[str, Any] = {}
        expected = offer is None and self._returning is not None and name != ""
        refusal = ("NotServed", f"nobody serves {name}") if offer is None and not expected else None
        if not busy:
            refusal = "NotRunning", "a tool is called while a cell runs, and none does"
        elif (most := self._place.limits.tool_calls) <= len(self._calls):
            refusal = "TooManyCalls", f"{most} calls are open already"
        elif message.is_heavy or len(message.content_bytes) > MOST_ARGUMENTS:
            refusal = "TooLarge", f"the arguments of {name} take over {MOST_ARGUMENTS:,} bytes"
        elif refusal is None:
            try:
                arguments = _arguments(message.content)
            except ValueError as error:
                refusal = "BadArguments", f"{name}: {error}"
        if refusal is not None:
            told = {"name": refusal[0], "message": refusal[1]}
            self._send("broker_tool_result", {"call": number, "error": told})
            return False
        event: Event = {"type": "tool_call"}
        if running is not None:
            event["id"] = running.id
        event |= {"call": self._name_of(number), "name": name, **arguments}
        client = None if offer is None else offer.client
        call = Call(event, number, client, running, size_of(event))
        self._calls[event["call"]], self._numbers[number] = call, event["call"]
        if offer is not None and not offer.away:
            self._hand_over(call, offer)
        return True

    def _name_of(self, number: str) -> str:
        """Return the id of a call that clients see: the same whichever broker tells of it.

        So whoever has served a call already knows it, and answers without serving it twice.
        """
        kernel = self._place.kernel
        name = "" if kernel is None else kernel.kernel_id
        return blake2b(f"{name}\0{number}".encode(errors="replace"), digest_size=16).hexdigest()

    def _hand_over(self, call: Call, offer: Offer) -> None:
        """Tell of a call, with the registration that is to serve it."""
        call.client = offer.client
        self._tell(call.execution, {**call.event, "tools": offer.registration})

    def _cancel(self, number: str) -> bool:
        call = self._calls.get(self._numbers.get(number, ""))
        # What nobody has answered is paid for, or a kernel could ask and take back for ever.
        if call is None or call.execution is None or not call.execution.affords(call.size):
            return False
        self._forget(call)
        return True

    # Clients

    def waiting(self) -> list[Event]:
        """Return what waits for an answer, for those who come meanwhile; calls by name alone."""
        asked = [] if self._question is None else [dict(self._question.event)]
        calls = [call.event for call in self._calls.values()]
        short = ("type", "id", "call", "name")
        return asked + [{key: one[key] for key in short if key in one} for one in calls]

    def answer(self, reply: InputReply) -> None:
        """Answer the question that waits. Raises NotRunning if none does, or another one."""
        question = self._question
        if question is None:
            raise NotRunning("nothing waits for input")
        if reply.question not in (None, question.event.get("question")):
            raise NotRunning("question: another one waits by now", field="question")
        value = REFUSED if reply.value is None else reply.value
        self._post("input_reply", {"value": value, **_number(question.asked)}, "value")
        self._question = None

    def register(self, client: Client, request: Tools) -> dict[str, Any]:
        """Take the tools that a client serves from now on. Raises BadMessage, TooLarge."""
        kernel = self._place.kernel
        if kernel is not None and not kernel.is_ours:
            raise BadMessage(
                "tools: code in this kernel cannot call any; only the broker's own kernels do",
                field="tools",
            )
        self._offers.register(client, request)
        for call in [*self._calls.values()]:
            offer = self._offers.find(call.event["name"])
            is_waiting = call.client is None or call.client in self._away
            if is_waiting and offer is not None and offer.client is client:
                self._hand_over(call, offer)
        return {"tools": [tool.name for tool in request.tools]}

    def result(self, client: Client, result: ToolResult) -> None:
        """Answer a call. Raises NotRunning, Forbidden for another's, TooLarge, QueueFull."""
        call = self._calls.get(result.call)
        if call is None:
            raise NotRunning("call: no such call is open", field="call")
        if call.client is not client:
            raise Forbidden("call: another client serves this tool", field="call")
        if (error := result.error) is not None:
            self._settle(call, error={"name": error.name, "message": error.message})
            return
        value = packed(result.value)
        if (size := len(orjson.dumps(value))) > MOST_RESULT:
            raise TooLarge(f"value: {size:,} bytes; at most {MOST_RESULT:,}", field="value")
        self._settle(call, value=value)

    def leave(self, client: Client) -> None:
        """Note that a client has gone: what it serves waits for it, for a while."""
        serves = any(call.client is client for call in self._calls.values())
        if self._offers.leave(client) or serves:
            self._away[client] = self._after_grace(partial(self._give_up, client))

    def close(self) -> None:
        """Forget everything: the session has ended."""
        for timer in self._away.values():
            timer.cancel()
        self._away.clear()
        self._offers = Offers()  # else who leaves now would be waited for
        self.lose()

    def _give_up(self, client: Client) -> None:
        del self._away[client]
        self._offers.forget(client)
        for call in [one for one in self._calls.values() if one.client is client]:
            self._fail(call, "NotServed", f"the client that serves {call.event['name']} has gone")

    def _after_grace(self, act: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._place.limits.tool_grace, act)

    def _stop_expecting(self) -> None:
        if self._returning is not None:
            self._returning.cancel()
            self._returning = None

    def _expect_nobody(self) -> None:
        self._returning = None
        for call in [one for one in self._calls.values() if one.client is None]:
            self._fail(call, "NotServed", f"nobody has come back to serve {call.event['name']}")

    # Both

    def _settle(self, call: Call, **answer: Any) -> None:
        self._post("broker_tool_result", {"call": call.number, **answer}, "call")
        self._forget(call)

    def _fail(self, call: Call, name: str, message: str) -> None:
        self._forget(call)
        error = {"name": name, "message": message}
        self._send("broker_tool_result", {"call": call.number, "error": error})

    def _forget(self, call: Call) -> None:
        del self._calls[call.event["call"]], self._numbers[call.number]

    def _tell(self, execution: Execution | None, event: Event) -> None:
        if execution is None:
            self._place.audience.emit(dict(event))
            return
        if (started := execution.late_start()) is not None:
            self._emit(execution, started)
        self._emit(execution, dict(event))

    def _send(self, kind: str, content: dict[str, Any]) -> None:
        try:
            self._post(kind, content, "")
        except QueueFull:  # it asks and asks, and reads no answers
            self._place.kill("bad_frame")

    def _post(self, kind: str, content: dict[str, Any], field: str) -> None:
        if self._place.kernel is None:
            return
        try:
            self._place.kernel.channels.send("stdin", kind, content)
        except BlockingIOError:
            raise QueueFull("the kernel takes no answers now", field=field or None) from None


def _number(asked: object) -> dict[str, str]:
    return {"asked": asked} if isinstance(asked, str) and len(asked) <= NUMBER else {}


def _prompt(text: str) -> str:
    left = len(text) - PROMPT
    return plain(text if left <= 0 else f"{text[:PROMPT]} [{left:,} characters left out]")


def _arguments(content: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call. Raises ValueError."""
    args, kwargs = content.get("args"), content.get("kwargs")
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise ValueError("the arguments are a list and a map")
    # Names as they are: one that begins with `$` is no tag.
    named = {name: unpacked(value) for name, value in kwargs.items()}
    return {"args": unpacked(args), "kwargs": named}
