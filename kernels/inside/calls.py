"""Calls of functions: found by name or made of source, awaited if need be, their value told.

A function made of source is nobody's: it sees the session's variables, and is none of them. Its
value leaves as a message of a kind of its own, `broker_value`: `value`, plain data as `tagged` has
it, or `data` and `metadata`, how it is shown, where the value itself has no plain form.
"""

from __future__ import annotations
import __future__

import ast
import asyncio
import builtins
import inspect
import keyword
import linecache
import textwrap
import threading
import unicodedata
from collections import OrderedDict
from contextlib import nullcontext, suppress
from types import CodeType, FunctionType
from typing import Any

from ipykernel.jsonutil import encode_images, json_clean

from .forms import NoPlainForm, Unfit, plain_form
from .publish import pack
from .tracebacks import forget_own_frames

KIND = "broker_value"
ENVELOPE = 4096  # bytes of a message beside its value
KEPT = 64  # sources, compiled
NEITHER = "function: expected the source of one lambda or one def, or the name of a function"
# What the session's cells have imported from `__future__`; annotations are never looked at: a
# function that comes from a module may name there what only that module has.
FUTURE = 0
for _name in __future__.all_feature_names:
    FUTURE |= getattr(__future__, _name).compiler_flag

Reply = dict[str, Any]


class Refused(Exception):
    """A call that cannot be: the error to tell, of which no frame is worth showing."""


