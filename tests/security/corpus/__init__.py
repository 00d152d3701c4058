"""Hostile snippets: what a stranger's cell might try, and what must come of it.

A snippet is a function of one of the modules here. It runs in a kernel, after everything else of
its module and of `prelude`; it is called with what the host tells (`Host`), and what it returns is
printed: `SAFE: …` or `UNSAFE: …`, with evidence.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
PRELUDE = HERE / "prelude.py"
CATEGORIES = (
    "files",
    "tampering",
    "mounts",
    "processes",
    "privileges",
    "network",
    "sockets",
    "interfaces",
    "machine",
    "memory",
    "space",
    "load",
    "secrets",
    "internals",
    "neighbours",
)
BOTH = ("full", "standard")
FULL = ("full",)
STANDARD = ("standard",)


@dataclass(frozen=True)
class Snippet:
    """One attack. Where nothing else is said, its own verdict must be SAFE.

    `ends` are patterns of reasons: the kernel may, or without a verdict must, end with one of
    them. `errors` are exceptions of the cell that are a safe outcome. `timeout` is the execution's,
    in seconds; `may_time_out` says that reaching it is a safe outcome. `alone` gives it a kernel of
    its own. `bare` attacks must succeed without a sandbox when root runs them: that shows that they
    are attacks. They must do no harm then, though they run in namespaces of their own: reading,
    opening and asking, or what is undone at once and ends with the process. Nothing that mounts,
    loads a module or traces the kernel itself.
    """

    attack: Callable[[dict[str, Any]], str]
    levels: tuple[str, ...]
    ends: tuple[str, ...]
    errors: tuple[str, ...]
    timeout: float
    may_time_out: bool
    alone: bool
    bare: bool

    @property
    def name(self) -> str:
        """Return the function's name."""
        return self.attack.__name__

    @property
    def category(self) -> str:
        """Return the module's name."""
        return self.attack.__module__.rpartition(".")[2]

    @property
    def line(self) -> str:
        """Return what it tries, in one line."""
        return (self.attack.__doc__ or "").strip().partition("\n")[0]

    def cell(self, host: dict[str, Any]) -> str:
        """Return the code to run, complete in itself."""
        own = surroundings(inspect.getmodule(self.attack))
        parts = [
            *surroundings(None),
            *own,
            source_of(self),
            f"print('\\n' + {self.name}({host!r}))",
        ]
        return "\n\n".join(parts)


_SNIPPETS: dict[str, Snippet] = {}


def snippet(
    *,
    levels: tuple[str, ...] = BOTH,
    ends: tuple[str, ...] = (),
    errors: tuple[str, ...] = (),
    timeout: float = 20.0,
    may_time_out: bool = False,
    alone: bool = False,
    bare: bool = False,
) -> Callable[[Callable[[dict[str, Any]], str]], Callable[[dict[str, Any]], str]]:
    """Register a function as a snippet; see `Snippet`."""

    def register(attack: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], str]:
        made = Snippet(
            attack,
            levels=levels,
            ends=ends,
            errors=errors,
            timeout=timeout,
            may_time_out=may_time_out,
            alone=alone or bool(ends or errors or may_time_out),
            bare=bare,
        )
        if made.name in _SNIPPETS:
            raise ValueError(f"two snippets are called {made.name}")
        _SNIPPETS[made.name] = made
        return attack

    return register


@cache
def snippets() -> dict[str, Snippet]:
    """Return all snippets by their names."""
    for category in CATEGORIES:
        importlib.import_module(f"{__name__}.{category}")
    return _SNIPPETS


@cache
def surroundings(module: ModuleType | None) -> list[str]:
    """Return the statements of a module that its snippets need; without one, the prelude's."""
    path = PRELUDE if module is None else Path(str(module.__file__))
    text = path.read_text()
    kept = []
    for node in ast.parse(text).body:
        ours = isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("tests", "__"))
        attack = isinstance(node, ast.FunctionDef) and any(map(_registers, node.decorator_list))
        words = isinstance(node, ast.Expr)
        if not ours and not attack and not words:
            kept.append(ast.get_source_segment(text, node) or "")
    return kept


def source_of(attack: Snippet) -> str:
    """Return a snippet's function without its decorator."""
    text = inspect.getsource(attack.attack)
    return ast.get_source_segment(text, ast.parse(text).body[0]) or ""


def _registers(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "snippet"
