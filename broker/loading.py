"""Bytes to plain values; what would cost more than a message may is refused on the way.

Each mistake raises BadFrame, BadMessage or TooLarge, and nothing else is ever raised. `request` of
what is raised is the id of the request, where it stands before what could not be read.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sized
from typing import Any, Final, NoReturn, TypeVar

import msgpack
import orjson

from broker.errors import BadFrame, BadMessage, TooLarge
from broker.faults import (
    Bounds,
    clip,
    over_all_items,
    over_depth,
    over_items,
    over_nested,
    over_size,
)
from kernels.messages import nested

MOST_FIELDS: Final = 32  # of a frame that was refused, in which its id is looked for
_STRING: Final = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FIELD: Final = rf"{_STRING}\s*+:\s*+(?:{_STRING}|[-+.\w]++)\s*+,\s*+"  # that does not nest
_ID: Final = re.compile(
    rf'\s*+\{{\s*+(?:{_FIELD}){{0,{MOST_FIELDS}}}"id"\s*+:\s*+({_STRING})', re.DOTALL
)

C = TypeVar("C", bound=Sized)


class Tally:
    """Count the lists and maps of one message, and all that is in them."""

    __slots__ = ("_bounds", "_items", "_nested")

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._nested = 0
        self._items = 0

    def add(self, container: C, field: str | None = None) -> C:
        """Count a list or map, and return it. Raises TooLarge when that is one too many."""
        bounds, size = self._bounds, len(container)
        if size > bounds.max_items:
            raise over_items(bounds, field)
        self._nested += 1
        if self._nested > bounds.max_nested:
            raise over_nested(bounds, field)
        self._items += size
        if self._items > bounds.max_in_all:
            raise over_all_items(bounds, field)
        return container


class MsgpackLoader:
    """Load frames of msgpack; keeps nothing of them."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._load_proven = functools.partial(
            msgpack.unpackb,
            raw=False,
            strict_map_key=True,
            max_str_len=bounds.max_frame,
            max_bin_len=bounds.max_frame,
            max_array_len=bounds.max_items,
            max_map_len=bounds.max_items,
            max_ext_len=0,
            ext_hook=_refuse_extension,
        )
        fewer = min(bounds.max_items, bounds.unproven)
        self._load_short = functools.partial(
            self._load_proven, max_array_len=fewer, max_map_len=fewer
        )
        self._short = min(bounds.unproven, bounds.max_nested, bounds.max_in_all)  # bytes

    def load(self, frame: bytes) -> object:
        """Return what a frame holds."""
        if len(frame) > self._bounds.max_frame:
            raise over_size(len(frame), self._bounds)
        try:
            return self._load(frame)
        except (BadFrame, BadMessage, TooLarge) as refusal:
            refusal.request = _id_in_msgpack(frame)
            raise

    def _load(self, frame: bytes) -> object:
        try:
            if len(frame) <= self._short:  # whatever it has, it cannot have more than bytes
                try:
                    return self._load_short(frame)
                except ValueError as error:
                    if not _is_long(error):
                        raise
            # What is claimed is there: nothing is allocated to find that out.
            _unpacker(frame).skip()
            add = Tally(self._bounds).add
            return self._load_proven(frame, list_hook=add, object_hook=add)
        except msgpack.OutOfData:
            raise BadFrame(
                "not one msgpack map: a list or map has fewer items than it says"
            ) from None
        except msgpack.StackError:
            raise over_depth(self._bounds) from None
        except ValueError as error:
            if _is_long(error):
                raise over_items(self._bounds) from None
            raise BadFrame(f"not one msgpack map: {clip(str(error)) or 'no such type'}") from None


def load_json(data: bytes | str, bounds: Bounds) -> object:
    """Return what a text of JSON holds."""
    size = len(data)
    if isinstance(data, str) and size <= bounds.max_frame < 4 * size:  # a character: 1 to 4 bytes
        size = len(data.encode(errors="surrogatepass"))
    if size > bounds.max_frame:
        raise over_size(size, bounds)
    if size > bounds.max_nested and _is_heavy(data, bounds.max_nested):
        refusal = over_nested(bounds)
        refusal.request = _id_in_json(data) if isinstance(data, str) else None
        raise refusal
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if "depth limit" in error.msg:  # orjson's own, far beyond ours
            raise over_depth(bounds) from None
        raise BadFrame(f"not JSON: {clip(str(error))}") from None


def id_of(message: object) -> str | None:
    """Return the id that plain data carries, whatever else is wrong with it, or None."""
    found = message.get("id") if isinstance(message, dict) else None
    return found if isinstance(found, str) and 1 <= len(found) <= 64 else None


def _is_heavy(data: bytes | str, enough: int) -> bool:
    if isinstance(data, str):
        if data.count("{") + data.count("[") <= enough:
            return False
        data = data.encode(errors="surrogatepass")
    return nested(data, enough, members=False) > enough


def _id_in_msgpack(frame: bytes) -> str | None:
    unpacker = _unpacker(frame, max_str_len=len(frame), strict_map_key=True)
    try:
        for _ in range(min(unpacker.read_map_header(), MOST_FIELDS)):
            if unpacker.unpack() == "id":
                return id_of({"id": unpacker.unpack()})
            unpacker.skip()
    except (ValueError, msgpack.UnpackException):
        pass
    return None


def _id_in_json(text: str) -> str | None:
    if (found := _ID.match(text)) is None:
        return None
    try:
        return id_of({"id": orjson.loads(found[1])})
    except orjson.JSONDecodeError:
        return None


def _unpacker(frame: bytes, **options: Any) -> msgpack.Unpacker:
    unpacker = msgpack.Unpacker(
        max_buffer_size=max(1, len(frame)), max_array_len=0, max_map_len=0, **options
    )
    unpacker.feed(frame)
    return unpacker


def _is_long(error: ValueError) -> bool:
    return "max_array_len" in str(error) or "max_map_len" in str(error)


def _refuse_extension(code: int, _data: bytes) -> NoReturn:
    raise ValueError(f"extension type {code} is not used here")
