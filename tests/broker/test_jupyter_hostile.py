"""What a hostile kernel, or a hostile client, gets of a session's Jupyter clients: nothing."""

from __future__ import annotations

from typing import Any

import orjson

from kernels.messages import Message
from tests.broker.pool_fakes import on_manual_time
from tests.broker.test_jupyter_exchange import INFO, FakeWire, Stage


def kinds(wire: FakeWire) -> list[tuple[str, str]]:
    return [(told[1], told[3]) for told in wire.told]


@on_manual_time
async def test_what_one_kernel_says_that_it_is_no_other_sessions_client_is_told() -> None:
    one, other = Stage(), Stage()
    mine, _ = one.come()
    one.run(mine, "x")
    forged = {**INFO, "banner": "forged"}
    one.say("shell", "kernel_info_reply", forged)  # as the answer to the cell
    theirs, wire = other.come()
    other.ask(theirs, "kernel_info_request", name="i")
    assert not [p for p in wire.packets if b"forged" in p.content]


@on_manual_time
async def test_who_only_watches_answers_no_question() -> None:
    stage = Stage()
    owner, _ = stage.come()
    watcher, _ = stage.come("w", runs=False)
    stage.run(owner, "x", allow_stdin=True)
    stage.status("busy")
    stage.say("stdin", "input_request", {"prompt": "(Pdb) ", "password": False})
    stage.ask(watcher, "input_reply", channel="stdin", value="import os; os.system('evil')")
    assert stage.kernel.channels.answers == []


@on_manual_time
async def test_who_only_watches_has_no_kernel_started() -> None:
    stage = Stage(bound=False)
    watcher, _ = stage.come("w", runs=False)
    stage.ask(watcher, "kernel_info_request", name="i")
    assert stage.host.needed == 0


def message(kind: str, content: bytes, parent: str, **more: Any) -> Message:
    header = {"msg_type": kind, "msg_id": "m", **more.pop("header", {})}
    metadata = more.pop("metadata", {})
    parts = (orjson.dumps(header), orjson.dumps({"msg_id": parent}), orjson.dumps(metadata))
    return Message(header, {"msg_id": parent}, metadata, content, (), parts=parts)
