"""The replay buffer: a client that comes back gets every event, or is told which are gone."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.faults import Bounds
from broker.protocol import codec
from broker.replay import Replay, size_of


def event(seq: int) -> dict[str, object]:
    return {"type": "stream", "seq": seq}


def filled(
    count: int, *, events: int = 100, size: int = 10, total: int = 10_000
) -> Replay[dict[str, object]]:
    replay: Replay[dict[str, object]] = Replay(events, total)
    for seq in range(1, count + 1):
        replay.append(seq, event(seq), size)
    return replay


def seqs(events: list[object]) -> list[object]:
    return [item["seq"] for item in events if isinstance(item, dict)]


@pytest.mark.parametrize(
    ("replay", "after", "missed", "expected"),
    [
        (filled(0), 0, None, []),
        (filled(5), 0, None, [1, 2, 3, 4, 5]),
        (filled(5), 3, None, [4, 5]),
        (filled(5), 5, None, []),
        (filled(5), 9, None, []),
        (filled(5, events=2), 0, (1, 3), [4, 5]),
        (filled(5, events=2), 2, (3, 3), [4, 5]),
        (filled(5, events=2), 3, None, [4, 5]),
        (filled(5, events=2), 4, None, [5]),
        (filled(5, total=30), 0, (1, 2), [3, 4, 5]),
        (filled(5, total=9), 0, (1, 5), []),
        (filled(5, total=9), 5, None, []),
    ],
)
def test_what_is_gone_is_named_and_the_rest_is_given(
    replay: Replay[dict[str, object]],
    after: int,
    missed: tuple[int, int] | None,
    expected: list[int],
) -> None:
    gone, events = replay.since(after)
    assert gone == missed
    assert seqs(list(events)) == expected


def test_an_event_over_the_bound_of_bytes_clears_the_buffer_and_is_not_kept() -> None:
    replay = filled(3, total=30)
    replay.append(4, event(4), 31)
    assert (len(replay), replay.size, replay.last) == (0, 0, 4)
    replay.append(5, event(5), 30)
    missed, events = replay.since(0)
    assert (missed, seqs(list(events))) == ((1, 4), [5])


@pytest.mark.parametrize(
    ("seq", "kept"), [(0, [1, 2, 3]), (2, [3]), (3, []), (99, []), (-1, [1, 2, 3])]
)
def test_trimmed_events_are_gone_for_good(seq: int, kept: list[int]) -> None:
    replay = filled(3)
    replay.trim(seq)
    missed, events = replay.since(0)
    assert seqs(list(events)) == kept
    assert missed == ((1, 3 - len(kept)) if len(kept) < 3 else None)
    assert replay.size == 10 * len(kept)
    replay.append(4, event(4), 10)


@pytest.mark.parametrize("seq", [0, 3, 5])
def test_a_gap_in_the_numbers_is_refused_and_changes_nothing(seq: int) -> None:
    replay = filled(3)
    with pytest.raises(ValueError, match=f"event {seq} follows 3"):
        replay.append(seq, event(seq), 10)
    assert (len(replay), replay.last, replay.size) == (3, 3, 30)


STEP = st.tuples(st.just("append"), st.integers(0, 40)) | st.tuples(
    st.just("trim"), st.integers(-1, 30)
)


@given(st.lists(STEP, max_size=40), st.integers(1, 6), st.integers(1, 100), st.integers(0, 50))
@settings(max_examples=200)
def test_every_number_after_the_last_seen_is_given_or_named(
    steps: list[tuple[str, int]], max_events: int, max_bytes: int, after: int
) -> None:
    replay: Replay[dict[str, object]] = Replay(max_events, max_bytes)
    for step, number in steps:
        if step == "append":
            replay.append(replay.last + 1, event(replay.last + 1), number)
        else:
            replay.trim(number)
        assert len(replay) <= max_events
        assert 0 <= replay.size <= max_bytes
    missed, events = replay.since(after)
    named = [] if missed is None else list(range(missed[0], missed[1] + 1))
    assert named + seqs(list(events)) == list(range(after + 1, replay.last + 1))


@pytest.mark.parametrize(
    "event",
    [
        {"data": {"k" * 5_000_000: ""}},
        {"data": {}, "metadata": {"k" * 5_000_000: 1}},
        {"data": {"a": [[[{"k" * 5_000_000: None}]]]}},
        {"traceback": ["ab"] * 100_000},
    ],
)
def test_keys_and_many_small_items_count(event: dict[str, object]) -> None:
    assert size_of(event) >= 5_000_000


def test_counting_ends_at_what_nobody_keeps() -> None:
    assert size_of({"data": {"a": [0] * 1_000_000}}, 1000) > 1000
    endless: list[object] = []
    endless.append(endless)
    assert size_of(endless, 1000) > 1000


SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text()
JSON_VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


def one_by_one(value: object) -> int:
    """Return what is held, told member by member."""
    size = sys.getsizeof(value)
    if isinstance(value, dict):
        size += sum(map(sys.getsizeof, value)) + sum(map(one_by_one, value.values()))
    elif isinstance(value, list):
        size += sum(map(one_by_one, value))
    return size


@settings(max_examples=50)
@given(
    st.lists(SCALARS | st.lists(SCALARS, max_size=2), max_size=4),
    st.sampled_from([1, 20, 2000]),
    st.booleans(),
)
def test_what_is_counted_at_once_is_what_each_member_takes(
    few: list[object], times: int, in_map: bool
) -> None:
    many = few * times
    value: object = {str(at): one for at, one in enumerate(many)} if in_map else many
    counted = one_by_one(value)
    assert 0.8 * counted <= size_of(value) <= 2 * counted  # `None` counts as a number


# As JSON, a control character is six; in msgpack a character is four bytes at most.
@pytest.mark.parametrize(("name", "factor"), [("broker.v1.msgpack", 4), ("broker.v1.json", 6)])
@given(
    st.dictionaries(st.text(), JSON_VALUES | st.binary(), max_size=5),
    st.lists(st.text(), max_size=20),
)
def test_an_event_counts_for_a_good_part_of_its_frame(
    name: str, factor: int, data: dict[str, object], lines: list[str]
) -> None:
    event = {"type": "display", "data": data, "traceback": lines, "seq": 1}
    frame = codec(name, Bounds()).encode(event)
    assert len(frame) <= factor * size_of(event)
