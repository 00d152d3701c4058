"""Which host tools a session has, and which of its clients serves each.

A tool's name is served by whoever registered it last. Whose connection has gone keeps its names for
a grace: it may come back, and register them again.
"""

from __future__ import annotations

import keyword
from dataclasses import dataclass
from typing import Any

import orjson

from broker.errors import BadMessage, TooLarge
from broker.requests import MAX_TOOLS, Tool, Tools
from broker.roles import Client

MOST_DESCRIBED = 1 << 20  # bytes of one client's tools, as JSON
RESERVED = ("tools", "ToolError")  # what cells find beside them


@dataclass(slots=True)
class Offer:
    """One tool, and who serves it."""

    tool: Tool
    client: Client
    registration: str  # the id of the request that registered it
    away: bool = False  # the client has gone, and may come back


class Offers:
    """The tools of one session, by name."""

    def __init__(self) -> None:
        self._offers: dict[str, Offer] = {}
        self.described: tuple[Tool, ...] = ()  # the same object as long as nothing has changed

    def __repr__(self) -> str:
        return f"<Offers: {', '.join(self._offers) or 'none'}>"

    def find(self, name: str) -> Offer | None:
        """Return who serves a tool, or is expected back to serve it."""
        return self._offers.get(name)

    def register(self, client: Client, request: Tools) -> None:
        """Take what a client serves from now on, instead of what it served before.

        Raises BadMessage and TooLarge, and changes nothing then.
        """
        for tool in request.tools:
            check(tool)
        names = {tool.name for tool in request.tools}
        if len(names) < len(request.tools):
            raise BadMessage("tools: two of them have one name", field="tools")
        size = sum(len(orjson.dumps(_description(tool))) for tool in request.tools)
        if size > MOST_DESCRIBED:
            raise TooLarge(
                f"tools: {size:,} bytes of descriptions; at most {MOST_DESCRIBED:,}", field="tools"
            )
        kept = {name: one for name, one in self._offers.items() if one.client is not client}
        if len(kept.keys() | names) > MAX_TOOLS:
            raise TooLarge(f"tools: a session has at most {MAX_TOOLS}", field="tools")
        for tool in request.tools:
            kept[tool.name] = Offer(tool, client, request.id)
        self._offers = kept
        self._settle()

    def leave(self, client: Client) -> bool:
        """Note that a client has gone; return whether it serves anything."""
        own = [offer for offer in self._offers.values() if offer.client is client]
        for offer in own:
            offer.away = True
        return bool(own)

    def forget(self, client: Client) -> None:
        """Drop what a client that has gone is still expected to serve."""
        self._offers = {k: v for k, v in self._offers.items() if v.client is not client}
        self._settle()

    def told(self) -> list[dict[str, Any]]:
        """Return the tools as a kernel is told of them."""
        return [_description(tool) for tool in self.described]

    def _settle(self) -> None:
        described = tuple(offer.tool for _, offer in sorted(self._offers.items()))
        if described != self.described:
            self.described = described


def check(tool: Tool) -> None:
    """Raise BadMessage for a tool that code could not call, or whose arguments say nothing."""
    name = tool.name
    if name in RESERVED or keyword.iskeyword(name) or name.startswith("__"):
        raise BadMessage(f"tools: no tool can be named {name}", field="tools")
    schema = tool.parameters
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if (
        schema.get("type", "object") != "object"
        or not isinstance(properties, dict)
        or not isinstance(required, list)
        or not all(isinstance(one, dict | bool) for one in properties.values())
        or not all(isinstance(one, str) for one in required)
    ):
        raise BadMessage(
            f"tools: the parameters of {name} are no JSON Schema of an object", field="tools"
        )


def _description(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
