"""The messages between one session's kernel and its Jupyter clients.

Code is run by the session, in its queue, under its bounds, and written into its transcript; what
the kernel says about it goes to every client as it is, but for the parent header, which is the
client's own. Other requests are passed on to the kernel, and it answers them between two cells, as
ever. The reply to a request of the shell channel follows all that was published about it.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from broker.errors import BrokerError, Forbidden, KernelBusy, NotRunning
from broker.execution import Event
from broker.jupyter.debuggers import DEBUG, Debuggers
from broker.jupyter.follower import Follower
from broker.jupyter.frames import Asked, Packet
from broker.jupyter.held import Held
from broker.jupyter.parents import Parents
from broker.jupyter.passage import INFO, Passage
from broker.jupyter.recall import told_again
from broker.jupyter.request import Request, Said, State
from broker.jupyter.room import Room
from broker.jupyter.translation import ended, execution_of, refusal, state_of, stderr
from broker.jupyter.voice import EXECUTE, Voice, utterance
from broker.requests import ExecuteRequest, InputReply
from broker.session import Session
from kernels.introductions import heard
from kernels.messages import Message

ABSENCE = 600.0  # s that the place of a client that has gone is kept
SETTLED = 10.0  # s after which a kernel's end is not its start's
MOST_AWAY = 8  # such places of a session; who has been away for longest loses it

CHANNELS = ("shell", "control")  # on which a kernel is asked

Json = dict[str, Any]


class Exchange:
    """The Jupyter side of one session. Made when its first Jupyter client comes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._followers: dict[str, Follower] = {}  # by the session_id that each has given
        self._away: dict[str, asyncio.TimerHandle] = {}
        self._executions: dict[str, Request] = {}  # by the execution's id
        self._passage = Passage(session, self._refuse, self._rest)
        self._held = Held(session, self._release)
        self._debuggers = Debuggers(session)
        self._parents = Parents(session)
        self._bound_at = self._loop.time()
        self._is_asked = True  # the kernel has been asked something, or was before
        self._voice = Voice(self._tell_all)
        self._room = Room(session, self._voice)

    def __repr__(self) -> str:
        return f"<Exchange: {len(self._followers)} clients, {self._passage!r}>"

    # Clients come and go

    def join(self, session_id: str, *, runs: bool, comes_back: bool = True) -> Follower:
        """Return the place of a client, which was kept for it or is new; it has no wire yet.

        Who `comes_back` has a name of its own, and may have been here under an earlier broker.
        """
        if (timer := self._away.pop(session_id, None)) is not None:
            timer.cancel()
        follower = self._followers.get(session_id)
        if follower is None:
            follower = self._followers[session_id] = Follower(self._told, runs=runs)
            if comes_back:
                self._remind(follower)
        follower.runs = runs
        return follower

    def _remind(self, follower: Follower) -> None:
        """Tell a newcomer what its kernel has said since an earlier broker's death.

        It may have been here before that, and wait for a cell's end: while places are kept.
        """
        last, since = self._session.adopted or (None, 0.0)
        if last is None or self._loop.time() > since + ABSENCE:
            return
        _, kept = self._session.audience.since(last)
        for told in told_again(envelope.event for envelope in kept):
            follower.send(utterance(told.channel, told.type, told.content, told.parent))

    def attach(self, follower: Follower) -> None:
        """Give a client that has its wire now what was kept for it, and all that comes."""
        lost, kept = follower.take_kept()
        if lost:
            text = f"[{lost:,} messages came while nobody was connected, and are not kept]\n"
            follower.send(utterance("iopub", "stream", stderr(text)))
        for packet in kept:
            follower.send(packet)
        self._session.attach(follower)
        self._debuggers.came(follower)
        opened = self._session.work.open
        for request in [*self._executions.values()]:
            if request.follower is follower and request.execution not in opened:
                self._cut_off(request, {"status": "aborted"})  # while it was away
        for event in self._session.work.dialogue.waiting():
            if event["type"] == "input_request" and event["id"] in self._executions:
                self._told(follower, event)  # asked while it was away, or not known to be heard
        follower.dispatch()

    def leave(self, follower: Follower, *, comes_back: bool) -> None:
        """Note that a client's connection is gone."""
        follower.wire = None
        self._session.detach(follower)
        self._debuggers.left(follower)
        session_id = next(key for key, one in self._followers.items() if one is follower)
        if not comes_back:
            self._forget(session_id)
            return
        if len(self._away) >= MOST_AWAY:
            longest = next(iter(self._away))
            self._away[longest].cancel()
            self._forget(longest)
        self._away[session_id] = self._loop.call_later(ABSENCE, self._forget, session_id)

    def close(self) -> None:
        """Forget everybody: the session has ended."""
        for timer in self._away.values():
            timer.cancel()
        self._away.clear()
        self._held.clear()
        self._debuggers.forget_all()
        self._passage.take_all()

    def _forget(self, session_id: str) -> None:
        self._away.pop(session_id, None)
        follower = self._followers.pop(session_id)
        follower.is_gone = True
        self._debuggers.forget(follower)
        self._passage.forget(follower)
        for request in [one for one in self._executions.values() if one.follower is follower]:
            del self._executions[request.execution]
        self._rest()

    def _rest(self) -> None:
        """Listen no more once nobody is there, and no request's time is to be ended."""
        if not self._followers and not self._passage:
            self._session.tap = None

    # What clients ask

    def serve(self, follower: Follower, asked: Asked) -> ExecuteRequest | None:
        """Serve a message; return what it has the session run, if anything.

        What is refused is answered as Jupyter has it: an error in the request's reply.
        """
        request = Request(follower, asked)
        self._is_asked |= asked.type != INFO
        try:
            if asked.type == INFO:
                self._inform(request)
            elif not follower.runs:
                raise Forbidden("this token only watches; use one with the scope run")
            elif asked.type == "input_reply":
                self._take_input(follower, asked)
            elif asked.channel not in CHANNELS:
                return None  # as Jupyter's servers do
            elif asked.type == EXECUTE:
                return self._execute(request)
            elif asked.type == "interrupt_request":
                self.interrupt()
                self._voice.reply(request, {"status": "ok"})
            else:
                self._passage.send(request)
                if asked.type == DEBUG:
                    self._debuggers.note(follower, asked.content)
        except BrokerError as error:
            self._refuse(request, error)
        finally:
            follower.dispatch()
        return None

    def answer(self, follower: Follower, asked: Asked, content: Json) -> None:
        """Answer a request that somebody else has served."""
        self._voice.serve(Request(follower, asked), content)
        follower.dispatch()

    def refuse(self, follower: Follower, asked: Asked, error: BrokerError) -> None:
        """Answer a request that somebody else would have served."""
        self._refuse(Request(follower, asked), error)
        follower.dispatch()

    def interrupt(self) -> None:
        """Interrupt what runs; where nothing does, what else the kernel is asked."""
        try:
            self._session.work.interrupt()
        except NotRunning:
            if self._session.kernel is not None and self._passage:
                self._session.kernel.interrupt()

    def _execute(self, request: Request) -> ExecuteRequest:
        asked, session = request.asked, self._session
        execute = execution_of(asked, session.work.open, uuid.uuid4().hex)
        request.execution = execute.id
        self._executions[execute.id] = request
        try:
            answers = asked.content.get("allow_stdin") is True
            session.work.submit(execute, request.follower, answers=answers)
        except BrokerError:
            del self._executions[execute.id]
            raise
        request.lighten()
        return execute

    def _take_input(self, follower: Follower, asked: Asked) -> None:
        value = asked.content.get("value")
        reply = InputReply(
            value=value if isinstance(value, str) else "", question=follower.question
        )
        try:
            self._session.work.dialogue.answer(reply)
        except BrokerError:
            return  # somebody else has answered, or the cell has ended: Jupyter has no word for it

    def _inform(self, request: Request) -> None:
        """Tell what the kernel is, by its own word: no session believes another's kernel."""
        kernel = self._session.kernel
        known = b"" if kernel is None else kernel.info
        if not known:
            self._passage.send(request)
            return
        self._voice.serve(request, known)
        if self._session.occupied:  # with another's request, and that is busy all the same
            request.follower.send(utterance("iopub", "status", {"execution_state": "busy"}))

    # What the kernel says

    def take(self, channel: str, message: Message) -> bool:
        """Take in a message before the session does; tell whether it stands for anything."""
        request = self._request_of(message)
        parent = self._parents.of(message) if request is None else request.asked.header_bytes
        if channel == "iopub":
            return self._publish(message, request, parent)
        if request is None or channel == "stdin":
            return channel == "shell" and self._tell_whoever_asked(message, parent)
        kind = request.asked.type
        if request.is_answered or message.type != f"{kind.removesuffix('_request')}_reply":
            return False
        if self._room.is_large(message):
            self._refuse(request, KernelBusy("the kernel's answer is too large"))
            return True
        # Raises BadFrame if it is not what it is passed on for.
        kernel, _ = self._session.kernel, message.content
        if kind == INFO and kernel is not None and (info := heard(message)):
            kernel.introduce(info)
        packet = Packet.of(request.asked.channel, message, parent)
        request.hear(Said.REPLY)
        if channel == "shell" and request.state is State.HELD:
            self._held.keep(request, packet)
        else:
            self._answer(request, packet)
        return True

    def _request_of(self, message: Message) -> Request | None:
        """Return whose request a message is about."""
        if (passed := self._passage.find(message.parent_id)) is not None:
            return passed
        work = self._session.work
        if message.parent_id and message.parent_id == work.request_id:
            asked = None if work.running is None else self._executions.get(work.running.id)
            if asked is not None:
                self._parents.note(message.parent_id, asked.asked.header_bytes)
            return asked
        return None

    def _tell_whoever_asked(self, message: Message, parent: bytes) -> bool:
        """Tell everybody the reply to what an earlier broker had asked: one knows the id."""
        running = self._session.work.running
        is_its = running is not None and message.parent_id == self._session.work.request_id
        if running is None or running.owner is not None or running.replied or not is_its:
            return False
        if message.is_heavy:
            return False
        _ = message.content
        self._tell_all(Packet.of("shell", message, parent))
        return True

    def _publish(self, message: Message, request: Request | None, parent: bytes) -> bool:
        idle = False
        if message.type == "status":
            state = state_of(message)
            if state in ("", "starting"):  # which it has been for a while when it is told
                return False
            idle = state == "idle"
            if idle and request is not None and request.is_idle:
                return False  # once is enough
        # That a request is done is told whatever was published about it.
        if not self._room.affords(message, request, parent) and not (idle and request):
            return False
        _ = message.content  # raises BadFrame if it is not what it is passed on for
        self._tell_all(Packet.of("iopub", message, parent))
        if request is not None:
            if request.state is State.SENT and not request.execution:
                self._passage.started(request)
            request.hear(Said.OUTPUT)
            if idle:
                self._end(request)
        return True

    def _end(self, request: Request) -> None:
        """Note that all was published about a request; the reply that was held follows it."""
        request.set_timer(None)  # whether it is answered or not
        packet = self._held.take(request)
        request.hear(Said.IDLE)
        if packet is not None:
            self._send(request, packet)
        elif request.is_over:
            self._drop(request)
        elif not request.execution:
            self._passage.idle(request)

    def _release(self, request: Request) -> None:
        """Send a reply that was held, without the `idle` before it."""
        if (packet := self._held.take(request)) is not None:
            self._answer(request, packet)

    def _answer(self, request: Request, packet: Packet) -> None:
        if request.state is State.HELD:
            request.hear(Said.RELEASE)
        self._send(request, packet)

    def _send(self, request: Request, packet: Packet) -> None:
        request.follower.send(packet)
        request.follower.dispatch()
        if request.is_over:
            self._drop(request)

    def _drop(self, request: Request) -> None:
        if not request.execution:
            self._passage.drop(request)
        elif self._executions.get(request.execution) is request:  # its id may be used again
            del self._executions[request.execution]

    # What becomes of the session

    def bound(self) -> None:
        """Tell that there is a kernel, and ask it what has waited for one."""
        self._bound_at, self._is_asked = self._loop.time(), bool(self._session.work.queued)
        self._voice.state("idle")
        self._passage.begin(self._inform)
        self._dispatch()

    def ended(self, reason: str) -> None:
        """Tell that the kernel is lost, and that another will take its place."""
        self._debuggers.forget_all()
        for request in self._passage.take_all():
            self._refuse(request, KernelBusy(f"the kernel ended before it answered: {reason}"))
        if reason not in ("restart", ""):
            self._voice.note(f"the kernel has ended: {reason}; its variables are gone\n")
        # Pages take `restarting` for a kernel that has died, and say so to people.
        self._voice.state("starting" if reason == "restart" else "restarting")
        self._dispatch()
        # One that ends by itself is replaced once somebody asks for something, or none would stay.
        is_worth_it = self._is_asked or self._loop.time() > self._bound_at + SETTLED
        if is_worth_it and any(one.runs and one.wire for one in self._all()):
            self._session.host.need_kernel(self._session)

    def _told(self, follower: Follower, event: Event) -> None:
        """Take an event of the session, as each client gets it."""
        kind = event["type"]
        request = self._executions.get(event.get("id", ""))
        if request is None or request.follower is not follower:
            return
        if kind == "input_request":
            follower.question = event.get("question")
            self._voice.ask(request, event["prompt"], password=event["password"])
        elif kind == "fault":
            self._refuse(request, event["error"])
        elif kind == "done":
            self._cut_off(request, ended(event))

    def _refuse(self, request: Request, error: BrokerError) -> None:
        self._cut_off(request, refusal(error))

    def _cut_off(self, request: Request, content: Json) -> None:
        """Answer a request in the kernel's place, as far as it has not, and forget it."""
        self._release(request)
        self._voice.cut_off(request, content)
        self._drop(request)

    def _tell_all(self, packet: Packet) -> None:
        for follower in self._all():
            follower.send(packet)

    def _dispatch(self) -> None:
        for follower in self._all():
            follower.dispatch()

    def _all(self) -> tuple[Follower, ...]:
        return tuple(self._followers.values())
