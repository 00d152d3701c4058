"""A kernel that takes its own sockets in hand: it is ended with a reason, or nothing comes of it.

Either way the broker and a neighbour's session do not notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import RunningBroker, broker_process, short_dir
from tests.system.peer import PeakMemory, Peer, attached, new_name, value_of

__all__ = ["short_dir"]

GROWTH = 150  # MiB that the broker may grow by; the floods are several times that
PATIENCE = 2.0  # s that a neighbour may wait for an answer, on a machine with much else to do

# What the cells have at hand. `write` goes past libzmq, to the socket itself; `wire` makes bytes
# of a ZMTP message, `signed` the frames of a Jupyter message with the kernel's own key.
PRELUDE = """
import json, os, select, socket, time
kernel = get_ipython().kernel
key = kernel.session
asked = kernel.get_parent()["header"]
kernel.iopub_socket.flush()  # or the kernel's own words would get in between those of a long frame
CHANNELS = {"shell": 1, "iopub": 2, "stdin": 3, "control": 5}
MORE, LONG, COMMAND = 1, 2, 4

def sockets():
    for name in os.listdir("/proc/self/fd"):
        try:
            one = socket.socket(fileno=int(name))
        except OSError:
            continue
        if one.family == socket.AF_UNIX:
            yield socket.socket(fileno=os.dup(one.fileno()))
        one.detach()

def is_of(one, channel):
    try:
        one.getpeername()
    except OSError:
        return False
    return str(one.getsockname()).endswith(f"k-{CHANNELS[channel]}")

ALL = list(sockets())
wires = lambda channel: [one for one in ALL if is_of(one, channel)]

def write(channel, data):
    found = wires(channel)
    assert found, "no such socket"
    for one in found:
        left = memoryview(data)
        while left:
            select.select([], [one], [])
            try:
                left = left[os.write(one.fileno(), left):]
            except BlockingIOError:
                pass

def frame(flags, body):
    if len(body) < 256:
        return bytes([flags, len(body)]) + body
    return bytes([flags | LONG]) + len(body).to_bytes(8, "big") + body

def wire(frames):
    last = len(frames) - 1
    return b"".join(frame(MORE if i < last else 0, part) for i, part in enumerate(frames))

def raw_signed(header, parent, metadata, content):
    parts = [header, parent, metadata, content]
    return [b"<IDS|MSG>", key.sign(parts), *parts]

def signed(kind, content=None, parent=asked["msg_id"], **fields):
    header = {"msg_type": kind, "msg_id": "x", **fields}
    objects = [header, {"msg_id": parent} if parent else {}, {}, content or {}]
    return raw_signed(*(json.dumps(one).encode() for one in objects))

def next_id(step):
    name, _, number = asked["msg_id"].rpartition("_")
    return f"{name}_{int(number) + step}"
