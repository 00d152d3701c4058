"""The streams of cells, in a real store."""

from __future__ import annotations

from broker.store import Store
from broker.store.cells import Part

OWNER = ("acme", "chat")


def part(*cells: bytes, most: int = 1000, keep: float = 60.0) -> Part:
    return Part(OWNER, cells, most, keep)


async def texts(store: Store, most: int = 1000) -> list[bytes]:
    return [cell for _, cell in await store.cells.read(OWNER, most)]


async def test_cells_are_read_in_the_order_they_were_written(store: Store) -> None:
    other = Part(("acme", "other"), [b"z"], 10, 60.0)
    first, [z] = await store.cells.append([part(b"a", "é".encode()), other])
    [second] = await store.cells.append([part(b"c")])
    assert await store.cells.read(OWNER, 10) == [
        *zip([*first, *second], [b"a", "é".encode(), b"c"], strict=True)
    ]
    assert await store.cells.read(("acme", "other"), 10) == [(z, b"z")]
    assert await store.cells.read(("other", "chat"), 10) == []
    assert await texts(store, 2) == ["é".encode(), b"c"]


async def test_more_cells_than_one_page_are_read_whole(store: Store) -> None:
    cells = [str(number).encode() for number in range(120)]
    await store.cells.append([part(*cells)])
    assert await texts(store) == cells
    assert await texts(store, 60) == cells[60:]


async def test_what_is_trimmed_is_gone_to_the_cell(store: Store) -> None:
    [ids] = await store.cells.append([part(b"a", b"b", b"c")])
    await store.cells.trim(OWNER, ids[1])
    assert await texts(store) == [b"b", b"c"]


async def test_a_write_that_was_repeated_is_read_once(store: Store) -> None:
    for _ in range(2):
        await store.cells.append([part(b"a", b"b")])
    await store.cells.append([part(b"c")])
    assert await texts(store) == [b"a", b"b", b"c"]


async def test_a_stream_is_kept_for_a_time_and_bounded_in_number(store: Store, prefix: str) -> None:
    await store.cells.append([part(*(str(n).encode() for n in range(1000)), most=10, keep=7.0)])
    assert len(await texts(store)) < 500  # whole nodes of the stream go, of a hundred entries
    left = await store._connection.ask("PTTL", f"{prefix}:cells:{{acme/chat}}")
    assert 0 < left <= 7000
