"""Calls, batches and variables through the Python client, for threads and for asyncio."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from broker.client import AsyncBroker, BadRequest, Broker, ExecutionFailed, Shown
from tests.system.conftest import RunningBroker
from tests.system.peer import ask_until, call, new_name

DAY = datetime.date(2024, 2, 3)


def total(rows: Any, *, factor: int = 1) -> int:
    print("adding")  # noqa: T201 - it does so in the session
    return factor * sum(row["a"] for row in rows)


def test_a_function_is_called_where_the_variables_are(broker: RunningBroker) -> None:
    table = pd.DataFrame({"a": [1, 2], "day": [DAY, DAY]})
    with Broker(broker.url, broker.token).session(new_name()) as session:
        heard: list[str] = []
        value = session.call(total, table, factor=10, _on_event=lambda e: heard.append(e["type"]))
        assert value == 30
        assert heard[-3:] == ["stream", "value", "done"]
        assert session.call(lambda x, **more: [x, more], np.arange(2), day=DAY) == [
            [0, 1],
            {"day": "2024-02-03"},
        ]
        session.execute("base = 40\ndef add(x): return base + x", inputs={"unused": table})
        assert session.call("add", 2) == 42
        assert session.call("lambda: b'\\xff'") == b"\xff"
        assert isinstance(session.call("object"), Shown)
        assert session.execute("unused[1]['day']").value == "'2024-02-03'"
        with pytest.raises(ExecutionFailed, match="NameError") as failed:
            session.call("nothing")
        assert failed.value.result.error is not None
        with pytest.raises(BadRequest, match=r"args\[0\]: a object has no plain form"):
            session.call("add", object())
        with pytest.raises(BadRequest, match="inputs"):
            session.execute("1", inputs={"not a name": 1})
        with pytest.raises(ExecutionFailed, match="timeout"):
            session.call("def f():\n while True: pass", _timeout=0.3)
        look = "lambda: __import__('os').environ.get('A')"
        assert session.call(look, _env={"A": "lent"}, _cwd="/") == "lent"
        session.configure({"A": "set"})
        assert session.call(look) == "set"
        batch = session.batch(["x = 1", {"code": "1 / 0", "timeout": 5}, "x"])
        assert [result.status for result in batch] == ["ok", "error", "aborted"]
        assert batch.status == "error"


async def test_the_same_for_asyncio(broker: RunningBroker) -> None:
    async with AsyncBroker(broker.url, broker.token).session(new_name()) as session:
        assert await session.call(total, [{"a": 3}]) == 3
        result = await session.execute(
            "x, __import__('os').environ['A']", inputs={"x": b"1"}, env={"A": "2"}
        )
        assert result.value == "(b'1', '2')"
        await session.configure(cwd="/")
        batch = await session.batch(["import os; os.getcwd()", "1 / 0", "2"], stop_on_error=False)
        assert [one.status for one in batch] == ["ok", "error", "ok"]
        assert batch[0].value == "'/'"
        with pytest.raises(ExecutionFailed):
            batch.raise_for_status()


async def test_one_call_needs_no_session(broker: RunningBroker) -> None:
    once = Broker(broker.url, broker.token)
    assert once.call(lambda x: [x, len(x)], b"\xff\x00") == [b"\xff\x00", 2]
    assert once.execute("x", inputs={"x": b"\xff"}, env={"A": "1"}).value == repr(b"\xff")
    with pytest.raises(BadRequest, match="over HTTP"):
        once.call("lambda x: x", float("nan"))
    assert await AsyncBroker(broker.url, broker.token).call("lambda: 1") == 1


async def test_a_cancelled_one_shot_ends_in_the_broker_too(broker: RunningBroker) -> None:
    once = AsyncBroker(broker.url, broker.token)

    def running() -> list[str]:
        rows = call(broker, "GET", "/v1/sessions").body["sessions"]
        return [row["session"] for row in rows if row["session"].startswith("once-")]

    waiting = asyncio.create_task(once.execute("import time\nwhile True: time.sleep(0.1)"))
    await asyncio.to_thread(ask_until, lambda: bool(running()), "the one-shot there")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.to_thread(ask_until, lambda: not running(), "the one-shot gone")


def test_the_command_line_sets_variables_and_a_directory(broker: RunningBroker) -> None:
    session, code = new_name(), "import os; print(os.environ.get('A'), os.getcwd() == '/')"
    ran = broker.cli("run", "-s", session, "--env", "A=b=c", "--cwd", "/", code)
    assert (ran.returncode, ran.stdout) == (0, "b=c True\n"), ran.stderr
    ran = broker.cli("run", "-s", session, "-", stdin=code)
    assert ran.stdout == "None False\n"
    refused = broker.cli("run", "-s", session, "--env", "a secret", code)
    assert refused.returncode == 2
    assert "NAME=VALUE" in refused.stderr
    assert "a secret" not in refused.stderr
    refused = broker.cli("run", "-s", session, "--env", "A-B=a secret", code)
    assert refused.returncode != 0
    assert "a secret" not in refused.stderr
