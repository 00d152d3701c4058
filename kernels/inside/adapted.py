"""ipykernel's modules, with some of what they look up in themselves done in another way."""

from __future__ import annotations

import sys
from typing import Any

from ipykernel import ipkernel, kernelbase

_inspected: dict[tuple[Any, tuple[str, ...]], dict[str, bool]] = {}
_inspect_parameters = kernelbase._accepts_parameters


def accepts_parameters(method: Any, names: list[str]) -> dict[str, bool]:
    """Return which parameters a method has; ipykernel asks for each cell, of the same method."""
    key = getattr(method, "__func__", method), tuple(names)
    if key not in _inspected:
        _inspected[key] = _inspect_parameters(method, names)
    return _inspected[key]


class Unflushed:
    """The module `sys` for ipykernel's kernel, which would flush whatever stands for a stream."""

    stdout = stderr = None

    def __getattr__(self, name: str) -> Any:
        return getattr(sys, name)


if "_accepts_parameters" not in vars(ipkernel) or vars(kernelbase).get("sys") is not sys:
    raise ImportError("this ipykernel asks for parameters, or flushes, in another way")
vars(ipkernel)["_accepts_parameters"] = accepts_parameters
vars(kernelbase)["sys"] = Unflushed()
