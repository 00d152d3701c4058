"""Functions as the source that a session is sent: without what they have around them here."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

from .errors import BadRequest

Function = str | Callable[..., Any]


def source_of(function: Function) -> str:
    """Return the source of a function, or a text as it is: source, or a name in the session.

    What the function finds in its module here, it is to find in the session there: imports belong
    into it. Raises BadRequest for what cannot be sent: what has no source, is decorated, is a
    method, or uses variables of a function around it.
    """
    if isinstance(function, str):
        return function
    if not isinstance(function, FunctionType):
        raise _refused(f"a {type(function).__name__} has no source; send a function, or its name")
    name, code = function.__name__, function.__code__
    if code.co_freevars:
        names = ", ".join(code.co_freevars)
        raise _refused(f"{name} uses {names} of the function around it; pass that as an argument")
    try:
        lines, _ = inspect.findsource(code)
        text = "".join(lines)
        tree = ast.parse(text)
    except (OSError, TypeError, SyntaxError) as error:
        raise _refused(f"the source of {name} cannot be found; send it as text") from error
    found = [node for node in ast.walk(tree) if _is_it(node, code)]
    if any(getattr(node, "decorator_list", None) for node in found):
        raise _refused(f"{name} is decorated; send it without, or its source as text")
    sources = {textwrap.dedent(_segment(text, node)).strip() for node in found}
    if len(sources) > 1:
        sources = {source for source in sources if _compiles_to(source, code)}
    if len(sources) != 1:
        raise _refused(f"which part of line {code.co_firstlineno} {name} is cannot be told")
    return sources.pop()


def _is_it(node: ast.AST, code: CodeType) -> bool:
    if isinstance(node, ast.Lambda):
        return code.co_name == "<lambda>" and node.lineno == code.co_firstlineno
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        return node.name == code.co_name and first == code.co_firstlineno
    return False


def _segment(text: str, node: ast.AST) -> str:
    return ast.get_source_segment(text, node, padded=not isinstance(node, ast.Lambda)) or ""


def _compiles_to(source: str, code: CodeType) -> bool:
    made = compile(f"({source})", "-", "eval").co_consts[0]
    names = "co_code", "co_consts", "co_names", "co_varnames"
    return all(getattr(made, name) == getattr(code, name) for name in names)


def _refused(why: str) -> BadRequest:
    return BadRequest(f"function: {why}", code="bad_message", field="function")
