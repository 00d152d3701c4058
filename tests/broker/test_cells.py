"""The lists of cells, in a real store."""

from __future__ import annotations

from broker.store import Store
from broker.store.cells import Part

OWNER = ("acme", "chat")


def part(*cells: bytes, most: int = 1000, most_bytes: int = 1 << 20, keep: float = 60.0) -> Part:
    return Part(OWNER, cells, most, most_bytes, keep)


async def texts(store: Store, most: int = 1000) -> list[bytes]:
    return await store.cells.read(OWNER, most)


async def test_cells_are_read_in_the_order_they_were_written(store: Store) -> None:
    other = Part(("acme", "other"), [b"z"], 10, 1000, 60.0)
    await store.cells.append([part(b"a", "é".encode()), other])
    await store.cells.append([part(b"c")])
    assert await texts(store, 10) == [b"a", "é".encode(), b"c"]
    assert await store.cells.read(("acme", "other"), 10) == [b"z"]
    assert await store.cells.read(("other", "chat"), 10) == []
    assert await texts(store, 2) == ["é".encode(), b"c"]


async def test_more_cells_than_one_page_are_read_whole(store: Store) -> None:
    cells = [str(number).encode() for number in range(120)]
    await store.cells.append([part(*cells)])
    for most in (1, 49, 50, 51, 60, 100, 120, 1000):
        assert await texts(store, most) == cells[-most:]


async def test_a_write_that_was_repeated_is_read_once(store: Store) -> None:
    for _ in range(2):
        await store.cells.append([part(b"a", b"b")])
    await store.cells.append([part(b"c")])
    assert await texts(store) == [b"a", b"b", b"c"]


async def test_the_oldest_over_either_bound_go_to_the_cell(store: Store, prefix: str) -> None:
    await store.cells.append([part(*(str(n).encode() for n in range(1000)), most=10)])
    assert await texts(store) == [str(number).encode() for number in range(990, 1000)]
    await store.cells.append([part(b"x" * 40, most_bytes=50)])
    assert await texts(store) == [b"997", b"998", b"999", b"x" * 40]
    await store.cells.append([part(b"y" * 51, b"z", most_bytes=50)])
    assert await texts(store) == [b"997", b"998", b"999", b"x" * 40, b"z"]
    await store.cells.append([part(most_bytes=1)])
    assert await texts(store) == [b"z"]
    await store.cells.append([part(most=0)])
    assert await texts(store) == []
    assert await store._connection.ask("KEYS", f"{prefix}:*") == []


async def test_their_bytes_are_counted_anew_where_the_number_or_the_list_is_gone(
    store: Store, prefix: str
) -> None:
    await store.cells.append([part(b"a" * 20, b"b" * 20)])
    await store._connection.ask("DEL", f"{prefix}:transcript_bytes:{{acme/chat}}")
    await store.cells.append([part(b"c" * 20, most_bytes=50)])
    assert await texts(store) == [b"b" * 20, b"c" * 20]
    await store._connection.ask("DEL", f"{prefix}:transcript:{{acme/chat}}")
    await store.cells.append([part(b"d" * 20, b"e" * 20, most_bytes=50)])
    assert await texts(store) == [b"d" * 20, b"e" * 20]


async def test_they_are_kept_for_a_time_from_the_last_write_on(store: Store, prefix: str) -> None:
    names = [f"{prefix}:{name}:{{acme/chat}}" for name in ("transcript", "transcript_bytes")]
    for cells, keep in (((b"a",), 7.0), ((), 70.0)):
        await store.cells.append([part(*cells, keep=keep)])
        for name in names:
            left = await store._connection.ask("PTTL", name)
            assert 1000 * (keep - 7) < left <= 1000 * keep
    assert await texts(store) == [b"a"]
    await store.cells.append([Part(("acme", "none"), (), 10, 1000, 60.0)])
    assert await store._connection.ask("KEYS", "*:{acme/none}") == []
