"""What a session promises: variables, one kernel, order, and a clear end of each execution."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from broker.client import AsyncBroker, Broker, NotRunning, UnknownSession
from tests.system.conftest import RunningBroker
from tests.system.peer import Peer, attached, gate, new_name, open_gate, row_of

PNG = b"\x89PNG\r\n\x1a\n"
GRACE = "[profiles.python]\npreload = []\nwarm = 1\n[session]\ninterrupt_grace = '200ms'\n"


@pytest.fixture
def client(broker: RunningBroker) -> Broker:
    return Broker(broker.url, broker.token)


@pytest.fixture(scope="module")
def impatient(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> Iterator[RunningBroker]:
    """A broker that kills soon after an interrupt that did not help."""
    directory = short_dir()
    (directory / "broker.toml").write_text(GRACE)
    with start_broker(directory, "--config", str(directory / "broker.toml")) as running:
        yield running


async def begin(peer: Peer, code: str, request_id: str) -> None:
    """Start an execution and return once it runs."""
    await peer.send({"type": "execute", "id": request_id, "code": code})
    await peer.until("started", id=request_id)


# Variables


def test_two_snippets_of_one_session_see_the_same_variables(client: Broker) -> None:
    with client.session(new_name()) as session:
        session.execute("x = 20")
        session.execute("def double(n): return n * 2")
        result = session.execute("double(x) + 2")
    assert (result.status, result.value, result.generation) == ("ok", "42", 1)


def test_variables_outlive_the_connection(client: Broker) -> None:
    name = new_name()
    with client.session(name) as session:
        first = session.execute("x = 20")
    with client.session(name) as session:
        again = session.execute("x")
    assert (first.state, again.state) == ("fresh", "warm")
    assert (again.value, again.generation, again.execution_count) == ("20", 1, 2)


def test_two_sessions_never_see_each_others_variables(client: Broker) -> None:
    with client.session(new_name()) as one, client.session(new_name()) as other:
        one.execute("secret = 20; import sys; sys.planted = 1")
        result = other.execute("'secret' in globals(), hasattr(__import__('sys'), 'planted')")
        assert result.value == "(False, False)"


async def test_snippets_run_in_the_order_in_which_they_were_sent(broker: RunningBroker) -> None:
    async with attached(broker, new_name()) as peer:
        await peer.send({"type": "execute", "id": "0", "code": "seen = []"})
        for index in range(1, 21):
            code = f"seen.append({index})"
            await peer.send({"type": "execute", "id": str(index), "code": code})
        ends = [(await peer.until("done"))["id"] for _ in range(21)]
        assert ends == [str(index) for index in range(21)]
        assert await peer.value("seen == list(range(1, 21))") == "True"


async def test_two_clients_that_open_a_new_session_at_once_share_one_kernel(
    broker: RunningBroker,
) -> None:
    client = AsyncBroker(broker.url, broker.token)
    name = new_name()

    async def pid() -> tuple[str | None, int]:
        async with client.session(name) as session:
            result = await session.execute("import os; os.getpid()")
            return result.value, result.generation

    one, other = await asyncio.gather(pid(), pid())
    assert one == other
    assert one[1] == 1


async def test_many_sessions_opened_at_once_have_a_kernel_each(broker: RunningBroker) -> None:
    client = AsyncBroker(broker.url, broker.token)
    names = [new_name() for _ in range(6)]

    async def pid(name: str) -> int:
        async with client.session(name) as session:
            await session.execute("1")
            value: int = row_of(broker, name)["pid"]
            await session.close()
            return value

    assert len(set(await asyncio.gather(*map(pid, names)))) == 6


# The queue


async def test_what_waits_is_told_its_position_and_runs_in_turn(broker: RunningBroker) -> None:
    async with attached(broker, new_name()) as peer:
        await begin(peer, "import time; time.sleep(60)", "a")
        for name in ("b", "c", "d"):
            await peer.send({"type": "execute", "id": name, "code": "1", "stop_on_error": False})
        positions = [await peer.until("queued", id=name) for name in ("b", "c", "d")]
        assert [event["position"] for event in positions] == [1, 2, 3]
        assert row_of(broker, peer.events[0]["session"])["queued"] == 3
        await peer.send({"type": "cancel", "id": "x", "target": "c"})
        assert (await peer.until("done", id="c"))["status"] == "cancelled"
        assert (await peer.until("reply", id="x"))["cancelled"] == "c"
        await peer.send({"type": "interrupt", "id": "i", "target": "a"})
        assert (await peer.until("done", id="a"))["status"] == "interrupted"


async def test_a_failure_aborts_what_the_same_client_has_queued_and_nobody_elses(
    broker: RunningBroker,
) -> None:
    name = new_name()
    async with attached(broker, name) as one, attached(broker, name) as other:
        await one.until("session")
        await one.send({"type": "execute", "id": "a", "code": f"{gate()}\n1 / 0"})
        await one.until("stream", id="a")
        await one.send({"type": "execute", "id": "b", "code": "mine = 1"})
        await one.until("queued", id="b")
        await other.send({"type": "execute", "id": "c", "code": "theirs = 1"})
        await one.until("queued", id="c")
        open_gate(row_of(broker, name)["pid"])
        ends = {}
        while len(ends) < 3:
            done = await other.until("done")
            ends[done["id"]] = done["status"]
        assert ends == {"a": "error", "b": "aborted", "c": "ok"}
        assert await one.value("'mine' in globals(), theirs") == "(False, 1)"


async def test_without_stop_on_error_what_waits_is_run_all_the_same(broker: RunningBroker) -> None:
    async with attached(broker, new_name()) as peer:
        code = "1 / 0"
        await peer.send({"type": "execute", "id": "a", "code": code, "stop_on_error": False})
        await peer.send({"type": "execute", "id": "b", "code": "x = 1"})
        assert (await peer.until("done", id="a"))["status"] == "error"
        assert (await peer.until("done", id="b"))["status"] == "ok"


# Interrupt, restart, close


def test_an_interrupt_ends_the_cell_and_keeps_the_variables(client: Broker) -> None:
    with client.session(new_name()) as session:
        session.execute("x = 20")
        for event in session.stream("import time; time.sleep(60)"):
            if event["type"] == "started":
                session.interrupt()
        assert (event["status"], event["reason"]) == ("interrupted", "interrupted")
        assert session.execute("x").value == "20"
        with pytest.raises(NotRunning):
            session.interrupt()


@pytest.mark.row("cancel")
async def test_cancel_takes_only_what_waits(broker: RunningBroker) -> None:
    async with attached(broker, new_name()) as peer:
        await begin(peer, "import time; time.sleep(60)", "a")
        for target in ("a", "nobody"):
            await peer.send({"type": "cancel", "id": "x", "target": target})
            fault = await peer.until("fault", id="x")
            assert (fault["code"], fault["field"]) == ("not_running", "target")
        await peer.send({"type": "interrupt", "id": "i", "target": "nobody"})
        assert (await peer.until("fault", id="i"))["code"] == "not_running"
        await peer.send({"type": "interrupt", "id": "i"})
        assert (await peer.until("done", id="a"))["status"] == "interrupted"


@pytest.mark.row("restart")
async def test_a_restart_gives_the_next_generation_and_says_so_before_it_runs_anything(
    broker: RunningBroker,
) -> None:
    async with attached(broker, new_name()) as peer:
        await peer.run("x = 20")
        await begin(peer, "import time; time.sleep(60)", "a")
        await peer.send({"type": "execute", "id": "b", "code": "1"})
        await peer.until("queued", id="b")
        await peer.send({"type": "restart", "id": "r"})
        running, waiting = await peer.until("done"), await peer.until("done")
        assert [running[key] for key in ("id", "status", "reason")] == ["a", "lost", "restart"]
        assert (waiting["id"], waiting["status"]) == ("b", "aborted")
        told = [await peer.until("session"), await peer.until("session")]
        assert [(one["generation"], one["state"], one["reason"]) for one in told] == [
            (1, "lost", "restart"),
            (2, "lost", "restart"),
        ]
        assert (await peer.until("reply", id="r"))["generation"] == 2
        events = await peer.run("x")
        assert [event["type"] for event in events] == ["started", "error", "done"]
        assert (events[1]["name"], events[2]["generation"]) == ("NameError", 2)


@pytest.mark.row("close")
async def test_a_closed_session_is_over_for_its_asker_with_1000_and_for_others_with_4404(
    broker: RunningBroker,
) -> None:
    name = new_name()
    async with attached(broker, name) as asker, attached(broker, name) as other:
        await asker.run("x = 20")
        await asker.send({"type": "close", "id": "c"})
        assert (await asker.until("reply", id="c"))["generation"] == 1
        assert (await asker.closed())[0] == 1000
        assert await other.closed() == (4404, "closed")
    row = row_of(broker, name)
    assert (row["state"], row["reason"], row["pid"]) == ("closed", "closed", None)


def test_a_session_opened_again_after_its_end_says_why_its_variables_are_gone(
    client: Broker,
) -> None:
    name = new_name()
    with client.session(name) as session:
        session.execute("x = 20")
    assert client.kill(name)["generation"] == 1
    with client.session(name) as session:
        result = session.execute("'x' in globals()")
    assert (result.value, result.generation) == ("False", 2)
    assert (result.state, result.reason) == ("lost", "killed by operator")
    client.kill(name)
    with pytest.raises(UnknownSession):
        client.kill(name)


# Time


def test_a_timeout_interrupts_the_cell_and_keeps_the_variables(client: Broker) -> None:
    with client.session(new_name()) as session:
        session.execute("x = 20")
        result = session.execute("import time\ntime.sleep(60)", timeout=0.2)
        assert (result.status, result.reason, result.generation) == ("timeout", "timeout", 1)
        assert session.execute("x").value == "20"


async def test_a_cell_that_swallows_its_interrupt_is_killed_after_the_grace(
    impatient: RunningBroker,
) -> None:
    code = "import time\nwhile True:\n try: time.sleep(60)\n except KeyboardInterrupt: print('no')"
    async with attached(impatient, new_name()) as peer:
        await peer.run("x = 20")
        events = await peer.run(code, timeout=0.3)
        assert "no\n" in [event.get("text") for event in events]
        done = events[-1]
        assert (done["status"], done["reason"], done["generation"]) == ("timeout", "timeout", 1)
        lost = await peer.until("session")
        assert (lost["state"], lost["generation"], lost["reason"]) == ("lost", 1, "timeout")
        [*_, error, done] = await peer.run("x")
        assert (error["name"], done["generation"]) == ("NameError", 2)


def test_a_cell_that_ends_within_the_grace_by_itself_keeps_its_kernel(client: Broker) -> None:
    code = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: saved = True"
    with client.session(new_name()) as session:
        result = session.execute(code, timeout=0.2)
        assert (result.status, session.execute("saved").value) == ("ok", "True")


# Rich output


def test_a_dataframe_shows_as_html_and_as_text(client: Broker) -> None:
    with client.session(new_name()) as session:
        result = session.execute("import pandas as pd; pd.DataFrame({'a': [1, 2]})")
    assert result.html is not None
    assert "<table" in result.html
    assert result.value is not None
    assert result.value.split() == ["a", "0", "1", "1", "2"]


def test_a_plot_is_a_png_in_bytes(client: Broker) -> None:
    with client.session(new_name()) as session:
        result = session.execute("import matplotlib.pyplot as plt; plt.plot([1, 2, 3]); plt.show()")
        assert result.status == "ok", result.error
        [image] = result.images
        assert image.startswith(PNG)
        # Without `show`, the figure left open at the end of a cell is shown as well.
        assert [one[:8] for one in session.execute("plt.plot([3, 1]);").images] == [PNG]


def test_a_result_has_what_was_printed_shown_and_raised(client: Broker) -> None:
    with client.session(new_name()) as session:
        result = session.execute(
            "import sys\nprint('out')\nprint('err', file=sys.stderr)\ndisplay('shown')\n6 * 7"
        )
        assert (result.stdout, result.stderr, result.value) == ("out\n", "err\n", "42")
        assert [dict(one) for one in result.displays] == [{"text/plain": "'shown'"}]
        assert result.duration > 0
        failed = session.execute("1 / 0")
        assert failed.error is not None
        assert (failed.error.name, failed.error.message) == (
            "ZeroDivisionError",
            "division by zero",
        )
        assert not any("\x1b" in line for line in failed.error.traceback)


def test_a_one_shot_runs_in_a_fresh_kernel(client: Broker) -> None:
    assert client.execute("x = 20; x").value == "20"
    assert client.execute("'x' in globals()").value == "False"
