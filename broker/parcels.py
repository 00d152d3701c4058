"""What a request brings to the kernel beside its code, as the kernel unpacks it.

`kernels/inside/parcels.py` says what stands there. Whatever is wrong with it is refused here,
before anything runs.
"""

from __future__ import annotations

import keyword
import unicodedata
from collections.abc import Mapping
from typing import Any

from broker.faults import bad_field, clip
from broker.requests import Call, Configure, Execute
from broker.tagged import packed

Parcel = dict[str, Any]


def parcel_of(request: Execute | Call) -> Parcel | None:
    """Return what the request brings, None for nothing. Raises BadMessage naming the field."""
    if isinstance(request, Call):
        args, kwargs = packed(request.args), {n: packed(v) for n, v in request.kwargs.items()}
        parcel: Parcel = {"call": {"function": request.function, "args": args, "kwargs": kwargs}}
    elif not (request.inputs or request.env or request.cwd):
        return None
    elif request.inputs:
        parcel = {"inputs": {_variable(n): packed(v) for n, v in request.inputs.items()}}
    else:
        parcel = {}
    check_surroundings(request)
    if request.env:
        parcel["env"] = request.env
    if request.cwd:
        parcel["cwd"] = request.cwd
    return parcel


def fields_of(parcel: Mapping[str, Any]) -> str:
    """Return the first field of a request that the parcel was made of."""
    return "function" if "call" in parcel else next(iter(parcel))


def check_surroundings(request: Execute | Call | Configure) -> None:
    """Raise BadMessage for what no environment and no path can hold."""
    for name, value in request.env.items():
        if value is not None and "\0" in value:
            raise bad_field("env", f"{clip(name)} has a NUL in it")
    if request.cwd is not None and "\0" in request.cwd:
        raise bad_field("cwd", "it has a NUL in it")


def _variable(name: str) -> str:
    """Return a variable's name as Python has it."""
    plain = unicodedata.normalize("NFKC", name)
    if not plain.isidentifier() or keyword.iskeyword(plain):
        raise bad_field("inputs", f"{clip(name)!r} is no name for a variable")
    if plain.startswith("__") and plain.endswith("__"):
        raise bad_field("inputs", f"{clip(name)!r} is a name of Python's own")
    return plain
