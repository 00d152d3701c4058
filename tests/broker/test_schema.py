"""The schema of the messages: what it lets through is what the broker takes and sends."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from broker.errors import BrokerError
from broker.events import BY_TYPE, EVENTS
from broker.faults import Bounds
from broker.parsing import request_of
from broker.requests import REQUESTS
from broker.schema import document

DOCUMENT = document()
SIDES = {
    side: Draft202012Validator({"$ref": f"#/$defs/{side}", "$defs": DOCUMENT["$defs"]})
    for side in ("request", "event")
}
PONG = {"type": "pong", "id": "1"}
STREAM = {"type": "stream", "name": "stdout", "text": "a", "seq": 1}


def test_the_document_is_a_schema() -> None:
    Draft202012Validator.check_schema(DOCUMENT)


def test_each_message_has_a_title_a_description_and_its_type() -> None:
    for side, kinds in (("request", REQUESTS), ("event", BY_TYPE)):
        for word in kinds:
            told = DOCUMENT["$defs"][f"{side}.{word}"]
            assert told["title"]
            assert told["description"]
            assert told["properties"]["type"] == {"enum": [word]}


def test_there_is_one_schema_for_each_event_and_no_two_have_a_type() -> None:
    assert len(BY_TYPE) == len(EVENTS)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "execute", "id": "1", "code": "1"},
        {"type": "execute", "id": "1", "code": "1", "timeout": 2.5, "silent": True},
        {"type": "execute", "id": "1"},
        {"type": "execute", "id": "", "code": "1"},
        {"type": "execute", "id": "x" * 65, "code": "1"},
        {"type": "execute", "id": "1", "code": "1", "timeout": 0},
        {"type": "execute", "id": "1", "code": "1", "more": 1},
        {"type": "cancel", "id": "1"},
        {"type": "ack", "seq": -1},
        {"type": "ack", "seq": 3},
        {"type": "ping", "id": "1"},
        {"type": "pong", "id": "1"},
        {"id": "1"},
    ],
)
def test_the_schema_and_the_broker_agree_on_a_request(message: dict[str, Any]) -> None:
    try:
        request_of(message, Bounds())
        taken = True
    except BrokerError:
        taken = False
    assert SIDES["request"].is_valid(message) == taken


@pytest.mark.parametrize(
    ("event", "valid"),
    [
        (PONG, True),
        (STREAM, True),
        (STREAM | {"name": "stdin"}, False),
        (STREAM | {"id": ""}, False),
        ({"type": "stream", "name": "stdout", "text": "a"}, False),
        (STREAM | {"later": "versions may tell more"}, True),
        ({"type": "news"}, False),
    ],
)
def test_the_schema_of_events_lets_later_versions_tell_more(
    event: dict[str, Any], valid: bool
) -> None:
    assert SIDES["event"].is_valid(event) == valid


def test_the_types_themselves_let_nothing_else_through() -> None:
    kind = BY_TYPE["stream"]
    assert msgspec.convert(STREAM, kind)
    with pytest.raises(msgspec.ValidationError, match="later"):
        msgspec.convert(STREAM | {"later": 1}, kind)