"""


@pytest.fixture(scope="module")
def running(short_dir: Callable[[], Path]) -> Iterator[RunningBroker]:
    """One broker for all attacks of this worker."""
    started: AbstractContextManager[RunningBroker] = broker_process(short_dir(), "--warm", "2")
    with started as broker:
        yield broker


@pytest.fixture
def attacked(running: RunningBroker) -> Iterator[RunningBroker]:
    """The broker; the sessions of each attack end with it."""
    yield running
    running.end(running.sessions())


@asynccontextmanager
async def neighbour(broker: RunningBroker) -> AsyncIterator[None]:
    """Hold that a session of its own is answered, again and again, while the block lasts."""
    waits: list[float] = []
    async with attached(broker, new_name("neighbour")) as peer:
        assert await peer.value("1 + 1") == "2"

        async def ask() -> None:
            while True:
                began = time.monotonic()
                assert await peer.value("1 + 1") == "2"
                waits.append(time.monotonic() - began)

        asking = asyncio.create_task(ask())
        try:
            yield
        finally:
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
        assert await peer.value("1 + 1") == "2"
    assert max(waits, default=0.0) < PATIENCE


async def attack(broker: RunningBroker, peer: Peer, code: str, **fields: Any) -> dict[str, Any]:
    """Run the code in a session with a variable; return its `done`."""
    assert (await peer.run("kept = 20"))[-1]["status"] == "ok"
    async with neighbour(broker):
        with PeakMemory(broker.pid) as memory:
            events = await peer.run(f"{PRELUDE}\n{textwrap.dedent(code)}", **fields)
    assert memory.grown < GROWTH
    assert [event for event in events if event["type"] == "error"] == []
    return events[-1]


SENT_RAW = {
    "garbage": "b'\\xff' * 1000",
    "text": "b'GET / HTTP/1.1\\r\\n\\r\\n'",
    "zeros that are empty messages": "bytes(1000)",
    "a message that never ends": "frame(MORE, b'x' * 1_000_000) * 1000",
    "small parts without end": "frame(MORE, b'') * 1_000_000",
    "a frame of 2**62 bytes": "bytes([LONG]) + (1 << 62).to_bytes(8, 'big')",
    "a second READY": "frame(COMMAND, b'\\x05READY')",
    "a subscription": "frame(COMMAND, b'\\x09SUBSCRIBE')",
    "pings without end": "frame(COMMAND, b'\\x04PING\\0\\0') * 2_000_000",
    "frames without a delimiter": "wire([b'x'] * 100)",
    "an empty message": "wire([b''])",
    "a wrong signature": "wire([b'<IDS|MSG>', b'0' * 64, b'{}', b'{}', b'{}', b'{}'])",
    "a million messages": "wire(signed('comm_msg')) * 1_000_000",
    "a million of nobody's": "wire(signed('status', parent='nobody')) * 1_000_000",
    "a million without a type": "wire(raw_signed(b'{}', b'{}', b'{}', b'{}')) * 1_000_000",
    "a long header": "wire(signed('x' * 1_000_000))",
    "a long parent": "wire(signed('status', parent='x' * 1_000_000))",
    "a long metadata": "wire(raw_signed(b'{}', b'{}', b'{\"a\":\"' + b'x' * 999_999, b'{}'))",
    "a header that is a list": "wire(raw_signed(b'[]', b'{}', b'{}', b'{}'))",
    "a header that is no JSON": "wire(raw_signed(b'{', b'{}', b'{}', b'{}'))",
    "a number of 5000 digits": "wire(raw_signed(b'{\"a\":%s}' % (b'9' * 5000), *[b'{}'] * 3))",
    "NaN": "wire(raw_signed(b'{}', b'{}', b'{\"a\": NaN}', b'{}'))",
    "no UTF-8": "wire(raw_signed(b'{\"msg_type\": \"\\xff\"}', b'{}', b'{}', b'{}'))",
    "half a surrogate pair": "wire(raw_signed(b'{\"a\": \"\\\\ud800\"}', b'{}', b'{}', b'{}'))",
    "a deep header": "wire(raw_signed(b'{\"a\":' + b'[' * 2000, b'{}', b'{}', b'{}'))",
}


# Each on one of the channels: all four are read by the same code.
@pytest.mark.parametrize(
    ("channel", "name"),
    list(zip(cycle(["iopub", "shell", "stdin", "control"]), SENT_RAW, strict=False)),
)
async def test_bytes_that_no_kernel_sends_end_the_kernel(
    attacked: RunningBroker, channel: str, name: str
) -> None:
    async with attached(attacked, new_name()) as peer:
        code = f"write({channel!r}, {SENT_RAW[name]})\ntime.sleep(60)"
        done = await attack(attacked, peer, code)
        assert (done["status"], done["reason"]) == ("lost", "bad_frame")
        assert await peer.value("'kept' in globals()") == "False"
        assert any(e["type"] == "session" and e.get("reason") == "bad_frame" for e in peer.events)


IOPUB = {
    "content that is a list": "raw_signed(b'{\"msg_type\":\"stream\"}', parent, b'{}', b'[]')",
    "content that is no JSON": "raw_signed(b'{\"msg_type\":\"stream\"}', parent, b'{}', b'{')",
    "content of bare structure": (
        "signed('stream', {'name': 'stdout', 'text': '', 'more': [[]] * 300_000})"
    ),
    "content of deep structure": (
        "raw_signed(b'{\"msg_type\":\"display_data\"}', parent, b'{}', b'{\"data\":' + b'[' * 5000)"
    ),
    "content of large numbers": (
        "raw_signed(b'{\"msg_type\":\"error\"}', parent, b'{}', b'{\"ename\":' + b'9' * 5000)"
    ),
}


@pytest.mark.parametrize("name", IOPUB)
async def test_content_that_no_kernel_sends_ends_the_kernel(
    attacked: RunningBroker, name: str
) -> None:
    async with attached(attacked, new_name()) as peer:
        code = (
            "parent = json.dumps({'msg_id': asked['msg_id']}).encode()\n"
            f"write('iopub', wire({IOPUB[name]}))\ntime.sleep(60)"
        )
        done = await attack(attacked, peer, code)
        assert (done["status"], done["reason"]) == ("lost", "bad_frame")


HARMLESS = {
    "replies on other channels": """
        reply = wire(signed('execute_reply', {'status': 'error'}))
        for channel in ('control', 'stdin', 'iopub'):
            write(channel, reply)
        """,
    "outputs on other channels": """
        output = wire(signed('stream', {'name': 'stdout', 'text': 'elsewhere'}))
        for channel in ('control', 'stdin', 'shell'):
            write(channel, output)
        """,
    "questions that nobody asked for": """
        write('stdin', wire(signed('input_request', {'prompt': '?', 'password': False})) * 1000)
        """,
    "a thousand comms": """
        write('iopub', wire(signed('comm_open', {'comm_id': 'c', 'data': {}})) * 1000)
        """,
    "part of a message": """
        write('stdin', frame(MORE, b'part'))
        write('control', bytes([LONG, 0]))
        """,
    "a ping": "write('shell', frame(COMMAND, b'\\x04PING\\0\\0'))",
    "welcomes": "write('iopub', wire(signed('iopub_welcome', parent='')) * 1000)",
    "buffers": "write('iopub', wire([*signed('comm_msg'), *[b'buffer'] * 900]))",
    "topics": "write('iopub', wire([b'topic'] * 900 + signed('comm_msg')))",
    "keys that come twice": """
        twice = b'{"msg_type": "stream", "msg_type": "none"}'
        write('iopub', wire(raw_signed(twice, b'{}', b'{}', b'{}')))
        """,
    "outputs of no form": """
        for content in ({}, {'data': 1}, {'text': {}}, {'name': []}, {'data': {'image/png': [1]}}):
            for kind in ('stream', 'clear_output', 'status', 'update_display_data', ''):
                write('iopub', wire(signed(kind, content)))
        """,
    "a status of megabytes": """
        write('iopub', wire(signed('status', {'execution_state': 'x' * 3_000_000})))
        """,
    "outputs of others": """
        for parent in ('', 'nobody', next_id(-1), next_id(1), next_id(1000)):
            write('iopub', wire(signed('comm_msg', parent=parent)))
            write('shell', wire(signed('execute_reply', {'status': 'ok'}, parent=parent)))
        """,
}


@pytest.mark.parametrize("name", HARMLESS)
async def test_what_an_honest_kernel_might_send_does_nothing(
    attacked: RunningBroker, name: str
) -> None:
    async with attached(attacked, new_name()) as peer:
        done = await attack(attacked, peer, f"{textwrap.dedent(HARMLESS[name])}\nNone")
        assert done["status"] == "ok"
        events = await peer.run("kept * 2 + 2")
        kinds = [event["type"] for event in events]
        assert kinds == ["started", "result", "done"]
        assert not any(e.get("text") == "elsewhere" for e in peer.events)
        assert await peer.value("kept") == "20"


async def test_an_execution_ended_by_forged_words_harms_only_its_own_session(
    attacked: RunningBroker,
) -> None:
    """The kernel says it is done, twice, and goes on; what it says later is nobody's."""
    code = """
        write('shell', wire(signed('execute_reply', {'status': 'ok', 'execution_count': 7})) * 2)
        write('iopub', wire(signed('status', {'execution_state': 'idle'})) * 2)
        time.sleep(0.5)
        print('late')
        """
    async with attached(attacked, new_name()) as peer:
        done = await attack(attacked, peer, code)
        assert (done["status"], done["execution_count"]) == ("ok", 7)
        assert await peer.value("kept") == "20"
        assert [e.get("id") for e in peer.events if e.get("text") == "late\n"] == [None]


