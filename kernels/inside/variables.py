"""What a session's variables are, in a line each, without running the user's code.

A container shows its first items, and of an object that only its own `__repr__` could tell about,
its type: whoever wants that one's words must run it under a limit of time.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from itertools import islice
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

MAX_PREVIEW = 200  # characters
MAX_NAME = 256  # characters; a longer name is not listed
MAX_TEXT = 60  # characters of one text inside a container
MAX_BITS = 512  # of an integer that is written out
DEPTH = 3  # of containers inside each other
ITEMS = 6  # of each container
DIMENSIONS = 32

Json = dict[str, Any]

# What the descriptors of `type` say, a metaclass of the user's cannot change.
_QUALNAME, _MODULE, _MRO, _DICT = (
    type.__dict__[name].__get__ for name in ("__qualname__", "__module__", "__mro__", "__dict__")
)
SIMPLE = {type(None), bool, float, complex, range, type(...), type(NotImplemented)}
TEXTS = {str, bytes, bytearray}
BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    deque: ("deque([", "])"),
    dict: ("{", "}"),
    OrderedDict: ("OrderedDict({", "})"),
    defaultdict: ("defaultdict({", "})"),
    Counter: ("Counter({", "})"),
}
NAMED = (ModuleType, FunctionType, BuiltinFunctionType, MethodType, type)


def kind_of(value: object) -> tuple[str, str]:
    """Return the module and the name of a value's type."""
    kind = type(value)
    module, name = _MODULE(kind), _QUALNAME(kind)
    return (module if type(module) is str else ""), name


def stand_in(value: object) -> str:
    """Return what is shown of an object that cannot be shown."""
    module, name = kind_of(value)
    return clipped(f"<{name} object>" if module == "builtins" else f"<{module}.{name} object>")


def clipped(text: str) -> str:
    """Return a text as one line of bounded length."""
    line = " ".join(text[: 4 * MAX_PREVIEW].split())
    return line if len(line) <= MAX_PREVIEW else line[: MAX_PREVIEW - 1] + "…"


def listed(namespace: Json, hidden: Json) -> list[tuple[str, Any]]:
    """Return the variables to list: no modules, functions and classes, and nothing hidden."""
    return [
        (name, value)
        for name, value in list(namespace.items())
        if type(name) is str
        and not name.startswith("_")
        and len(name) <= MAX_NAME
        and not (name in hidden and hidden[name] is value)
        and not any(kind in _MRO(type(value)) for kind in NAMED)
    ]


def describe(name: str, value: object) -> tuple[Json, bool]:
    """Return a variable's row, and whether its own code could say more."""
    module, kind = kind_of(value)
    row: Json = {"name": name, "type": kind[:MAX_NAME], "preview": ""}
    if module != "builtins":
        row["module"] = module[:MAX_NAME]
    if (base := _container(value)) is not None:
        row["length"] = _base(base).__len__(value)
    elif type(value) in TEXTS:
        row["length"] = len(value)  # type: ignore[arg-type]
    if any(type(value) in kinds for kinds in (SIMPLE, TEXTS, BRACKETS, (int,))):
        row["size"] = sys.getsizeof(value)
    shown = plain(value)
    row["preview"] = clipped(stand_in(value) if shown is None else shown)
    return row, shown is None


def tell(row: Json, value: object) -> None:
    """Fill a row with what the value's own code says. Runs it: to be called under a limit."""
    told = LIBRARIES.get((kind_of(value)[0].partition(".")[0], kind_of(value)[1]))
    if told is not None and _is_of(value, *told[:2]):
        row |= told[2](value)
        row["preview"] = clipped(row["preview"])
        return
    if (kind := type(value)).__repr__ is object.__repr__ or ModuleType in _MRO(kind):
        return  # nothing but an address, or a path
    text = repr(value)
    row["preview"] = clipped(str.__getitem__(text, slice(4 * MAX_PREVIEW)))


def plain(value: object, depth: int = 0) -> str | None:
    """Return a value as text, or None if only its own code could say."""
    kind = type(value)
    if kind is int:
        return _integer(value)  # type: ignore[arg-type]
    if kind in SIMPLE:
        return repr(value)
    if kind in TEXTS:
        most = MAX_TEXT if depth else MAX_PREVIEW
        text = repr(value[: most + 1])  # type: ignore[index]
        return text if len(value) <= most else text[:most] + "…"  # type: ignore[arg-type]
    base = _container(value)
    return None if base is None else _contents(base, value, depth)


