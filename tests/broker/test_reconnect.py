"""Both clients through lost connections, against a peer whose script goes on without them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from broker.client import (
    AsyncBroker,
    BadRequest,
    Broker,
    BrokerError,
    ConnectionLost,
    NoServer,
    OutputLost,
    Session,
    SessionGone,
    StateLost,
    Unauthorized,
)
from broker.client.aio_line import AsyncLine
from broker.client.line import Line
from tests.broker.scripted_peer import Peer, running_peer

CUT = {"do": "cut"}


def text(word: str) -> dict[str, Any]:
    return {"type": "stream", "name": "stdout", "text": word}


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as scripted:
        scripted.answers |= {
            "cut": [text("1"), CUT, text("2"), text("3")],
            "slow": [text("1"), {"do": "close", "code": 4408}, text("2")],
            "drain": [text("1"), {"do": "close", "code": 1001}, text("2")],
            "later": [text("1"), CUT, {"do": "wait"}, text("2")],
            "token": [text("1"), {"do": "close", "code": 4401}],
            "x": [text("x")],
        }
        yield scripted


@pytest.fixture
def session(peer: Peer) -> Iterator[Session]:
    with Broker(peer.url, peer.token).session("a") as session:
        yield session


@pytest.mark.parametrize("code", ["cut", "slow", "drain"])
def test_an_execution_goes_on_over_a_new_connection_and_nobody_notices(
    session: Session, peer: Peer, code: str
) -> None:
    seen: list[int] = []
    result = session.execute(code, on_event=lambda event: seen.append(event["seq"]))
    assert (result.status, result.state) == ("ok", "fresh")
    assert result.stdout in ("123", "12")
    assert seen == [0, *range(1, len(seen))]
    peer.wait_for_sockets(2)
    assert peer.queries[1]["after"] in ("0", "1")  # whether or not the first word had come


def test_an_execution_that_still_runs_is_waited_for(session: Session, peer: Peer) -> None:
    results: list[Any] = []
    runner = threading.Thread(target=lambda: results.append(session.execute("later")))
    runner.start()
    peer.wait_for_sockets(2)
    session.interrupt()
    runner.join(20)
    assert results[0].stdout == "12"


def test_a_request_that_never_arrived_is_sent_again(session: Session, peer: Peer) -> None:
    tries: list[Any] = [[CUT, {"do": "deaf"}], [text("second")]]
    peer.answers["x"] = []
    peer.make = lambda code: tries.pop(0)
    assert session.execute("x").stdout == "second"
    sent = [request for request in peer.requests if request["type"] == "execute"]
    assert sent[0] == sent[1]


def test_a_connection_lost_while_idle_is_made_anew_without_a_call(
    session: Session, peer: Peer
) -> None:
    session.execute("x")
    peer.cut()
    peer.wait_for_sockets(2)
    assert session.execute("x").stdout == "x"


def test_events_that_are_gone_raise_output_lost_with_their_range(
    session: Session, peer: Peer
) -> None:
    peer.gone["a"] = 2
    peer.answers["long"] = [text("1"), CUT, text("2"), text("3")]
    with pytest.raises(OutputLost) as lost:
        session.execute("long")
    first, last = lost.value.missed or (0, 0)
    assert first in (1, 2)
    assert last == 2
    assert lost.value.result is not None
    assert lost.value.result.stdout.endswith("3")
    assert session.execute("x").stdout == "x"


def test_a_kernel_lost_on_the_way_raises_state_lost(session: Session, peer: Peer) -> None:
    session.ping()  # it has seen the first generation
    peer.attach["a"] = {"generation": 2, "state": "lost", "reason": "node_lost", "seq": 9}
    peer.gone["a"] = 9
    peer.answers["moved"] = [CUT, {"do": "deaf"}]
    with pytest.raises(StateLost) as lost:
        session.execute("moved")
    assert (lost.value.generation, lost.value.reason) == (2, "node_lost")


def test_a_token_that_ran_out_is_not_tried_again(session: Session, peer: Peer) -> None:
    with pytest.raises(Unauthorized):
        session.execute("token")
    assert len(peer.queries) == 1


def test_a_broker_that_stays_away_is_given_up(peer: Peer) -> None:
    with Broker(peer.url, peer.token).session("a", reconnect=0.3) as session:
        session.execute("x")
        peer.token = "another"
        with pytest.raises(Unauthorized):
            session.execute("cut")


def test_a_server_that_is_gone_is_given_up_in_time() -> None:
    with running_peer() as peer:
        peer.answers["x"] = [{"do": "wait"}]
        session = Broker(peer.url, peer.token).session("a", reconnect=0.3)
        coming = session.stream("x")
        next(coming)
    with pytest.raises(NoServer):
        list(coming)
    session.detach()


def loss(generation: int, reason: str) -> dict[str, Any]:
    return {"type": "session", "state": "lost", "generation": generation, "reason": reason}


def test_a_loss_is_raised_when_asked_with_the_result_and_once(peer: Peer) -> None:
    died = {"type": "done", "status": "lost", "reason": "oom", "generation": 2}
    peer.answers |= {
        "after": [loss(2, "idle"), text("x"), {"type": "done", "status": "ok", "generation": 2}],
        "dies": [died],
        "next": [loss(3, "oom"), text("y"), {"type": "done", "status": "ok", "generation": 3}],
        "untold": [{"type": "done", "status": "lost", "reason": "broker_restart"}],
    }
    with Broker(peer.url, peer.token).session("a", on_lost="raise") as session:
        session.execute("x")
        with pytest.raises(StateLost, match="gone with generation 1: idle") as lost:
            session.execute("after")
        assert lost.value.result is not None
        assert (lost.value.generation, lost.value.reason) == (2, "idle")
        assert lost.value.result.stdout == "x"
        for _ in range(2):  # what is lost itself is raised whatever is known
            with pytest.raises(StateLost, match="gone with generation 2: oom") as lost:
                session.execute("dies")
            assert lost.value.generation == 3
        assert session.execute("next").stdout == "y"  # of the same loss
        assert session.execute("untold").status == "lost"  # its variables are there


def test_a_restart_of_ones_own_is_no_loss_to_raise(peer: Peer) -> None:
    ended = {"type": "done", "status": "ok", "generation": 3}
    peer.answers["after"] = [loss(3, "restart"), ended]  # another client's
    with Broker(peer.url, peer.token).session("a", on_lost="raise") as session:
        session.execute("x")
        session.restart()
        assert session.execute("x").state == "lost"
        with pytest.raises(StateLost, match="gone with generation 2: restart"):
            session.execute("after")


def surroundings(peer: Peer) -> list[dict[str, Any]]:
    """Return what was set around all that runs, in order."""
    told = [request for request in peer.requests if request["type"] == "configure"]
    return [{k: v for k, v in one.items() if k not in ("type", "id")} for one in told]


def test_a_session_has_its_surroundings_before_anything_and_after_each_lost_connection(
    peer: Peer,
) -> None:
    broker = Broker(peer.url, peer.token)
    with broker.session("a", env={"A": "1", "B": None}, cwd="in") as session:
        given = {"env": {"A": "1", "B": None}, "cwd": "in", "again": True}
        assert surroundings(peer) == [given]
        session.configure({"C": "3"})
        peer.answers["late"] = [CUT, {"do": "deaf"}]
        tries: list[Any] = [[CUT, {"do": "deaf"}], [text("second")]]
        peer.make = lambda code: tries.pop(0)
        assert session.execute("late").stdout == "second"
        both = {"env": {"A": "1", "B": None, "C": "3"}, "cwd": "in", "again": True}
        assert surroundings(peer) == [given, {"env": {"C": "3"}}, both]
        kinds = [request["type"] for request in peer.requests]
        assert kinds == ["configure", "configure", "execute", "configure", "execute"]
    with broker.session("b") as plain:
        plain.ping()
    assert len(surroundings(peer)) == 3


def test_surroundings_that_are_refused_are_raised_and_nothing_runs_without_them(
    peer: Peer,
) -> None:
    session = Broker(peer.url, peer.token).session("a", env={"REFUSED": "1"})
    for _ in range(2):
        with pytest.raises(BadRequest) as refused:
            session.execute("x")
        assert refused.value.field == "env"
    peer.wait_for_none()
    assert {request["type"] for request in peer.requests} == {"configure"}


def test_nothing_runs_without_its_surroundings_after_a_lost_connection(peer: Peer) -> None:
    def make(code: str) -> list[dict[str, Any]]:
        peer.configures = "refuses"
        return [CUT, {"do": "deaf"}]

    peer.make = make
    session = Broker(peer.url, peer.token).session("a", env={"A": "1"})
    with pytest.raises(BadRequest) as refused:
        session.execute("x")
    assert refused.value.field == "env"
    assert len(surroundings(peer)) == 2
    assert [one["type"] for one in peer.requests].count("execute") == 1
    peer.wait_for_none()


async def test_whoever_comes_after_a_cancelled_caller_has_the_surroundings(peer: Peer) -> None:
    peer.configures = "ignores"
    async with asyncio.timeout(20):
        session = AsyncBroker(peer.url, peer.token).session("a", env={"A": "1"})
        waiting = asyncio.create_task(session.execute("x"))
        await asyncio.to_thread(peer.wait_for, "configure")
        waiting.cancel()
        await asyncio.wait([waiting])
        peer.configures = "refuses"
        with pytest.raises(BadRequest):
            await session.execute("x")
        peer.configures = "answers"
        assert (await session.execute("x")).stdout == "x"
        await session.configure(cwd="in")
        assert (await session.execute("x")).stdout == "x"
        await session.detach()
    given = {"env": {"A": "1"}, "again": True}
    assert surroundings(peer) == [given, given, given, {"cwd": "in"}]
    assert [one["type"] for one in peer.requests].count("execute") == 2


def test_who_waits_for_the_surroundings_does_not_keep_another_from_closing(peer: Peer) -> None:
    peer.configures = "ignores"
    session = Broker(peer.url, peer.token).session("a", env={"A": "1"})
    waiting = threading.Thread(target=lambda: suppressed(session.ping), daemon=True)
    waiting.start()
    peer.wait_for("configure")
    closing = threading.Thread(target=session.detach, daemon=True)
    closing.start()
    for thread in (closing, waiting):
        thread.join(20)
        assert not thread.is_alive()


def suppressed(work: Callable[[], object]) -> None:
    with suppress(BrokerError):
        work()


async def test_a_broker_that_does_not_answer_is_given_up(peer: Peer) -> None:
    peer.configures = "ignores"
    broker = Broker(peer.url, peer.token).session("a")
    line = Line("a", broker._dialler(), patience=0.01)
    line.link.surround({"A": "1"}, None)
    with pytest.raises(ConnectionLost):
        await asyncio.to_thread(line.open)
    twin = AsyncLine("a", AsyncBroker(peer.url, peer.token).session("a")._dialler(), patience=0.01)
    twin.link.surround({"A": "1"}, None)
    with pytest.raises(ConnectionLost):
        await twin.open()
    await asyncio.to_thread(peer.wait_for_none)


async def test_the_asyncio_client_has_its_surroundings_likewise(peer: Peer) -> None:
    broker = AsyncBroker(peer.url, peer.token)
    async with broker.session("a", env={"A": "1"}) as session:
        await session.execute("cut")
        await session.configure(cwd="in")
        peer.cut()
        await asyncio.to_thread(peer.wait_for_sockets, 3)
        await session.execute("x")
    given = {"env": {"A": "1"}, "again": True}
    assert surroundings(peer) == [given, given, {"cwd": "in"}, {**given, "cwd": "in"}]
    with pytest.raises(BadRequest):
        await broker.session("a", env={"REFUSED": "1"}).attach()


def test_a_watcher_sees_every_event_once_through_lost_connections(
    session: Session, peer: Peer
) -> None:
    watching = session.watch()
    assert next(watching)["type"] == "session"
    session.execute("cut")
    peer.cut()
    session.execute("x")
    events = [next(watching) for _ in range(6)]
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert {"mode": "watch", "create": "false"}.items() <= peer.queries[1].items()
    peer.close(4404, "idle")
    with pytest.raises(SessionGone):
        next(watching)


def test_detach_ends_a_watcher_in_another_thread(peer: Peer) -> None:
    session = Broker(peer.url, peer.token).session("a")
    begun = threading.Event()
    seen: list[Any] = []

    def watch() -> None:
        for event in session.watch():
            seen.append(event)
            begun.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert begun.wait(20)
    session.detach()
    watcher.join(20)
    assert not watcher.is_alive()
    assert len(seen) == 1


def test_detach_tells_what_is_open_that_no_answer_will_come(peer: Peer) -> None:
    peer.answers["x"] = [{"do": "wait"}]
    session = Broker(peer.url, peer.token).session("a")
    coming = session.stream("x")
    next(coming)
    session.detach()
    with pytest.raises(ConnectionLost):
        list(coming)


def test_many_threads_share_a_session_whose_connection_is_cut_again_and_again(
    session: Session, peer: Peer
) -> None:
    for number in range(8):
        peer.answers[f"n{number}"] = [text("1"), CUT, text("2"), text(str(number))]
    results: dict[int, str] = {}

    def run(number: int) -> None:
        results[number] = session.execute(f"n{number}").stdout

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == {number: f"12{number}" for number in range(8)}


async def test_the_asyncio_client_resumes_watches_and_raises_as_the_other_does(peer: Peer) -> None:
    async with AsyncBroker(peer.url, peer.token).session("a", on_lost="raise") as session:
        watching = session.watch()
        assert (await anext(watching))["type"] == "session"
        seen: list[int] = []
        result = await session.execute("cut", on_event=lambda event: seen.append(event["seq"]))
        assert (result.stdout, seen) == ("123", [0, 1, 2, 3, 4])
        peer.cut()
        later = await asyncio.gather(*(session.execute(code) for code in ("cut", "x", "slow")))
        assert [result.stdout for result in later] == ["123", "x", "12"]
        events = [await anext(watching) for _ in range(13)]
        assert [event["seq"] for event in events] == [*range(1, 14)]
        await watching.aclose()
        await session.restart()
        assert (await session.execute("x")).state == "lost"
        peer.answers["dies"] = [{"type": "done", "status": "lost", "generation": 2}]
        with pytest.raises(StateLost):
            await session.execute("dies")
        with pytest.raises(Unauthorized):
            await session.execute("token")


async def test_a_cancelled_task_leaves_no_connection_behind(peer: Peer) -> None:
    peer.answers["x"] = [{"do": "wait"}]
    session = AsyncBroker(peer.url, peer.token).session("a")
    task = asyncio.create_task(session.execute("x"))
    await asyncio.to_thread(peer.wait_for, "execute")
    await session.detach()
    with pytest.raises(ConnectionLost):
        await task
    await asyncio.to_thread(peer.wait_for_none)
