"""Host tools as a cell finds them: functions by their names, and all of them in `tools`.

What a tool is called with is checked here, so that a mistake is told where it was made; what may be
called is decided outside, whatever a cell makes of these objects.
"""

from __future__ import annotations

import asyncio
import builtins
import inspect
import keyword
import threading
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from typing import Any

from .asking import Asking, ToolError

DEEP = 16  # levels of arguments that are checked
KINDS: dict[str, tuple[Any, ...]] = {
    "string": (str,),
    "integer": (Integral,),
    "number": (Real,),
    "boolean": (bool,),
    "array": (list, tuple),
    "object": (dict,),
    "null": (type(None),),
}


class Unset:
    """Stands for an argument that is not given."""

    def __repr__(self) -> str:
        return "..."


UNSET = Unset()


class Tool:
    """A host tool. To be called, or awaited as `tool.aio(...)`, which others may go on beside."""

    def __init__(self, asking: Asking, tool: Mapping[str, Any]) -> None:
        self._asking = asking
        self.schema: dict[str, Any] = dict(tool.get("parameters") or {})
        self.__name__ = self.__qualname__ = str(tool["name"])
        self.__module__ = "tools"
        self.__doc__ = str(tool.get("description") or "") or None
        properties = self.schema.get("properties")
        self._properties: dict[str, Any] = properties if isinstance(properties, dict) else {}
        required = self.schema.get("required")
        self._required = set(required) if isinstance(required, list) else set()
        # Without a word about arguments any will do; with it, only those, unless it says more.
        self._free = "properties" not in self.schema
        self._more = self._free or bool(self.schema.get("additionalProperties"))
        self.__signature__ = self._signature()

    def __repr__(self) -> str:
        return f"<host tool {self.__name__}{self.__signature__}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it, and wait for what it returns. Raises TypeError, or the tool's ToolError."""
        answer = self._asking.call(self.__name__, *self._checked(args, kwargs))
        try:
            error = answer.exception()
        except BaseException:
            answer.cancel()  # an interrupt: nobody waits any more
            raise
        if error is not None:
            raise error  # from here: what it is raised in is not shown
        return answer.result()

    async def aio(self, *args: Any, **kwargs: Any) -> Any:
        """Call it, and let others go on until it returns; raises as a plain call does."""
        answer = self._asking.call(self.__name__, *self._checked(args, kwargs))
        return await asyncio.wrap_future(answer)

    def _signature(self) -> inspect.Signature:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        made = []
        if self._free:
            made.append(inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL))
        odd = False  # names that only `**` can give
        for needed in (True, False):
            for name, schema in self._properties.items():
                if (name in self._required) is not needed:
                    continue
                if not name.isidentifier() or keyword.iskeyword(name) or name == "others":
                    odd = True
                    continue
                default = UNSET
                if isinstance(schema, dict) and "default" in schema:
                    default = schema["default"]
                given: Any = inspect.Parameter.empty if needed else default
                made.append(inspect.Parameter(name, kind, default=given))
        if self._more or odd:
            made.append(inspect.Parameter("others", inspect.Parameter.VAR_KEYWORD))
        return inspect.Signature(made)

    def _checked(self, args: Any, kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments as they are sent. Raises TypeError for what does not fit."""
        if self._free:
            return list(args), kwargs
        try:
            bound = self.__signature__.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{self.__name__}() {error}") from None
        more = bound.pop("others", {})
        given = {name: one for name, one in {**bound, **more}.items() if one is not UNSET}
        for name in self._required - given.keys():
            raise TypeError(f"{self.__name__}() missing a required argument: {name!r}")
        for name, value in given.items():
            if name in self._properties:
                self._check(name, value, self._properties[name])
            elif not self._more:
                raise TypeError(f"{self.__name__}() got an unexpected argument: {name!r}")
        return [], given

    def _check(self, place: str, value: Any, schema: Any, depth: int = 0) -> None:
        if not isinstance(schema, dict) or depth > DEEP:
            return
        kinds = schema.get("type")
        names = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
        if names and not any(_is(value, str(name), schema) for name in names):
            expected = " or ".join(map(str, names))
            got = type(value).__name__
            raise TypeError(f"{self.__name__}() {place}: expected {expected}, got {got}")
        choices = schema.get("enum")
        if isinstance(choices, list) and value not in choices:
            expected = ", ".join(map(repr, choices[:20]))
            got = repr(value)[:100]
            raise TypeError(f"{self.__name__}() {place}: expected one of {expected}; got {got}")
        if isinstance(value, list | tuple) and isinstance(schema.get("items"), dict):
            for at, item in enumerate(value):
                self._check(f"{place}[{at}]", item, schema["items"], depth + 1)
        inner = schema.get("properties")
        if isinstance(value, dict) and isinstance(inner, dict):
            for name, item in value.items():
                self._check(f"{place}[{name!r}]", item, inner.get(name), depth + 1)
            missing = schema.get("required")
            for name in missing if isinstance(missing, list) else ():
                if name not in value:
                    raise TypeError(f"{self.__name__}() {place}: {name!r} is missing inside")


def _is(value: Any, kind: str, schema: Mapping[str, Any]) -> bool:
    if kind not in KINDS:
        return True
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "string" and isinstance(value, bytes | bytearray):
        return schema.get("format") == "binary" or "contentEncoding" in schema
    return isinstance(value, KINDS[kind])


class Tools:
    """The host tools of this session, each an attribute by its name."""

    def __init__(self, tools: dict[str, Tool]) -> None:
        self.__dict__.update(tools)

    ToolError = ToolError

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no host tool {name!r}; there are: {', '.join(self) or 'none'}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("host tools are whoever's who serves them; give yours another name")

    def __getitem__(self, name: str) -> Any:
        return self.__dict__[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dict__)

    def __len__(self) -> int:
        return len(self.__dict__)

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.__dict__.values())) or "<no host tools>"


Tools.__module__ = Tool.__module__ = "tools"


class ToolBox:
    """What of host tools stands in the user's namespace: set as each cell starts."""

    def __init__(self) -> None:
        self._names: dict[str, Any] = {}

    def prepare(self, kernel: Any) -> None:
        """Take the tools that came with a cell's request, and see to it that the cell finds them.

        A variable of the user's stays what it is; so does everything named as a builtin is.
        """
        if threading.current_thread() is threading.main_thread():
            request = kernel.get_parent("shell")
            kernel.asking.begin(kernel._shell_parent_ident.get(), request)
            told = request.get("content", {}).get("broker")
            if isinstance(told, dict) and isinstance(told.get("tools"), list):
                self._replace(kernel, told["tools"])
        if self._names:
            namespace = kernel.shell.user_ns
            for name, value in self._names.items():
                namespace.setdefault(name, value)

    def _replace(self, kernel: Any, described: list[dict[str, Any]]) -> None:
        namespace, hidden = kernel.shell.user_ns, kernel.shell.user_ns_hidden
        for name, value in self._names.items():
            if namespace.get(name) is value:
                del namespace[name]
            hidden.pop(name, None)
        made = {str(each["name"]): Tool(kernel.asking, each) for each in described}
        self._names = {name: one for name, one in made.items() if not hasattr(builtins, name)}
        if made:
            self._names |= {"tools": Tools(made), "ToolError": ToolError}
        hidden.update(self._names)