async def test_a_reply_before_it_was_asked_for_answers_nothing(attacked: RunningBroker) -> None:
    code = """
        write('shell', wire(signed('execute_reply', {'status': 'error'}, parent=next_id(1))))
        write('iopub', wire(signed('status', {'execution_state': 'idle'}, parent=next_id(1))))
        """
    async with attached(attacked, new_name()) as peer:
        assert (await attack(attacked, peer, code))["status"] == "ok"
        assert (await peer.run("kept"))[-1]["status"] == "ok"


@pytest.mark.parametrize(
    "item", ["{}", "0", '"a"', '{"a": 0}'], ids=["objects", "numbers", "texts", "members"]
)
async def test_displays_that_are_dear_to_decode_are_bounded_in_what_they_cost_others(
    attacked: RunningBroker, item: str
) -> None:
    code = f"""
        content = b'{{"data": {{"a": [' + b','.join([{item.encode()!r}] * 1_000_000) + b']}}}}'
        head = json.dumps({{'msg_type': 'display_data', 'msg_id': 'x'}}).encode()
        parent = json.dumps({{'msg_id': asked['msg_id']}}).encode()
        data = wire(raw_signed(head, parent, b'{{}}', content))
        for _ in range(12):
            write('iopub', data)
        """
    async with attached(attacked, new_name(), options={"max_size": None}) as peer:
        assert (await peer.run("kept = 20"))[-1]["status"] == "ok"
        async with neighbour(attacked):
            events = await peer.run(f"{PRELUDE}\n{textwrap.dedent(code)}")
        assert [event for event in events if event["type"] == "error"] == []
        assert await peer.value("kept") == "20"


