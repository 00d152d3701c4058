"""The value of a call: whatever a kernel says it is, a client gets one that can be sent."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.faults import Bounds
from broker.outputs import rich
from broker.protocol import SUBPROTOCOLS, codec
from broker.values import value_event
from kernels.messages import MAX_NESTED, Message

NAMES = st.text() | st.sampled_from(["$", "$$", "$bytes", "$int", "$float", "value", "data"])
SAID = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)


def said(content: Any) -> Message:
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return Message({"msg_type": "broker_value"}, {}, {}, body, ())


@given(st.dictionaries(st.sampled_from(["value", "data", "metadata", "else"]), SAID))
def test_whatever_a_kernel_says_is_one_event_that_can_be_sent_or_none(content: Any) -> None:
    event = value_event("e", said(content), 1000, rich)
    if event is not None:
        assert (event["type"], event["id"]) == ("value", "e")
        assert ("value" in event) != ("data" in event)
        for name in SUBPROTOCOLS:
            codec(name, Bounds()).encode(event)


@pytest.mark.parametrize("depth", [66, 500])
def test_a_value_that_nests_too_deep_is_none(depth: int) -> None:
    nested = b'{"value":' + b"[" * depth + b"]" * depth + b"}"
    assert value_event("e", said(nested), 1 << 20, rich) is None


def test_a_value_that_costs_more_to_decode_than_it_holds_is_a_note() -> None:
    heavy = b'{"value":[' + b"[]," * MAX_NESTED + b"1]}"
    event = value_event("e", said(heavy), 0, rich)
    assert event is not None
    assert event["data"]["text/plain"] == f"[value of {len(heavy):,} bytes left out]"


def test_a_picture_in_the_place_of_a_value_is_bytes() -> None:
    event = value_event("e", said({"data": {"image/png": "AAE="}, "metadata": 3}), 0, rich)
    assert event == {"type": "value", "id": "e", "data": {"image/png": b"\x00\x01"}, "metadata": {}}
