"""The native WebSocket: the events of an execution, their numbers, and who may do what."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from websockets import Subprotocol
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.system.conftest import RunningBroker
from tests.system.peer import JSON, MSGPACK, Event, Peer, attached, call, execute, new_name, row_of

ONE_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SHOW_PIXEL = f"""
from IPython.display import Image, display
display(Image({ONE_PIXEL!r}))
"""
BOTH = pytest.mark.parametrize("subprotocol", [JSON, MSGPACK])


def numbers(events: list[Event]) -> list[int]:
    return [event["seq"] for event in events if "seq" in event]


async def settled(peer: Peer) -> None:
    """Read everything that was sent before now."""
    await peer.send({"type": "ping", "id": "settle"})
    await peer.until("pong", id="settle")


@BOTH
@pytest.mark.row("execute", "started", "stream", "result", "done")
async def test_an_execution_is_started_then_its_outputs_then_exactly_one_done(
    broker: RunningBroker, subprotocol: str
) -> None:
    code = "import sys\nprint('a')\nprint('b', file=sys.stderr)\ndisplay(1)\n6 * 7"
    async with attached(broker, new_name(), subprotocols=[subprotocol]) as peer:
        assert peer.socket.subprotocol == subprotocol
        await peer.run(code, id="e")
        await peer.run("1 / 0", id="f")
        await settled(peer)
        mine = [event for event in peer.events if event.get("id") == "e"]
        kinds = [event["type"] for event in mine]
        assert (kinds[0], kinds[-1], kinds.count("done")) == ("started", "done", 1)
        assert kinds.count("stream") == 2
        assert kinds.index("display") < kinds.index("result")
        started, result, done = mine[0], mine[-2], mine[-1]
        assert (started["code"], started["execution_count"]) == (code, 1)
        assert result["data"] == {"text/plain": "42"}
        assert (done["status"], done["generation"], done["execution_count"]) == ("ok", 1, 1)
        assert done["duration"] > 0
        assert done["queued"] >= 0
        assert done["output_bytes"] >= 4
        assert done["expires_at"] > 0
        failed = [event for event in peer.events if event.get("id") == "f"]
        assert [event["type"] for event in failed] == ["started", "error", "done"]
        assert failed[-1]["status"] == "error"


@BOTH
@pytest.mark.row("session")
async def test_the_first_event_describes_the_session(
    broker: RunningBroker, subprotocol: str
) -> None:
    name = new_name()
    async with attached(broker, name, subprotocols=[subprotocol]) as peer:
        first = await peer.next()
        told = {key: first[key] for key in ("type", "session", "generation", "state", "profile")}
        assert told == {
            "type": "session",
            "session": name,
            "generation": 1,
            "state": "fresh",
            "profile": "python",
        }
        assert first["limits"]["execution_timeout"] == 300
        assert "reason" not in first
        assert "missed" not in first
        async with attached(broker, name) as other:
            assert (await other.next())["state"] == "warm"


async def test_binary_values_are_bytes_in_msgpack_and_base64_in_json(
    broker: RunningBroker,
) -> None:
    name = new_name()
    async with (
        attached(broker, name, subprotocols=[MSGPACK]) as binary,
        attached(broker, name, subprotocols=[JSON]) as text,
    ):
        await binary.run(SHOW_PIXEL)
        shown = [event for event in binary.events if event["type"] == "display"]
        assert shown[0]["data"]["image/png"] == ONE_PIXEL
        same = await text.until("display")
        assert same["seq"] == shown[0]["seq"]
        assert base64.b64decode(same["data"]["image/png"]["base64"]) == ONE_PIXEL


async def test_the_best_subprotocol_offered_is_chosen(broker: RunningBroker) -> None:
    async with attached(broker, new_name(), subprotocols=["other", JSON, MSGPACK]) as peer:
        assert peer.socket.subprotocol == MSGPACK


async def test_two_clients_see_every_event_with_the_same_numbers(broker: RunningBroker) -> None:
    name = new_name()
    async with attached(broker, name) as one, attached(broker, name) as other:
        await one.run("print('one')", id="same")
        await other.run("print('other')", id="same")  # its id is free again
        await one.send({"type": "restart", "id": "r"})
        await one.until("reply", id="r")
        for peer in (one, other):
            await settled(peer)
        # Whoever attached after the kernel was bound was told of the session on its own.
        kept = [
            [event for event in peer.events if "seq" in event and event["type"] != "session"]
            for peer in (one, other)
        ]
        assert kept[0] == kept[1]
        got = numbers(one.events)
        assert all(later - earlier == 1 for earlier, later in itertools.pairwise(got))


async def test_requests_sent_before_the_kernel_is_bound_run_in_order(
    broker: RunningBroker,
) -> None:
    async with attached(broker, new_name()) as peer:
        for name in "abc":
            await peer.send({"type": "execute", "id": name, "code": f"{name} = '{name}'"})
        assert [(await peer.until("done"))["id"] for _ in range(3)] == ["a", "b", "c"]
        assert await peer.value("a + b + c") == "'abc'"


@BOTH
async def test_after_a_number_every_event_since_is_sent_again(
    broker: RunningBroker, subprotocol: str
) -> None:
    name = new_name()
    async with attached(broker, name, subprotocols=[subprotocol]) as peer:
        await peer.run("print('one')")
        seen = numbers(peer.events)[-1]
        await peer.run("print('two')", id="two")
        await settled(peer)
    since = [event for event in peer.events if event.get("seq", 0) > seen]
    assert since[0]["type"] == "started"
    async with attached(broker, name, subprotocols=[subprotocol], after=seen) as again:
        first = await again.next()
        assert (first["type"], first["state"]) == ("session", "warm")
        assert first["seq"] == since[-1]["seq"]
        assert "missed" not in first
        assert [await again.next() for _ in since] == since
        await again.run("1")  # the numbers go on
        assert numbers(again.events[1:]) == list(range(seen + 1, numbers(again.events)[-1] + 1))


@pytest.mark.row("events kept for a reconnect", "ack")
async def test_what_is_gone_from_the_buffer_is_told_as_a_range(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> None:
    directory = short_dir()
    (directory / "broker.toml").write_text(
        "[profiles.python]\npreload = []\nwarm = 1\n[session]\nreplay_events = 5\n"
    )
    name = new_name()
    with start_broker(directory, "--config", str(directory / "broker.toml")) as broker:
        async with attached(broker, name) as peer:
            for _ in range(5):
                await peer.run("print('text')")
        last = numbers(peer.events)[-1]
        async with attached(broker, name, after=1) as again:
            first = await again.next()
            assert first["missed"] == [2, last - 5]
            got = [await again.next() for _ in range(5)]
            assert numbers(got) == list(range(last - 4, last + 1))
            assert got == peer.events[-5:]
        # What a sole client has confirmed is dropped as well.
        async with attached(broker, name) as peer:
            await peer.send({"type": "ack", "seq": last - 1})
            await settled(peer)
        async with attached(broker, name, after=0) as again:
            assert (await again.next())["missed"] == [1, last - 1]
            assert (await again.next())["seq"] == last


@pytest.mark.row("reply")
async def test_a_watcher_sees_everything_and_may_not_change_anything(
    broker: RunningBroker,
) -> None:
    name = new_name()
    async with attached(broker, name) as peer, attached(broker, name, mode="watch") as watcher:
        await peer.run("print('shown')", id="e")
        assert (await watcher.until("stream", id="e"))["text"] == "shown\n"
        await watcher.until("done", id="e")
        for request in (
            {"type": "execute", "id": "w", "code": "x = 1"},
            {"type": "interrupt", "id": "w"},
            {"type": "cancel", "id": "w", "target": "e"},
            {"type": "restart", "id": "w"},
            {"type": "close", "id": "w"},
        ):
            await watcher.send(request)
            assert (await watcher.until("fault", id="w"))["code"] == "forbidden"
        seen = numbers(peer.events)[-1]
        assert await peer.value("'x' in globals()") == "False"
        assert row_of(broker, name)["generation"] == 1
        await peer.socket.close()
        # Alone as it is now, what it has seen is still for others to ask for.
        await watcher.send({"type": "ack", "seq": seen})
        await settled(watcher)
    async with attached(broker, name, after=0) as again:
        assert "missed" not in await again.next()


async def test_a_watcher_starts_no_kernel_and_is_told_why_there_is_none(
    broker: RunningBroker,
) -> None:
    name = new_name()
    with pytest.raises(InvalidStatus) as refused:
        async with attached(broker, name, mode="watch"):
            pass
    assert refused.value.response.status_code == 404
    execute(broker, name, "import os; os._exit(3)")
    async with attached(broker, name, mode="watch") as watcher:
        told = await watcher.next()
        assert (told["state"], told["reason"], told["generation"]) == ("lost", "exit 3", 1)
        assert row_of(broker, name)["kernel"] == ""
        execute(broker, name, "print('again')")
        bound = await watcher.until("session")
        assert (bound["state"], bound["generation"]) == ("lost", 2)
        assert bound["seq"] == told["seq"] + 1
        assert (await watcher.until("stream"))["text"] == "again\n"


async def test_create_false_is_404_for_an_absent_session_and_joins_a_present_one(
    broker: RunningBroker,
) -> None:
    name = new_name()
    with pytest.raises(InvalidStatus) as refused:
        async with attached(broker, name, create="false"):
            pass
    assert refused.value.response.status_code == 404
    assert call(broker, "GET", f"/v1/sessions/{name}").status == 404
    execute(broker, name, "x = 20")
    async with attached(broker, name, create="false") as peer:
        assert await peer.value("x") == "20"
    call(broker, "DELETE", f"/v1/sessions/{name}")
    with pytest.raises(InvalidStatus) as refused:
        async with attached(broker, name, create="false"):
            pass
    assert refused.value.response.status_code == 404


@BOTH
@pytest.mark.row("ping", "pong")
async def test_a_ping_is_answered_to_the_asker_alone(
    broker: RunningBroker, subprotocol: str
) -> None:
    name = new_name()
    async with (
        attached(broker, name, subprotocols=[subprotocol]) as peer,
        attached(broker, name) as other,
    ):
        await peer.send({"type": "ping", "id": "p"})
        assert await peer.until("pong") == {"type": "pong", "id": "p"}
        await other.run("1")
        assert "pong" not in [event["type"] for event in other.events]


async def test_a_silent_execution_has_a_start_and_an_end_and_leaves_no_number(
    broker: RunningBroker,
) -> None:
    async with attached(broker, new_name()) as peer:
        events = await peer.run("x = 20; x", silent=True)
        assert [event["type"] for event in events] == ["started", "done"]
        assert events[1]["status"] == "ok"
        loud = await peer.run("x")
        assert loud[0]["execution_count"] == 1


@pytest.mark.row("display")
async def test_output_updated_in_place_carries_its_display_id(broker: RunningBroker) -> None:
    code = """
