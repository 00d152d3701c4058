"""What a session has run: over its socket, as a notebook, and from the store when it has ended."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import nbformat
import pytest

from tests.system.conftest import RunningBroker
from tests.system.peer import (
    JSON,
    MSGPACK,
    Place,
    ask_until,
    attached,
    call,
    execute,
    new_name,
)


def book(broker: Place, session: str) -> Any:
    answer = call(broker, "GET", f"/v1/sessions/{session}/notebook")
    assert answer.status == 200, answer.text
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{session}.ipynb"'
    made = nbformat.reads(answer.text, as_version=4)
    nbformat.validate(made)
    return made


def sources(broker: Place, session: str) -> list[str]:
    return [cell["source"] for cell in book(broker, session)["cells"]]


@pytest.mark.row("GET /v1/sessions/{s}/notebook")
def test_a_session_is_a_notebook_that_validates(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "print('a')\nx = 20")
    execute(broker, name, "from IPython.display import Image, display\ndisplay(Image(b'\\x89PNG'))")
    execute(broker, name, "1 / 0")
    execute(broker, name, "x * 2")
    made = book(broker, name)
    outputs = [cell["outputs"] for cell in made["cells"]]
    assert [cell["execution_count"] for cell in made["cells"]] == [1, 2, 3, 4]
    assert outputs[0] == [{"output_type": "stream", "name": "stdout", "text": "a\n"}]
    assert outputs[1][0]["data"]["image/png"].strip() == "iVBORw=="
    assert outputs[2][0]["ename"] == "ZeroDivisionError"
    assert outputs[3][0]["data"]["text/plain"] == "40"
    assert [cell["metadata"]["broker"]["status"] for cell in made["cells"]] == [
        "ok",
        "ok",
        "error",
        "ok",
    ]
    assert made["metadata"]["kernelspec"]["name"] == "python3"


def test_a_notebook_outlives_its_session_and_says_where_variables_went(
    broker: RunningBroker,
) -> None:
    name = new_name()
    execute(broker, name, "a = 1")
    assert call(broker, "DELETE", f"/v1/sessions/{name}?reason=over").status == 200
    assert sources(broker, name) == ["a = 1"]
    execute(broker, name, "a")
    first, note, second = book(broker, name)["cells"]
    assert note["cell_type"] == "markdown"
    assert "`over`" in note["source"]
    assert (first["source"], second["source"]) == ("a = 1", "a")
    assert second["metadata"]["broker"]["generation"] == 2


def test_what_never_was_has_no_notebook(broker: RunningBroker) -> None:
    answer = call(broker, "GET", f"/v1/sessions/{new_name()}/notebook")
    assert answer.status == 404
    assert answer.error["code"] == "unknown_session"


@pytest.mark.parametrize("subprotocol", [JSON, MSGPACK])
@pytest.mark.row("history")
async def test_history_tells_the_last_cells(broker: RunningBroker, subprotocol: str) -> None:
    name = new_name()
    async with attached(broker, name, subprotocols=[subprotocol]) as peer:
        for code in ("a = 1", "1 / 0", "a"):
            await peer.run(code)
        await peer.run("'unseen'", silent=True)
        await peer.send({"type": "history", "id": "h", "max": 2})
        told = await peer.until("reply", id="h")
        assert told["cells"] == [
            {"execution_count": 2, "code": "1 / 0", "status": "error", "generation": 1},
            {"execution_count": 3, "code": "a", "status": "ok", "generation": 1},
        ]
    async with attached(broker, name, mode="watch", subprotocols=[subprotocol]) as watcher:
        await watcher.send({"type": "history", "id": "h"})
        assert len((await watcher.until("reply", id="h"))["cells"]) == 3


def test_a_transcript_survives_a_broker_that_is_killed(start_broker: Any, short_dir: Any) -> None:
    directory = short_dir()
    with start_broker(directory, "--warm", "1") as broker:
        execute(broker, "s", "a = 1")
        execute(broker, "s", "print(input.__name__)")

        def is_written() -> bool:  # another node's view: from the store
            store = json.loads(call(broker, "GET", "/v1/pools").text)["store"]
            return bool(store) and stored(directory) == 2

        ask_until(is_written, "cells written")
        os.kill(broker.pid, signal.SIGKILL)
        broker.process.wait(20)
    with start_broker(directory, "--warm", "1") as broker:
        execute(broker, "s", "a + 1")
        assert sources(broker, "s") == ["a = 1", "print(input.__name__)", "a + 1"]
        broker.end({"s"})


def stored(directory: Any) -> int:
    import redis

    client = redis.Redis(unix_socket_path=str(next(directory.glob("*.sock"))))
    return sum(int(client.llen(key)) for key in client.scan_iter("*:transcript:*"))


def test_one_shots_leave_nothing_in_the_store(start_broker: Any, short_dir: Any) -> None:
    directory = short_dir()
    with start_broker(directory, "--warm", "1") as broker:
        assert call(broker, "POST", "/v1/execute", {"code": "1"}).status == 200
        execute(broker, "s", "a = 1")
        ask_until(lambda: stored(directory) > 0, "cells written")
        assert stored(directory) == 1


def test_a_transcript_can_be_switched_off(start_broker: Any, short_dir: Any) -> None:
    directory = short_dir()
    off = {"BROKER_SESSION_TRANSCRIPT_CELLS": "0"}
    with start_broker(directory, "--warm", "1", **off) as broker:
        execute(broker, "s", "a = 1")
        assert sources(broker, "s") == []
        broker.end({"s"})
        assert stored(directory) == 0
