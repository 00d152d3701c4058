"""The Python client against a peer that speaks the protocol over real sockets."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.client import (
    AtCapacity,
    BadRequest,
    Broker,
    BrokerError,
    ConnectionLost,
    ExecutionFailed,
    NoServer,
    NotRunning,
    QueueFull,
    ServerFault,
    Session,
    SessionGone,
    SlowClient,
    Unauthorized,
    UnknownSession,
    find,
)
from tests.broker.scripted_peer import Peer, running_peer

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as scripted:
        yield scripted


@pytest.fixture
def broker(peer: Peer) -> Broker:
    peer.answers |= {
        "x * 2 + 2": [
            {"type": "started", "execution_count": 1, "code": "x * 2 + 2"},
            {"type": "stream", "name": "stdout", "text": "one\n"},
            {"type": "stream", "name": "stderr", "text": "two\n"},
            {"type": "stream", "name": "stdout", "text": "three\n"},
            {"type": "result", "data": {"text/plain": "42"}, "execution_count": 1},
        ],
        "1/0": [
            {
                "type": "error",
                "name": "ZeroDivisionError",
                "message": "division by zero",
                "traceback": ["Traceback", "ZeroDivisionError: division by zero"],
            },
            {"type": "done", "status": "error"},
        ],
        "plot": [
            {"type": "display", "data": {"image/png": base64.b64encode(PNG).decode()}},
            {"type": "display", "data": {"text/plain": "old"}, "display_id": "a"},
            {"type": "display", "data": {"text/plain": "new"}, "display_id": "a", "update": True},
            {"type": "result", "data": {"text/html": "<table>", "text/plain": "  a\n0 1"}},
        ],
        "forever": [{"type": "started"}, {"do": "wait"}],
        "full": [{"do": "fault", "code": "queue_full", "message": "32 wait", "retry_after": 2.5}],
        "gone": [{"do": "close", "code": 4404, "reason": "killed"}],
        "slow": [{"do": "close", "code": 4408}],
        "cut": [{"type": "started"}, {"do": "cut"}],
    }
    return Broker(peer.url, peer.token)


@pytest.fixture
def session(broker: Broker) -> Any:
    with broker.session("chat-42") as session:
        yield session


def test_a_result_has_the_streams_the_value_and_the_order(session: Session) -> None:
    result = session.execute("x * 2 + 2")
    assert (result.stdout, result.stderr, result.value) == ("one\nthree\n", "two\n", "42")
    assert result.text == "one\ntwo\nthree\n42\n"
    assert (result.status, result.generation, result.state) == ("ok", 1, "fresh")
    assert result.duration == 0.01
    assert result.raise_for_status() is result
    assert session.execute("x * 2 + 2").state == "warm"


def test_an_error_is_a_result_and_is_raised_when_asked(session: Session) -> None:
    result = session.execute("1/0")
    assert result.error is not None
    assert str(result.error) == "ZeroDivisionError: division by zero"
    with pytest.raises(ExecutionFailed, match="error: ZeroDivisionError") as failed:
        result.raise_for_status()
    assert failed.value.result is result


def test_images_are_bytes_and_an_update_replaces_its_display(session: Session) -> None:
    result = session.execute("plot")
    assert result.images == [PNG]
    assert result.html == "<table>"
    assert result.displays[1:] == ({"text/plain": "new"},)


def test_events_come_as_they_happen(session: Session, peer: Peer) -> None:
    coming = session.stream("forever")
    assert next(coming)["type"] == "session"
    assert next(coming)["type"] == "started"
    assert "interrupted" in session.interrupt()
    assert [event["type"] for event in coming] == ["done"]
    seen: list[str] = []
    session.execute("x * 2 + 2", on_event=lambda event: seen.append(event["type"]))
    assert seen == ["started", "stream", "stream", "stream", "result", "done"]


def test_another_thread_interrupts(session: Session, peer: Peer) -> None:
    results: list[Any] = []
    runner = threading.Thread(target=lambda: results.append(session.execute("forever")))
    runner.start()
    peer.wait_for("execute")
    session.interrupt()
    runner.join(20)
    assert results[0].status == "interrupted"


def test_options_travel_and_absent_ones_do_not(session: Session, peer: Peer) -> None:
    session.execute("x", timeout=2.5, silent=True)
    request = peer.requests[-1]
    del request["id"]
    assert request == {"type": "execute", "code": "x", "timeout": 2.5, "silent": True}


def test_a_refused_request_raises_and_the_session_goes_on(session: Session) -> None:
    with pytest.raises(QueueFull, match="32 wait") as refused:
        session.execute("full")
    assert refused.value.retry_after == 2.5
    with pytest.raises(NotRunning):
        session.interrupt()
    with pytest.raises(BadRequest, match="cannot be sent"):
        session.execute("x", metadata={"a": object()})
    assert session.execute("x * 2 + 2").value == "42"


def test_a_fault_that_names_no_request_answers_the_latest(session: Session, peer: Peer) -> None:
    peer.answers["big"] = [{"do": "fault", "id": None, "code": "too_large", "message": "8 MiB"}]
    with pytest.raises(BadRequest, match="8 MiB") as refused:
        session.execute("big")
    assert refused.value.code == "too_large"


@pytest.mark.parametrize(
    ("code", "error"), [("gone", SessionGone), ("slow", SlowClient), ("cut", ConnectionLost)]
)
def test_a_closed_socket_is_a_typed_error_and_the_next_call_connects_again(
    broker: Broker, code: str, error: type[BrokerError]
) -> None:
    with broker.session("chat-42", reconnect=0) as session:
        with pytest.raises(error):
            session.execute(code)
        assert session.execute("x * 2 + 2").value == "42"


def test_a_session_closed_while_idle_is_joined_again(session: Session, peer: Peer) -> None:
    session.ping()
    peer.attach["chat-42"] = {"generation": 2, "state": "lost", "reason": "killed"}
    peer.close(4404, "killed")
    reader = session._line._reader
    assert reader is not None
    reader.join(20)
    result = session.execute("x * 2 + 2")
    assert (result.state, result.reason, result.generation) == ("lost", "killed", 2)


def test_other_clients_events_are_not_ours(session: Session, peer: Peer) -> None:
    peer.answers["shared"] = [{"do": "wait"}]
    coming = session.stream("shared")
    assert next(coming)["type"] == "session"
    peer.wait_for("execute")
    peer.send({"type": "stream", "id": "somebody-1", "name": "stdout", "text": "theirs"})
    session.interrupt()
    assert [event["type"] for event in coming] == ["done"]


def test_a_session_asks_for_lower_bounds_each_time_it_connects(broker: Broker, peer: Peer) -> None:
    with broker.session("a", "data", limits={"memory": "256M", "cpu_time": 5}) as session:
        session.ping()
    assert peer.queries == [{"profile": "data", "memory": "256M", "cpu_time": "5"}]


def test_a_one_shot_asks_for_lower_bounds(broker: Broker, peer: Peer) -> None:
    peer.http[("POST", "/v1/execute")] = (200, {"status": "ok", "outputs": [], "done": {}})
    broker.execute("1", limits={"memory": "64M"})
    assert peer.asked[-1][2:] == ({"memory": "64M"}, {"code": "1"})


def test_restart_is_news_to_the_next_execution(session: Session) -> None:
    session.execute("x")
    assert session.restart() == {"generation": 2}
    assert session.generation == 2
    result = session.execute("x")
    assert (result.state, result.reason) == ("lost", "restart")
    assert session.execute("x").state == "warm"


def test_close_ends_the_session(session: Session, peer: Peer) -> None:
    session.close()
    assert peer.requests[-1]["type"] == "close"


def test_json_is_spoken_when_the_broker_has_no_msgpack(peer: Peer, broker: Broker) -> None:
    peer.subprotocols = ["broker.v1.json"]
    with broker.session("a") as session:
        assert session.execute("x * 2 + 2").value == "42"
        assert session.execute("plot").images == [PNG]


def test_refusals_at_the_door_are_typed(peer: Peer) -> None:
    with pytest.raises(Unauthorized, match="wrong token"):
        Broker(peer.url, "no").session("a").attach()
    with pytest.raises(Unauthorized):
        list(Broker(peer.url, "no").sessions())
    with pytest.raises(BadRequest, match="needs a name"):
        Broker(peer.url, "no").session("").attach()
    with pytest.raises(BadRequest, match="begins with http:// or https://"):
        Broker("ftp://x", "no").session("a").attach()
    with pytest.raises(BadRequest, match="begins with http:// or https://"):
        list(Broker("x", "no").sessions())


def test_an_address_where_nothing_listens_is_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(NoServer, match="no broker answers at"):
        Broker(url, "t").session("a").attach()
    with pytest.raises(NoServer, match="Connection refused"):
        Broker(url, "t").status()


def test_http_calls(peer: Peer, broker: Broker) -> None:
    pages = {"": (["a", "b"], "b"), "b": (["c"], None)}

    def listing(query: dict[str, str]) -> tuple[int, Any]:
        names, after = pages[query.get("after", "")]
        return 200, {"sessions": [{"session": name} for name in names], "next": after}

    peer.http[("GET", "/v1/sessions")] = listing
    peer.http[("DELETE", "/v1/sessions/a:b@c")] = (200, {"session": "a:b@c", "generation": 1})
    peer.http[("GET", "/v1/nodes")] = (200, {"nodes": [1]})
    peer.http[("GET", "/v1/pools")] = (200, {"pools": [2], "broker": {}})
    assert [row["session"] for row in broker.sessions(idle=60)] == ["a", "b", "c"]
    assert peer.asked[0][2] == {"idle": "60"}
    assert broker.kill("a:b@c", reason="test")["generation"] == 1
    assert peer.asked[-1][2] == {"reason": "test"}
    assert broker.status(memory=True) == {"nodes": [1], "pools": [2], "broker": {}}
    with pytest.raises(UnknownSession):
        broker.kill("nobody")


def test_one_shot_execution(peer: Peer, broker: Broker) -> None:
    outputs = [
        {"type": "stream", "name": "stdout", "text": "hi\n"},
        {"type": "result", "data": {"text/plain": "3"}},
    ]
    done = {"status": "ok", "duration": 0.5, "generation": 1}
    answer = {"status": "ok", "generation": 1, "state": "fresh", "outputs": outputs, "done": done}
    peer.http[("POST", "/v1/execute")] = (200, answer)
    result = broker.execute("1+2", timeout=3)
    assert (result.stdout, result.value, result.state) == ("hi\n", "3", "fresh")
    assert peer.asked[-1][3] == {"code": "1+2", "timeout": 3}
    error = {"error": {"code": "capacity", "message": "full", "retry_after": 1}}
    peer.http[("POST", "/v1/execute")] = (503, error)
    with pytest.raises(AtCapacity, match="full"):
        broker.execute("1")
    peer.http[("POST", "/v1/execute")] = (502, "<html>")
    with pytest.raises(ServerFault, match="no broker"):
        broker.execute("1")


def test_the_place_is_found_by_arguments_then_environment_then_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    local = {"url": "http://127.0.0.1:1", "token": "local", "pid": 1}
    (tmp_path / ".state").mkdir()
    (tmp_path / ".state" / "server.json").write_text(json.dumps(local))
    environ = {"BROKER_URL": "http://b", "BROKER_TOKEN": "env"}
    assert find("http://a/", "arg", environ=environ).url == "http://a"
    assert find(environ=environ).token == "env"
    assert find(environ={}).token == "local"
    assert find("http://127.0.0.1:1", environ={}).token == "local"
    assert find("http://elsewhere", environ={}).token == "", "a token goes to its own broker only"
    assert "local" not in repr(find(environ={}))
    with pytest.raises(NoServer, match=r"there is no .*nowhere/server\.json"):
        find(state_dir=tmp_path / "nowhere", environ={})
    (tmp_path / ".state" / "server.json").write_text("{")
    with pytest.raises(NoServer, match="cannot be used"):
        find(environ={})


def test_importing_the_client_needs_nothing_of_the_server() -> None:
    script = """
import sys
allowed = {"websockets", "msgpack", "broker"}
class Wall:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names:
            raise ImportError(f"the client wants {name}")
        if name.startswith("broker.") and not name.startswith("broker.client"):
            raise ImportError(f"the client wants {name}")
sys.meta_path.insert(0, Wall())
import broker.client
assert "asyncio" not in sys.modules and "websockets" not in sys.modules
from broker.client import AsyncBroker
import broker.client.socket, websockets.sync.client, websockets.asyncio.client, msgpack
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
