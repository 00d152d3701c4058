"""Whatever a client sends, it gets a fault or a close code of the tables, and nobody notices."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.endurance.fuzz import fuzz, fuzz_sockets, handshake
from tests.system.conftest import RunningBroker, broker, shared_broker, short_dir
from tests.system.peer import JSON, MSGPACK, attached, new_name, value_of

__all__ = ["broker", "shared_broker", "short_dir"]


def mask(payload: bytes, *, opcode: int = 1, fin: bool = True) -> bytes:
    """Return a client's frame of RFC 6455, 5.2, of up to 125 bytes, masked with zeros."""
    return bytes((opcode | (0x80 if fin else 0), 0x80 | len(payload), 0, 0, 0, 0)) + payload


PING = mask(b'{"type": "ping", "id": "p"}')


@pytest.mark.parametrize("subprotocol", [JSON, MSGPACK])
async def test_any_frame_gets_a_fault_or_a_close_code_of_the_table(
    broker: RunningBroker, subprotocol: str
) -> None:
    neighbour = new_name()
    assert value_of(broker, neighbour, "x = 20; x") == "20"
    tally = await fuzz(broker, 2000, seed=7, subprotocol=subprotocol)
    assert tally.strange == []
    assert tally.frames == 2000
    assert sum(tally.faults.values()) > 1000  # else it would not be what it is meant to be
    assert value_of(broker, neighbour, "x + 1") == "21"
    assert "Traceback" not in broker.log


async def test_bytes_that_are_no_frames_end_the_connection_and_nothing_else(
    broker: RunningBroker,
) -> None:
    tally = await fuzz_sockets(broker, 100, seed=7)
    assert tally.frames == 100
    assert value_of(broker, new_name(), "1 + 1") == "2"
    assert "Traceback" not in broker.log


async def test_a_frame_may_be_split_at_every_byte(broker: RunningBroker) -> None:
    reader, writer = await handshake(broker, new_name())
    for at in range(1, len(PING)):
        writer.write(PING[:at])
        await taken(writer)
        writer.write(PING[at:])
        await until(reader, b'"pong"')
    for byte in PING:
        writer.write(bytes((byte,)))
        await taken(writer)
    await until(reader, b'"pong"')
    writer.close()


async def test_a_message_may_be_in_fragments_of_a_byte_each(broker: RunningBroker) -> None:
    reader, writer = await handshake(broker, new_name())
    text = b'{"type": "ping", "id": "p"}'
    for at, byte in enumerate(text):
        last = at == len(text) - 1
        writer.write(mask(bytes((byte,)), opcode=0 if at else 1, fin=last))
    await until(reader, b'"pong"')
    writer.close()


async def test_half_a_frame_and_then_nothing_costs_nobody_else(broker: RunningBroker) -> None:
    name = new_name()
    halves = [await handshake(broker, name) for _ in range(20)]
    for _, writer in halves:
        writer.write(PING[:9])
        await writer.drain()
    async with attached(broker, name) as peer:
        assert await peer.value("6 * 7") == "42"
    for _, writer in halves:
        writer.close()


async def taken(writer: asyncio.StreamWriter) -> None:
    """Wait until the broker has read all that was written: nothing waits in its socket."""
    own = writer.get_extra_info("sockname")[1]
    async with asyncio.timeout(10):
        await writer.drain()
        while True:
            # proc(5), /proc/net/tcp: local and remote address, state, tx_queue:rx_queue
            lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
            rows = [line.split() for line in lines if line.split()[2].endswith(f":{own:04X}")]
            if rows and all(row[4].endswith(":00000000") for row in rows):
                return
            await asyncio.sleep(0)


async def until(reader: asyncio.StreamReader, words: bytes) -> None:
    async with asyncio.timeout(10):
        await reader.readuntil(words)
