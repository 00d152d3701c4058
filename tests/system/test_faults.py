"""Code that harms itself, and processes that die: who was not at fault does not notice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from broker.client import Broker
from tests.system.conftest import RunningBroker, StartBroker
from tests.system.peer import (
    Peer,
    ask_until,
    attached,
    call,
    child_of,
    execute,
    gate,
    metric,
    new_name,
    open_gate,
    row_of,
    steady,
    value_of,
)

SMALL = '[profiles.python]\npreload = ["json"]\nwarm = 2\n'


@pytest.fixture
def start(start_broker: StartBroker, short_dir: Callable[[], Path]) -> Callable[..., Any]:
    """Give the way to start a broker with a file of settings, in a directory of its own."""

    def starting(settings: str = SMALL) -> AbstractContextManager[RunningBroker]:
        directory = short_dir()
        (directory / "broker.toml").write_text(settings)
        return start_broker(directory, "--config", str(directory / "broker.toml"))

    return starting


# Code


DEATHS = {
    "os._exit": ("import os; os._exit(3)", "exit 3"),
    "os._exit(0)": ("import os; os._exit(0)", "exit 0"),
    "SIGKILL": ("import os; os.kill(os.getpid(), 9)", "signal SIGKILL"),
    "SIGTERM": ("import os, signal; os.kill(os.getpid(), 15); signal.pause()", "signal SIGTERM"),
    "SIGSEGV": ("import ctypes; ctypes.string_at(0)", "signal SIGSEGV"),
    "abort": ("import os; os.abort()", "signal SIGABRT"),
}


@pytest.mark.parametrize("death", DEATHS)
async def test_code_that_kills_its_process_is_lost_with_the_reason_and_the_session_goes_on(
    broker: RunningBroker, death: str
) -> None:
    code, reason = DEATHS[death]
    bystander = new_name("by")
    execute(broker, bystander, "kept = 20")
    async with attached(broker, new_name()) as peer:
        await peer.run("x = 20")
        events = await peer.run(
            f"print('last words', flush=True)\nimport time; time.sleep(0.2)\n{code}"
        )
        assert (events[-1]["status"], events[-1]["reason"]) == ("lost", reason)
        assert [event["type"] for event in events].count("started") == 1
        said = "".join(event["text"] for event in events if event["type"] == "stream")
        assert said.startswith("last words\n")
        lost = await peer.until("session")
        assert (lost["state"], lost["generation"], lost["reason"]) == ("lost", 1, reason)
        [*_, error, done] = await peer.run("x")
        assert (error["name"], done["generation"]) == ("NameError", 2)
        told = [event for event in peer.events if event["type"] == "session"][-1]
        assert (told["state"], told["generation"], told["reason"]) == ("lost", 2, reason)
        assert await peer.value("6 * 7") == "42"
    assert value_of(broker, bystander, "kept") == "20"


@pytest.mark.parametrize(
    "code", ["exit()", "quit()", "import sys; sys.exit(1)", "raise SystemExit"]
)
async def test_exit_in_a_cell_does_not_hang_the_session(broker: RunningBroker, code: str) -> None:
    async with attached(broker, new_name()) as peer:
        await peer.run("x = 20")
        done = (await peer.run(code))[-1]
        assert done["type"] == "done"
        assert await peer.value("6 * 7") == "42"


async def test_what_waits_behind_a_death_is_aborted_and_told_so(broker: RunningBroker) -> None:
    async with attached(broker, new_name()) as peer:
        await peer.send({"type": "execute", "id": "a", "code": "import os; os._exit(3)"})
        await peer.send({"type": "execute", "id": "b", "code": "x = 1"})
        assert (await peer.until("done", id="a"))["status"] == "lost"
        waiting = await peer.until("done", id="b")
        assert waiting["status"] == "aborted"
        assert "lost" in waiting["reason"]
        assert (await peer.run("1"))[-1]["generation"] == 2


async def test_an_endless_loop_with_a_timeout_is_interrupted_and_keeps_its_variables(
    broker: RunningBroker,
) -> None:
    async with attached(broker, new_name()) as peer:
        await peer.run("x = 20")
        done = (await peer.run("while True: pass", timeout=0.3))[-1]
        assert (done["status"], done["reason"]) == ("timeout", "timeout")
        assert 0.3 <= done["duration"] < 3
        assert await peer.value("x") == "20"


async def test_an_endless_loop_that_ignores_interrupts_is_killed_after_the_grace(
    start: Callable[..., Any],
) -> None:
    with start(SMALL + '[session]\ninterrupt_grace = "200ms"\n') as broker:
        async with attached(broker, new_name()) as peer:
            await peer.run("x = 20")
            code = "import signal; signal.signal(2, signal.SIG_IGN)\nwhile True: pass"
            done = (await peer.run(code, timeout=0.2))[-1]
            assert (done["status"], done["reason"]) == ("timeout", "timeout")
            assert done["duration"] < 2
            lost = await peer.until("session", state="lost")
            assert (lost["generation"], lost["reason"]) == (1, "timeout")
            assert (await peer.run("x"))[-1]["generation"] == 2


async def test_an_endless_loop_without_a_timeout_is_ended_by_an_interrupt(
    start: Callable[..., Any],
) -> None:
    with start(SMALL + "[session]\nexecution_timeout = 0\n") as broker:
        session = new_name()
        async with attached(broker, session) as peer:
            await peer.run("x = 20")
            await peer.send({"type": "execute", "id": "a", "code": "while True: pass"})
            await peer.until("started", id="a")
            await peer.send({"type": "interrupt", "id": "i"})
            assert (await peer.until("reply", id="i"))["interrupted"] == "a"
            assert (await peer.until("done", id="a"))["status"] == "interrupted"
            await peer.send({"type": "interrupt", "id": "j"})
            assert (await peer.until("fault", id="j"))["code"] == "not_running"
            # The like over HTTP.
            await peer.send({"type": "execute", "id": "b", "code": "while True: pass"})
            await peer.until("started", id="b")
            answer = call(broker, "POST", f"/v1/sessions/{session}/interrupt")
            assert (answer.status, answer.body) == (200, {"interrupted": "b"})
            assert (await peer.until("done", id="b"))["status"] == "interrupted"
            assert await peer.value("x") == "20"


# Clients


async def test_a_client_that_vanishes_leaves_its_execution_running(
    broker: RunningBroker,
) -> None:
    session = new_name()
    async with attached(broker, session) as gone:
        await gone.run("x = 20")
        code = f"{gate('before')}\nprint('after')\nx += 22"
        await gone.send({"type": "execute", "id": "a", "code": code})
        seen = (await gone.until("stream", id="a"))["seq"]
        gone.socket.transport.abort()
    ask_until(lambda: row_of(broker, session)["clients"] == 0, "the client counted out")
    assert row_of(broker, session)["state"] == "busy"
    open_gate(row_of(broker, session)["pid"])
    async with attached(broker, session, after=seen) as peer:
        assert (await peer.next())["state"] == "warm"
        assert (await peer.until("done", id="a"))["status"] == "ok"
        streams = [each for each in peer.events if each["type"] == "stream"]
        assert "".join(each["text"] for each in streams).strip() == "after"
        assert streams[0]["seq"] == seen + 1
        assert await peer.value("x") == "42"


async def test_two_clients_at_once_get_one_kernel_and_the_same_events(
    broker: RunningBroker,
) -> None:
    session = new_name()
    async with attached(broker, session) as one, attached(broker, session) as other:
        mine, theirs = await asyncio.gather(
            one.run("x = 20; print('one')", id="a"), other.run("y = 22; print('two')", id="b")
        )
        assert (mine[-1]["status"], theirs[-1]["status"]) == ("ok", "ok")
        assert await one.value("x + y") == "42"
        for peer in (one, other):
            await peer.send({"type": "ping", "id": "p"})
            await peer.until("pong")
        events = [
            [event for event in peer.events if "seq" in event and event["type"] != "session"]
            for peer in (one, other)
        ]
        assert events[0] == events[1]
        numbers = [event["seq"] for event in events[0]]
        assert numbers == sorted(set(numbers))
        assert row_of(broker, session)["generation"] == 1


async def test_many_clients_opening_one_new_session_get_one_kernel(broker: RunningBroker) -> None:
    session = new_name()

    async def run(index: int) -> tuple[str | None, int]:
        async with attached(broker, session) as peer:
            return await peer.value("import os; os.getpid()"), index

    found = await asyncio.gather(*(run(index) for index in range(8)))
    assert len({pid for pid, _ in found}) == 1


def test_a_one_shot_whose_caller_vanishes_gives_its_kernel_back(
    start: Callable[..., Any],
) -> None:
    with start(SMALL + "[session]\nexecution_timeout = 0\n") as broker:
        steady(broker)
        host, _, port = broker.url.removeprefix("http://").partition(":")
        caller = socket.create_connection((host, int(port)))
        body = b'{"code": "while True: pass"}'
        caller.sendall(
            b"POST /v1/execute HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "
            + broker.token.encode()
            + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )
        ask_until(lambda: metric(broker, "broker_sessions") == 1, "the one-shot begun")
        caller.close()
        ask_until(lambda: metric(broker, "broker_sessions") == 0, "the one-shot ended")


# Processes


async def test_a_kernel_that_dies_while_idle_is_told_at_once(broker: RunningBroker) -> None:
    session = new_name()
    async with attached(broker, session) as peer:
        await peer.run("x = 20")
        pid = row_of(broker, session)["pid"]
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        lost = await peer.until("session")
        assert time.monotonic() - killed < 0.5  # 0.1 on an idle machine
        assert (lost["state"], lost["generation"]) == ("lost", 1)
        assert lost["reason"] == "signal SIGKILL"
        assert row_of(broker, session)["pid"] is None
        events = await peer.run("'x' in globals()")
        assert [e["data"]["text/plain"] for e in events if e["type"] == "result"] == ["False"]
        assert events[-1]["generation"] == 2


async def test_a_warm_kernel_that_dies_is_replaced_and_nobody_gets_it(
    start: Callable[..., Any],
) -> None:
    with start() as broker:
        steady(broker)
        kernels = call(broker, "GET", "/v1/pools").body["pools"][0]["kernels"]
        for kernel in kernels:
            os.kill(kernel["pid"], signal.SIGKILL)
        ask_until(lambda: metric(broker, "broker_kernel_exits_total") == 2, "the deaths noticed")
        steady(broker)
        pid = int(str(value_of(broker, new_name(), "import os; os.getpid()")))
        assert pid not in [kernel["pid"] for kernel in kernels]


async def test_live_kernels_outlive_their_zygote_and_a_new_one_takes_over(
    start: Callable[..., Any],
) -> None:
    with start() as broker:
        steady(broker)
        async with attached(broker, new_name()) as peer:
            await peer.run("x = 20")
            old = call(broker, "GET", "/v1/pools").body["zygotes"][0]["pid"]
            os.kill(old, signal.SIGKILL)
            assert await peer.value("x * 2 + 2") == "42"
            names = [new_name() for _ in range(4)]
            assert [value_of(broker, name, "6 * 7") for name in names] == ["42"] * 4
            assert len({row_of(broker, name)["pid"] for name in names}) == 4
            new = call(broker, "GET", "/v1/pools").body["zygotes"][0]["pid"]
            assert new != old
            assert await peer.value("x") == "20"
            assert [event["generation"] for event in peer.events if event["type"] == "session"] == [
                1
            ]
            # The exit of a kernel of the old zygote is still noticed.
            os.kill(row_of(broker, _name_of(peer))["pid"], signal.SIGKILL)
            assert (await peer.until("session"))["state"] == "lost"
            assert (await peer.run("1"))[-1]["generation"] == 2


def _name_of(peer: Peer) -> str:
    return next(str(e["session"]) for e in peer.events if e["type"] == "session")


async def test_valkey_that_dies_is_restarted_and_nothing_is_lost(start: Callable[..., Any]) -> None:
    with start() as broker:
        session, other = new_name(), new_name("other")
        async with attached(broker, session) as peer:
            await peer.run("x = 20")
            execute(broker, other, "y = 1")
            before = row_of(broker, session)
            child = child_of(broker.pid, "valkey")
            child.kill()
            # Executions need no store: those of the outage work.
            assert await peer.value("x * 2 + 2") == "42"
            ask_until(
                lambda: call(broker, "GET", "/v1/pools").body["store"]["restarts"] == 1,
                "Valkey restarted",
            )
            assert child_of(broker.pid, "valkey").pid != child.pid
            assert value_of(broker, new_name("new"), "1 + 1") == "2"
            assert await peer.value("x") == "20"
            row = row_of(broker, session)
            assert (row["kernel"], row["generation"]) == (before["kernel"], 1)
        records = store_of(broker)
        kept = records.keys()
        assert f"broker:session:{{default/{session}}}" in kept
        assert f"broker:session:{{default/{other}}}" in kept
        records.close()


def store_of(broker: RunningBroker) -> redis.Redis:
    return redis.Redis(
        unix_socket_path=str(broker.state_dir / "valkey.sock"), decode_responses=True
    )


SHORT = SMALL + '[redis]\nlease = "1s"\n'


async def test_an_emptied_store_kills_no_kernel_and_is_written_again(
    start: Callable[..., Any],
) -> None:
    with start(SHORT) as broker:
        session = new_name()
        async with attached(broker, session) as peer:
            await peer.run("x = 20")
            store = store_of(broker)
            generation = store.hget(f"broker:session:{{default/{session}}}", "generation")
            store.flushall()
            assert await peer.value("x * 2 + 2") == "42"
            ask_until(
                lambda: bool(store.exists(f"broker:lease:{{default/{session}}}")),
                "the claim written again",
                seconds=2,
            )
            again = store.hget(f"broker:session:{{default/{session}}}", "generation")
            assert again == generation == "1"
            assert await peer.value("x") == "20"
            assert row_of(broker, session)["generation"] == 1
            store.close()


async def test_a_store_away_for_longer_than_the_lease_suspends_sessions_and_kills_nothing(
    start: Callable[..., Any],
) -> None:
    with start(SHORT) as broker:
        session = new_name()
        valkey = child_of(broker.pid, "valkey")
        async with attached(broker, session) as peer:
            await peer.run("x = 20")
            pid = row_of(broker, session)["pid"]
            valkey.suspend()
            try:
                # What is asked before the lease is in doubt is still run.
                events = await peer.run("x")
                deadline = time.monotonic() + 10
                while events[-1]["type"] != "fault":
                    assert time.monotonic() < deadline
                    events = await peer.run("x")
                assert events[-1]["code"] == "store_unavailable"
                assert events[-1]["retry_after"] > 0
                answer = call(broker, "POST", f"/v1/sessions/{session}/execute", {"code": "x"})
                assert (answer.status, answer.error["code"]) == (503, "store_unavailable")
                assert int(answer.headers["Retry-After"]) >= 1
                assert row_of(broker, session)["state"] == "suspended"
                ready = call(broker, "GET", "/readyz")
                assert (ready.status, ready.body["ready"]) == (503, False)
                assert any("store" in reason for reason in ready.body["reasons"])
                new = call(broker, "POST", "/v1/execute", {"code": "1"})
                assert (new.status, new.error["code"]) == (503, "store_unavailable")
                assert psutil.pid_exists(pid)
            finally:
                valkey.resume()
            ask_until(lambda: row_of(broker, session)["state"] == "ready", "the session back")
            assert await peer.value("x * 2 + 2") == "42"
            assert row_of(broker, session)["pid"] == pid
            assert value_of(broker, new_name(), "1 + 1") == "2"
        assert "Traceback" not in broker.log


# Capacity


async def test_a_full_pool_says_so_with_retry_after_and_recovers(start: Callable[..., Any]) -> None:
    full = '[tenant]\nwaiting = 0\n[profiles.python]\npreload = ["json"]\nwarm = 1\ncap = 2\n'
    with start(full) as broker:
        first, second, third = new_name(), new_name(), new_name()
        execute(broker, first, "x = 20")
        execute(broker, second, "x = 20")
        answer = call(broker, "POST", f"/v1/sessions/{third}/execute", {"code": "1"})
        assert (answer.status, answer.error["code"]) == (503, "capacity")
        assert answer.error["retry_after"] > 0
        assert int(answer.headers["Retry-After"]) >= 1
        answer = call(broker, "POST", "/v1/execute", {"code": "1"})
        assert (answer.status, answer.error["code"]) == (503, "capacity")
        async with attached(broker, third) as peer:
            [fault] = await peer.run("1")
            assert (fault["type"], fault["code"]) == ("fault", "capacity")
            assert fault["retry_after"] > 0
            assert value_of(broker, first, "x") == "20"
            assert call(broker, "DELETE", f"/v1/sessions/{second}").status == 200
            events = await peer.run("6 * 7")
            assert events[-1]["status"] == "ok", events
        assert value_of(broker, first, "x") == "20"


async def test_sessions_refused_for_capacity_leave_nothing_behind(
    start: Callable[..., Any],
) -> None:
    full = '[tenant]\nwaiting = 0\n[profiles.python]\npreload = ["json"]\nwarm = 1\ncap = 1\n'
    with start(full) as broker:
        execute(broker, "first", "x = 20")
        for _ in range(20):
            async with attached(broker, new_name()) as peer:
                [fault] = await peer.run("1")
                assert fault["code"] == "capacity"
        ask_until(lambda: metric(broker, "broker_sessions") == 1, "refused sessions forgotten")
        assert value_of(broker, "first", "x") == "20"


async def test_a_broken_profile_names_the_module_backs_off_and_harms_no_other(
    start: Callable[..., Any],
) -> None:
    broken = SMALL + '[profiles.bad]\npreload = ["no_such_module_here"]\nwarm = 1\n'
    with start(broken) as broker:
        began = time.monotonic()
        answer = call(broker, "POST", "/v1/execute", {"code": "1", "profile": "bad"})
        assert (answer.status, answer.error["code"]) == (503, "capacity")
        assert "no_such_module_here" in answer.error["message"]
        assert answer.error["retry_after"] > 0
        async with attached(broker, new_name(), profile="bad") as peer:
            [fault] = await peer.run("1")
            assert fault["code"] == "capacity"
            assert "no_such_module_here" in fault["message"]
        assert value_of(broker, new_name(), "6 * 7") == "42"

        def failures() -> float:
            return metric(broker, "broker_pool_start_failures_total", profile="bad")

        ask_until(lambda: failures() >= 3, "the third attempt")
        # Pauses of 0.5 and 1 s lie between the first three.
        assert time.monotonic() - began > 0.9
        assert failures() <= 4
        pools = call(broker, "GET", "/v1/pools").body["pools"]
        states = {pool["profile"]: pool["state"] for pool in pools}
        assert states == {"python": "ok", "bad": "backoff"}
        assert "Traceback" not in broker.log


def test_a_third_signal_ends_a_broker_whose_kernels_do_not_end(start: Callable[..., Any]) -> None:
    with start('orphan_ttl = "1s"\n' + SMALL) as broker:
        execute(broker, new_name(), "x = 20")
        [zygote] = Broker(broker.url, broker.token).status()["zygotes"]
        os.kill(zygote["pid"], signal.SIGSTOP)  # it buries none of those it has forked
        try:
            for asked in range(1, 4):
                assert broker.process.poll() is None, f"ended by signal {asked - 1}"
                broker.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    broker.process.wait(60 if asked == 3 else 1)
            assert broker.process.returncode == -signal.SIGTERM
        finally:
            os.kill(zygote["pid"], signal.SIGKILL)