def _integer(value: int) -> str:
    bits = value.bit_length()
    return repr(value) if bits <= MAX_BITS else f"<int of {bits:,} bits>"


def _container(value: object) -> type | None:
    """Return the container of Python's own that a value is, and is shown as."""
    for one in _MRO(type(value)):
        if one in BRACKETS:
            base: type = one
            return base
        if "__repr__" in _DICT(one):
            return None
    return None


def _base(kind: type) -> Any:
    return dict if issubclass(kind, dict) else kind


def _contents(kind: type, value: Any, depth: int) -> str:
    first, last = BRACKETS[kind]
    base = _base(kind)
    length = base.__len__(value)
    if length and depth == DEPTH:
        return f"{first}…{last}"
    parts: list[str] = []
    try:
        for item in islice(base.items(value) if base is dict else base.__iter__(value), ITEMS):
            if base is dict:
                parts.append(f"{_item(item[0], depth)}: {_item(item[1], depth)}")
            else:
                parts.append(_item(item, depth))
    except RuntimeError:  # the cell that runs has changed it
        parts.append("…")
    else:
        if length > ITEMS:
            parts.append("…")
    if kind is set and not parts:
        return "set()"
    comma = "," if kind is tuple and length == 1 else ""
    return f"{first}{', '.join(parts)}{comma}{last}"


def _item(value: object, depth: int) -> str:
    shown = plain(value, depth + 1)
    return stand_in(value) if shown is None else shown[:MAX_PREVIEW]


# Others' types: shape and size as they say, and no more of the values than a line holds.


def _is_of(value: object, library: str, name: str) -> bool:
    """Tell whether a value is exactly of a library's type."""
    module = sys.modules.get(library)
    return isinstance(module, ModuleType) and vars(module).get(name) is type(value)


def _shape(value: Any) -> list[int]:
    return [int(size) for size in tuple(value.shape)[:DIMENSIONS]]


def _array(value: Any) -> Json:
    row = {"shape": _shape(value), "size": int(value.nbytes)}
    head = ", ".join(_item(one, 1) for one in value.flat[:ITEMS].tolist())
    more = ", …" if value.size > ITEMS else ""
    row["preview"] = f"{str(value.dtype)[:MAX_TEXT]} [{head}{more}]"
    return row


def _frame(value: Any) -> Json:
    shape = _shape(value)
    names = ", ".join(_item(one, 1) for one in list(value.columns[:ITEMS]))
    more = ", …" if shape[-1] > ITEMS else ""
    return {"shape": shape, "preview": f"{shape[0]} rows of {names}{more}"}


def _series(value: Any) -> Json:
    row: Json = {"shape": [len(value)]}
    if isinstance(size := getattr(value, "nbytes", None), int):
        row["size"] = size
    head = value.iloc[:ITEMS] if hasattr(value, "iloc") else value[:ITEMS]
    items = ", ".join(_item(one, 1) for one in getattr(head, "to_list", head.tolist)())
    more = ", …" if len(value) > ITEMS else ""
    row["preview"] = f"{str(value.dtype)[:MAX_TEXT]} [{items}{more}]"
    return row


def _polars_series(value: Any) -> Json:
    items = ", ".join(_item(one, 1) for one in value.head(ITEMS).to_list())
    more = ", …" if len(value) > ITEMS else ""
    preview = f"{str(value.dtype)[:MAX_TEXT]} [{items}{more}]"
    return {"shape": [len(value)], "preview": preview}


def _tensor(value: Any) -> Json:
    # Not its values: to read them waits for the device that they are on.
    size = int(value.numel()) * int(value.element_size())
    shape = _shape(value)
    return {"shape": shape, "size": size, "preview": f"{value.dtype} {shape} on {value.device}"}


Told = tuple[str, str, Callable[[Any], Json]]
LIBRARIES: dict[tuple[str, str], Told] = {
    (library, name): (library, name, told)
    for library, name, told in (
        ("numpy", "ndarray", _array),
        ("pandas", "DataFrame", _frame),
        ("pandas", "Series", _series),
        ("pandas", "Index", _series),
        ("torch", "Tensor", _tensor),
        ("polars", "DataFrame", _frame),
        ("polars", "Series", _polars_series),
    )
}
