"""Who serves each kind of request of a WebSocket: one table, one line for each.

An answer is a dict, the fields of the `reply`; None where events answer, or nothing does; or an
awaitable of either, for what takes its time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeAlias

from broker.errors import BadMessage, Forbidden
from broker.orders import Runs
from broker.requests import (
    Ack,
    Batch,
    Call,
    Cancel,
    Close,
    Complete,
    Configure,
    Execute,
    History,
    InputReply,
    Inspect,
    Interrupt,
    Ping,
    Request,
    Restart,
    ToolResult,
    Tools,
    Variables,
)
from broker.roles import Client
from broker.scribe import Scribe
from broker.service import Service
from broker.session import Session

Fields: TypeAlias = dict[str, Any] | None
Answer: TypeAlias = Fields | Awaitable[Fields]


class Asker(Client, Protocol):
    """The connection that a request came by; a client of its session."""

    session: Session
    watches: bool  # it may see everything, and do nothing
    origin: str  # of its cells, whatever they say themselves; empty where that is theirs to say

    @property
    def service(self) -> Service:
        """Return the service."""

    @property
    def scribe(self) -> Scribe:
        """Return the scribe, who knows what sessions have run."""

    def pong(self, request_id: str) -> None:
        """Answer a ping."""


def serve(asker: Asker, request: Request) -> Answer:
    """Serve a request. Raises BrokerError, or the awaitable does."""
    served = SERVED.get(type(request))
    if served is None:
        raise BadMessage("type: this broker does not serve it", field="type")
    if asker.watches and type(request) not in WATCHING:
        raise Forbidden("this connection only watches; open one with mode=run")
    return served(asker, request)


def _ping(asker: Asker, request: Ping) -> Fields:
    asker.pong(request.id)
    return None


def _ack(asker: Asker, request: Ack) -> Fields:
    if not asker.watches:  # else others would miss what a watcher has seen
        asker.session.audience.acknowledge(request.seq)
    return None


def _submit(asker: Asker, request: Runs) -> Fields:
    asker.session.work.submit(request, asker, answers=True, origin=asker.origin)
    return None


def _configure(asker: Asker, request: Configure) -> Fields:
    asker.session.work.configure(request)
    return {}


def _interrupt(asker: Asker, request: Interrupt) -> Fields:
    return {"interrupted": asker.session.work.interrupt(request.target)}


def _cancel(asker: Asker, request: Cancel) -> Fields:
    asker.session.work.cancel(request.target)
    return {"cancelled": request.target}


def _input_reply(asker: Asker, request: InputReply) -> Fields:
    asker.session.work.dialogue.answer(request)
    return None


def _tools(asker: Asker, request: Tools) -> Fields:
    return asker.session.work.dialogue.register(asker, request)


def _tool_result(asker: Asker, request: ToolResult) -> Fields:
    asker.session.work.dialogue.result(asker, request)
    return None


async def _question(asker: Asker, request: Complete | Inspect | Variables) -> Fields:
    return await asker.session.questions.ask(request)


async def _history(asker: Asker, request: History) -> Fields:
    kept = await asker.scribe.cells(asker.session.key, request.max)
    return {"cells": [one.told for one in kept]}


async def _restart(asker: Asker, request: Restart) -> Fields:
    generation = await asker.service.restart(asker.session, keep_files=request.keep_files)
    return {"generation": generation}


async def _close(asker: Asker, request: Close) -> Fields:
    return {"generation": await asker.service.end(asker.session.key, "closed", spare=asker)}


SERVED: Mapping[type[Request], Callable[[Any, Any], Answer]] = {
    Ping: _ping,
    Ack: _ack,
    Execute: _submit,
    Batch: _submit,
    Call: _submit,
    Configure: _configure,
    Interrupt: _interrupt,
    Cancel: _cancel,
    InputReply: _input_reply,
    Tools: _tools,
    ToolResult: _tool_result,
    Complete: _question,
    Inspect: _question,
    Variables: _question,
    History: _history,
    Restart: _restart,
    Close: _close,
}
WATCHING = {Ping, Ack, History}  # what they may do, too, who only watch
LAST = {Close}  # after the answer to this, nothing more is served
ALONE = {Restart, Close}  # a connection may have one of each under way: nothing else bounds them