async def test_a_display_nested_as_deep_as_can_be_read_reaches_its_client(
    attacked: RunningBroker,
) -> None:
    code = """
        parts = [{'msg_type': 'display_data'}, {'msg_id': asked['msg_id']}, {}]
        content = b'{"data": {"text/plain": ' + b'[' * 1000 + b']' * 1000 + b'}}'
        write('iopub', wire(raw_signed(*(json.dumps(p).encode() for p in parts), content)))
        """
    async with attached(attacked, new_name()) as peer:
        assert (await attack(attacked, peer, code))["status"] == "ok"
        assert await peer.value("kept") == "20"


@pytest.mark.parametrize("channel", ["iopub", "shell"])
async def test_a_kernel_that_hangs_up_is_ended(attacked: RunningBroker, channel: str) -> None:
    code = f"""
        for one in wires({channel!r}):
            one.shutdown(socket.SHUT_RDWR)
        time.sleep(60)
        """
    async with attached(attacked, new_name()) as peer:
        done = await attack(attacked, peer, code)
        assert (done["status"], done["reason"]) == ("lost", "bad_frame")


async def test_a_flood_while_nothing_runs_ends_the_kernel(attacked: RunningBroker) -> None:
    code = f"""{PRELUDE}
import threading
def flood():
    while True:
        write('iopub', wire(signed('comm_msg', parent='nobody')) * 1000)
threading.Thread(target=flood, daemon=True).start()
"""
    session = new_name()
    async with attached(attacked, session) as peer:
        async with neighbour(attacked):
            await peer.send({"type": "execute", "id": "a", "code": code})
            lost = await peer.until("session", state="lost")
        assert lost["reason"] == "bad_frame"
        assert value_of(attacked, session, "1 + 1") == "2"


async def test_the_broker_says_what_it_was_sent_and_nothing_else_of_it(
    attacked: RunningBroker,
) -> None:
    async with attached(attacked, new_name()) as peer:
        await attack(attacked, peer, "write('shell', b'\\xff' * 1000)\ntime.sleep(60)")
    assert "kernel sent frame flags 0xff" in attacked.log
    assert "Traceback" not in attacked.log
    assert "Exception" not in attacked.log
