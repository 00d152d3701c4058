"""The requests of the native protocol: their types, their bounds, and the words of each refusal.

What arrives here is plain data, decoded by `broker.protocol`. It is checked against the bounds
first, then against the type it names; each mistake raises BadFrame, BadMessage or TooLarge.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec

from broker.errors import BadFrame, BadMessage, TooLarge

MAX_TIMEOUT = 7 * 86400.0  # seconds; more is a mistake of units, and infinity is no deadline
MAX_SEQ = 2**63 - 1

RequestId = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
ProfileName = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Timeout = Annotated[float, msgspec.Meta(gt=0, le=MAX_TIMEOUT)]
Seq = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bound what one incoming message may cost.

    `max_items` bounds each list and map, because msgpack allocates a list as soon as it has read
    the length that the sender claims: 1,000 nested claims of 16,384 items cost 128 MiB, not 64 GiB.
    """

    max_frame: int = 8 << 20  # bytes
    max_depth: int = 32  # maps and lists inside each other; the message itself is the first
    max_items: int = 1 << 14


class Execute(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="execute"):
    """Run code; `timeout` in seconds, None for the session's own."""

    id: RequestId
    code: str
    timeout: Timeout | None = None
    stop_on_error: bool = True
    store_history: bool = True
    silent: bool = False
    metadata: dict[str, Any] = {}


class Interrupt(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="interrupt"
):
    """Interrupt the execution `target`, or the one that runs."""

    id: RequestId
    target: RequestId | None = None


class Cancel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="cancel"):
    """Take the execution `target` out of the queue."""

    id: RequestId
    target: RequestId


class Restart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="restart"):
    """Replace the session's kernel by a new one."""

    id: RequestId
    keep_files: bool = True


class Close(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="close"):
    """End the session and its kernel."""

    id: RequestId


class Ack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="ack"):
    """Tell that every event up to `seq` has arrived."""

    seq: Seq
    id: RequestId | None = None  # nothing answers an ack


class Ping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="ping"):
    """Ask for a `pong`."""

    id: RequestId


Request = Execute | Interrupt | Cancel | Restart | Close | Ack | Ping

REQUESTS: dict[str, type[Request]] = {
    "execute": Execute,
    "interrupt": Interrupt,
    "cancel": Cancel,
    "restart": Restart,
    "close": Close,
    "ack": Ack,
    "ping": Ping,
}


class ExecuteBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is posted to run code and wait for it: an execute without `id` and `type`."""

    code: str
    timeout: Timeout | None = None
    stop_on_error: bool = True
    store_history: bool = True
    silent: bool = False
    metadata: dict[str, Any] = {}
    profile: ProfileName | None = None

    def request(self, request_id: str) -> Execute:
        """Return the same execution as a request of that id."""
        return Execute(
            id=request_id,
            code=self.code,
            timeout=self.timeout,
            stop_on_error=self.stop_on_error,
            store_history=self.store_history,
            silent=self.silent,
            metadata=self.metadata,
        )


S = TypeVar("S", bound=msgspec.Struct)


def request_of(message: object, bounds: Bounds) -> Request:
    """Return plain data as the request it names; raises BadFrame, BadMessage or TooLarge."""
    fields = _checked(message, bounds)
    kind = fields.get("type")
    struct = REQUESTS.get(kind) if type(kind) is str else None
    if struct is None:
        known = ", ".join(REQUESTS)
        if "type" not in fields:
            raise bad_field("type", f"missing; expected one of {known}")
        got = repr(clip(kind)) if type(kind) is str else _kind(kind)
        raise bad_field("type", f"expected one of {known}; got {got}")
    return _convert(fields, struct, f"type {kind}")


def body_of(message: object, bounds: Bounds) -> ExecuteBody:
    """Return plain data as a posted execution; raises BadFrame, BadMessage or TooLarge."""
    return _convert(_checked(message, bounds), ExecuteBody, "this request")


def id_of(message: object) -> str | None:
    """Return the id that plain data carries, whatever else is wrong with it, or None."""
    found = message.get("id") if isinstance(message, dict) else None
    return found if isinstance(found, str) and 1 <= len(found) <= 64 else None


def _checked(message: object, bounds: Bounds) -> dict[str, object]:
    """Return plain data as a map within the bounds, with text for every key inside it."""
    if type(message) is not dict:
        raise BadFrame(f"a message is a map; this is {_kind(message)}")
    if len(message) > bounds.max_items:
        raise over_items(bounds)
    for field, value in message.items():
        if type(field) is not str:
            raise BadMessage(f"the fields of a message are named by text, not by {_kind(field)}")
        if type(value) is dict or type(value) is list:
            _check_nested(value, field, bounds)
    return message


def _check_nested(value: dict[object, object] | list[object], field: str, bounds: Bounds) -> None:
    """Walk level by level, so that the sender's nesting is never our stack."""
    level = [value]
    for _ in range(bounds.max_depth - 1):  # the message itself was the first level
        deeper = []
        for container in level:
            if len(container) > bounds.max_items:
                raise over_items(bounds, field)
            if isinstance(container, dict):
                if not all(type(key) is str for key in container):
                    raise bad_field(field, "expected text for every key inside")
                items = list(container.values())
            else:
                items = container
            for item in items:
                if isinstance(item, dict | list):
                    deeper.append(item)
                elif isinstance(item, bytes):
                    # What goes on to a kernel goes as JSON.
                    raise bad_field(field, "expected no binary value inside")
        if not deeper:
            return
        level = deeper
    raise over_depth(bounds, field)


def _convert(fields: dict[str, object], struct: type[S], what: str) -> S:
    try:
        return msgspec.convert(fields, struct)
    except msgspec.ValidationError as error:
        text = str(error)
    if text.startswith("Object contains unknown field `"):
        unknown = text.partition("`")[2].removesuffix("`")
        known = struct.__struct_fields__ + (("type",) if struct.__struct_config__.tag else ())
        raise unknown_field(unknown, known, f"field of {what}")
    if text.startswith("Object missing required field `"):
        raise bad_field(text.partition("`")[2].removesuffix("`"), f"missing; {what} needs it")
    rule, _, path = text.partition(" - at ")
    found = re.search(r"\$\.(\w+)", path)
    rule = rule.replace("`", "")
    raise bad_field(found[1] if found else "type", rule[:1].lower() + rule[1:])


# The refusals: each is worded once, so that every face says the same.


def bad_field(field: str, rule: str) -> BadMessage:
    """Return the refusal of one field's value."""
    return BadMessage(f"{field}: {rule}", field=field)


def unknown_field(name: str, known: Iterable[str], what: str) -> BadMessage:
    """Return the refusal of a name that nothing is called, with the nearest that something is."""
    name = clip(name)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    return bad_field(name, f"no such {what}; {hint}")


def over_size(size: int, bounds: Bounds) -> TooLarge:
    """Return the refusal of a frame of `size` bytes."""
    return TooLarge(
        f"a message of {size} bytes is over the bound of {bounds.max_frame}", field="frame"
    )


def over_items(bounds: Bounds, field: str | None = None) -> TooLarge:
    """Return the refusal of a list or map that is too long."""
    where = f"{field}: " if field else ""
    return TooLarge(
        f"{where}a list or map of more than {bounds.max_items} items is over the bound",
        field=field or "frame",
    )


def over_depth(bounds: Bounds, field: str | None = None) -> BadMessage:
    """Return the refusal of a message that nests too deep."""
    where = f"{field}: " if field else ""
    return BadMessage(f"{where}nested deeper than {bounds.max_depth} levels", field=field)


def clip(text: str) -> str:
    """Keep a stranger's text short enough to repeat back."""
    return text if len(text) <= 64 else f"{text[:61]}..."


def _kind(value: object) -> str:
    names = {dict: "a map", list: "a list", str: "text", bytes: "binary", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")