class Calls:
    """A kernel's calls."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._made: OrderedDict[str, CodeType] = OrderedDict()
        self._count = 0

    async def run(
        self, function: str, args: list[Any], kwargs: dict[str, Any], *, allow_stdin: bool
    ) -> Reply:
        """Call a function and tell its value; return what to reply."""
        payloads = self._kernel.shell.payload_manager
        try:
            value = await self._called(function, args, kwargs, allow_stdin=allow_stdin)
            self._tell(value)
            reply: Reply = {"status": "ok"}
        except Refused as refusal:
            reply = self._refused(refusal.args[0])
        except (NoPlainForm, Unfit) as error:
            told = TypeError if isinstance(error, NoPlainForm) else ValueError
            reply = self._refused(told(str(error)))
        except BaseException as error:  # whatever a function raises, SystemExit too
            reply = self._shown(error)
        reply |= {
            "execution_count": None,
            "user_expressions": {},
            "payload": payloads.read_payload(),
        }
        payloads.clear_payload()
        return reply

    async def _called(
        self, function: str, args: list[Any], kwargs: dict[str, Any], *, allow_stdin: bool
    ) -> Any:
        kernel, shell = self._kernel, self._kernel.shell
        kernel._forward_input(allow_stdin)
        shell.events.trigger("pre_execute")
        try:
            with shell.builtin_trap:
                value = self._function(function)(*args, **kwargs)
                return await self._awaited(value) if inspect.isawaitable(value) else value
        finally:
            kernel._restore_input()
            shell.events.trigger("post_execute")  # shows the plots, say

    async def _awaited(self, value: Any) -> Any:
        task = asyncio.ensure_future(_drive(value))
        main = threading.current_thread() is threading.main_thread()
        with self._kernel._cancel_on_sigint(task) if main else nullcontext():
            found, error = await task
        if error is not None:
            raise error
        return found

    # Functions

    def _function(self, text: str) -> Any:
        name = text.strip()
        parts = name.split(".")
        if all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
            found = self._named([unicodedata.normalize("NFKC", part) for part in parts])
            if not callable(found):
                what = f"function: {name!r} is a {type(found).__name__}, and cannot be called"
                raise Refused(TypeError(what))
            return found
        code = self._made.get(text)
        if code is None:
            code = self._compiled(text)
        self._made.move_to_end(text)
        own: dict[str, Any] = {}
        exec(code, self._kernel.shell.user_ns, own)  # noqa: S102 - the session's own code
        made = own["made"]()
        if isinstance(made, FunctionType):
            made.__qualname__ = made.__name__  # it is not to know of `made`
        return made

    def _named(self, parts: list[str]) -> Any:
        namespace = self._kernel.shell.user_ns
        first, *rest = parts
        if first not in namespace and not hasattr(builtins, first):
            raise Refused(NameError(f"function: name {first!r} is not defined"))
        found = namespace[first] if first in namespace else getattr(builtins, first)
        for part in rest:
            found = getattr(found, part)
        return found

    def _compiled(self, source: str) -> CodeType:
        """Return code that defines `made`, which makes the function."""
        self._count += 1
        file = f"<call {self._count}>"
        text = textwrap.dedent(source).strip() + "\n"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        try:
            tree = ast.parse("def made():\n    pass")
            tree.body[0].body = _body(text, file)  # type: ignore[attr-defined]
            flags = self._kernel.shell.compile.flags & FUTURE | __future__.annotations.compiler_flag
            code: CodeType = compile(
                ast.fix_missing_locations(tree), file, "exec", flags, dont_inherit=True
            )
        except BaseException:
            linecache.cache.pop(file, None)
            raise
        self._made[source] = code
        if len(self._made) > KEPT:
            _, oldest = self._made.popitem(last=False)
            linecache.cache.pop(oldest.co_filename, None)
        return code

    # What came of it

    def _tell(self, value: Any) -> None:
        kernel = self._kernel
        bound = kernel.message_bytes
        most = max(1, bound - ENVELOPE) if bound else 0
        try:
            content: dict[str, Any] = {"value": plain_form(value, most)}
        except NoPlainForm as error:
            if not error.whole:
                raise
            content = _display(kernel.shell, value)
        body = pack(content)
        if len(body) > most > 0:
            raise Unfit(f"value: {len(body):,} bytes; at most {most:,}: return less of it")
        kernel.send_response(kernel.iopub_socket, KIND, body, ident=kernel._topic(KIND))

    def _shown(self, error: BaseException) -> Reply:
        shell = self._kernel.shell
        forget_own_frames(error)
        if error.__traceback__ is not None:
            error.__traceback__ = error.__traceback__.tb_next  # after `run`, ours
        if error.__traceback__ is not None or isinstance(error, SyntaxError):
            with suppress(Exception):
                shell.showtraceback((type(error), error, error.__traceback__))
        return dict(self._kernel._failed(error, silent=False))  # which tells what is not told yet

    def _refused(self, error: Exception) -> Reply:
        self._kernel.shell.told_error = None  # that was another one
        return dict(self._kernel._failed(error, silent=False))


def _body(text: str, file: str) -> list[ast.stmt]:
    """Return what a function has to do to return the one that is written there. Raises Refused."""
    if text.startswith("lambda"):  # which may go over several lines
        tree = ast.increment_lineno(ast.parse(f"(\n{text})", file), -1)
    else:
        tree = ast.parse(text, file)
    made = tree.body[0] if len(tree.body) == 1 else None
    if isinstance(made, ast.FunctionDef | ast.AsyncFunctionDef):
        # Not a variable of the session: of the function around it, which is how it knows itself.
        return [made, ast.Return(ast.Name(made.name, ast.Load()))]
    if isinstance(made, ast.Expr) and isinstance(made.value, ast.Lambda):
        return [ast.Return(made.value)]
    raise Refused(ValueError(NEITHER))


async def _drive(awaitable: Any) -> tuple[Any, BaseException | None]:
    """Await; what is raised is returned, as a KeyboardInterrupt would end the loop."""
    try:
        return await awaitable, None
    except BaseException as error:
        return None, error


DRIVE = _drive.__code__


def _display(shell: Any, value: Any) -> dict[str, Any]:
    """Return how a value is shown; as text at the least."""
    data, metadata = shell.display_formatter.format(value)
    if "text/plain" not in data:
        data = {**data, "text/plain": f"<{type(value).__qualname__}>"}
    cleaned: dict[str, Any] = json_clean({"data": encode_images(data), "metadata": metadata})
    return cleaned
