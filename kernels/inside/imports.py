"""Which modules a cell may import: a guard rail, and no boundary.

It tells code that was written for another place, at its first line, that a module is not meant to
be used here. Whoever wants around it gets around it: through an attribute of an allowed module,
`sys.modules`, `exec` with globals of its own, or a file. What must not happen is for the sandbox
to prevent.
"""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

CELL = "__main__"  # the `__name__` of a cell, and of each function defined in one
SHOWN = 20  # names in a message


def guard(allow: Sequence[str], deny: Sequence[str]) -> None:
    """Have import statements of cells raise ImportError, but for what they may import.

    Names are those of top-level modules. With names to `allow`, a cell may import exactly these
    and what is below them; the standard library is no exception. What stands in `deny` it may not
    import in any case. Libraries import for themselves whatever they need.
    """
    allowed, denied = frozenset(allow), frozenset(deny)
    if not allowed and not denied:
        return
    among = f"; allowed: {_listed(allow)}" if allow else ""
    import_ = builtins.__import__
    import_module = importlib.import_module

    def check(name: object) -> None:
        top = str(name).partition(".")[0]
        if top in denied:
            raise ImportError(f"import of {top!r} is denied in this profile{among}", name=top)
        if allowed and top not in allowed and top != "__future__":
            raise ImportError(f"import of {top!r} is not allowed in this profile{among}", name=top)

    def guarded_import(
        name: str,
        globals: Any = None,  # noqa: A002  the names of `__import__`'s parameters
        locals: Any = None,  # noqa: A002
        fromlist: Any = (),
        level: int = 0,
    ) -> Any:
        # PyImport_Import(), which is C code importing for itself in the name of whichever Python
        # calls it, as `strptime` does, passes a list; a statement passes None or a tuple.
        if level == 0 and type(fromlist) is not list:
            caller = globals if globals is not None else sys._getframe(1).f_globals
            if caller.get("__name__") == CELL:
                check(name)
        return import_(name, globals, locals, fromlist, level)

    def guarded_import_module(name: str, package: str | None = None) -> ModuleType:
        if sys._getframe(1).f_globals.get("__name__") == CELL:
            check(name)
        return import_module(name, package)

    builtins.__import__ = guarded_import
    importlib.import_module = guarded_import_module


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