from IPython.display import clear_output
handle = display('first', display_id='d')
handle.update('second')
clear_output(wait=True)
"""
    async with attached(broker, new_name()) as peer:
        _, shown, updated, cleared, _ = await peer.run(code)
        assert (shown["type"], shown["display_id"]) == ("display", "d")
        assert "update" not in shown
        assert (updated["type"], updated["display_id"], updated["update"]) == ("display", "d", True)
        assert (cleared["type"], cleared["wait"]) == ("clear", True)


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"token": "wrong"}, 401),
        ({"options": {"additional_headers": {}}}, 401),
        ({"options": {"additional_headers": {"Authorization": "Basic abc"}}}, 401),
    ],
    ids=["wrong", "none", "basic"],
)
async def test_nobody_is_let_in_without_the_token(
    broker: RunningBroker, how: dict[str, Any], status: int
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with attached(broker, new_name(), **how):
            pass
    assert refused.value.response.status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "http://elsewhere.example", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-WebSocket-Version": "12"}, 426),
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Key": ""}, 400),
        ({"Connection": "close"}, 400),
        ({"Upgrade": "h2c"}, 426),
    ],
    ids=["origin", "site", "version", "draft", "key", "connection", "upgrade"],
)
def test_a_handshake_that_fails_makes_no_session(
    broker: RunningBroker, headers: dict[str, str], status: int
) -> None:
    name = new_name()
    good = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Protocol": JSON,
    }
    answer = call(broker, "GET", f"/v1/sessions/{name}/ws", **{**good, **headers})
    assert answer.status == status
    assert answer.error["message"]
    assert (answer.headers.get("Sec-WebSocket-Version") == "13") == (status == 426)
    assert call(broker, "GET", f"/v1/sessions/{name}").status == 404


async def test_only_the_pages_of_allowed_sites_are_let_in(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> None:
    allowed = {"BROKER_WIRE_ALLOW_ORIGINS": "https://chat.example:443, app://desk"}
    with start_broker(short_dir(), "--warm", "1", **allowed) as own:
        for origin, site in (
            ("https://chat.example", "cross-site"),
            ("app://desk", None),
            (own.url, "same-origin"),
        ):
            headers = {"Authorization": f"Bearer {own.token}", "Origin": origin}
            headers |= {"Sec-Fetch-Site": site} if site else {}
            options = {"additional_headers": headers}
            async with attached(own, "a", options=options) as peer:
                assert await peer.value("6 * 7") == "42"
        for origin in ("http://chat.example", "https://chat.example:8443", "null", "app://other"):
            options = {
                "additional_headers": {"Authorization": f"Bearer {own.token}", "Origin": origin}
            }
            with pytest.raises(InvalidStatus) as refused:
                async with attached(own, "b", options=options):
                    pass
            error = json.loads(refused.value.response.body or b"")["error"]
            assert error["code"] == "forbidden"
            assert error["field"] == "Origin"


async def test_a_page_of_the_brokers_own_origin_is_let_in(broker: RunningBroker) -> None:
    headers = {"Authorization": f"Bearer {broker.token}", "Origin": broker.url}
    async with attached(broker, new_name(), options={"additional_headers": headers}) as peer:
        assert await peer.value("6 * 7") == "42"


@pytest.mark.parametrize("scheme", ["Bearer", "token", "query"])
async def test_the_token_is_taken_from_the_header_or_the_query(
    broker: RunningBroker, scheme: str
) -> None:
    url = f"{broker.url.replace('http', 'ws', 1)}/v1/sessions/{new_name()}/ws"
    headers = {} if scheme == "query" else {"Authorization": f"{scheme} {broker.token}"}
    url += f"?token={broker.token}" if scheme == "query" else ""
    subprotocols = [Subprotocol(JSON)]
    async with connect(url, subprotocols=subprotocols, additional_headers=headers) as socket:
        peer = Peer(socket)
        await peer.send({"type": "ping", "id": "p"})
        await peer.until("pong")
