"""Our side: the broker as a real process, and one session of it in the native protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import msgpack
import orjson
import psutil

from tests.bench.client import ClientConnection, request, socket
from tests.bench.processes import DidNotStart, program

MSGPACK, JSON = "broker.v1.msgpack", "broker.v1.json"
READY = r"https?://\S+"
BOOT = "inside/boot.py"
BROKER = Path(sys.executable).parent / "broker"


class Session:
    """A connected session."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._binary = connection.subprotocol == MSGPACK
        self._count = 0

    async def ask(self, kind: str, **fields: object) -> list[dict[str, Any]]:
        """Send a request and return its events up to `done` or `reply`. Raises on a fault."""
        return [event async for event in self.events(kind, **fields)]

    async def events(self, kind: str, **fields: object) -> AsyncIterator[dict[str, Any]]:
        """Send a request and give its events as they come, `done` or `reply` the last."""
        self._count += 1
        request_id = f"r{self._count}"
        message = {"type": kind, "id": request_id, **fields}
        if self._binary:
            await self._connection.send(msgpack.packb(message))
        else:
            await self._connection.send(orjson.dumps(message).decode())
        async for frame in self._connection:
            event = msgpack.unpackb(frame) if self._binary else orjson.loads(frame)
            if event["type"] == "fault":
                raise RuntimeError(f"{kind}: {event}")
            if event.get("id") != request_id:
                continue
            yield event
            if event["type"] in ("done", "reply"):
                return
        raise ConnectionError("the broker closed the connection")

    async def begin(self, code: str) -> None:
        """Send a cell that will not end, and return when it has begun."""
        self._count += 1
        message = {"type": "execute", "id": f"r{self._count}", "code": code}
        packed = msgpack.packb(message) if self._binary else orjson.dumps(message).decode()
        await self._connection.send(packed)
        async for frame in self._connection:
            event = msgpack.unpackb(frame) if self._binary else orjson.loads(frame)
            if event["type"] == "started":
                return

    async def execute(self, code: str) -> list[dict[str, Any]]:
        events = await self.ask("execute", code=code)
        if events[-1]["status"] != "ok":
            raise RuntimeError(f"{code!r}: {events}")
        return events


@dataclass
class Broker:
    """A running broker."""

    url: str
    token: str
    pid: int

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @contextlib.asynccontextmanager
    async def attach(self, session: str, subprotocol: str = MSGPACK) -> AsyncIterator[Session]:
        url = f"{self.url}/v1/sessions/{session}/ws"
        async with socket(url, self.headers, [subprotocol]) as connection:
            yield Session(connection)

    async def session(self, session: str) -> dict[str, Any]:
        row = await request("GET", f"{self.url}/v1/sessions/{session}", self.headers)
        assert isinstance(row, dict)
        return row

    async def kill(self, session: str) -> None:
        await request("DELETE", f"{self.url}/v1/sessions/{session}", self.headers)

    async def pools(self) -> dict[str, Any]:
        """Return the operators' view of kernels and their memory."""
        view = await request("GET", f"{self.url}/v1/pools?memory=true", self.headers)
        assert isinstance(view, dict)
        return view

    async def processes(self) -> set[psutil.Process]:
        """Return the broker's processes, and its kernels with all who keep them.

        Those are nobody's children of the broker: they outlive it.
        """
        own = psutil.Process(self.pid)
        found = {own, *own.children(recursive=True)}
        for pool in (await self.pools())["pools"]:
            for kernel in pool["kernels"][:1]:
                top = psutil.Process(kernel["pid"])
                while (parent := top.parent()) and BOOT in " ".join(parent.cmdline()):
                    top = parent
                found |= {top, *top.children(recursive=True)}
        return found

    async def warm(self) -> None:
        """Wait until each pool stands at its target, so that no refill is measured.

        The server pushes no such event: an operator, too, would ask again. Raises TimeoutError.
        """
        async with asyncio.timeout(60):
            while True:
                view = await request("GET", f"{self.url}/v1/pools", self.headers)
                assert isinstance(view, dict)
                if all(p["warm"] >= p["target"] and not p["starting"] for p in view["pools"]):
                    return
                await asyncio.sleep(0.02)

    async def first_result(self, code: str) -> float:
        """Return the seconds from nothing to the end of the first snippet, from a warm pool."""
        await self.warm()
        name = f"bench-{uuid.uuid4().hex}"
        began = perf_counter()
        async with self.attach(name) as session:
            events = await session.execute(code)
            elapsed = perf_counter() - began
            await session.ask("close")
        assert any(event["type"] == "result" for event in events)
        await self.warm()  # the refill's work is not the next contestant's burden
        return elapsed


@contextlib.asynccontextmanager
async def broker(
    directory: Path, *, warm: int | None = 4, isolation: str = "standard", **settings: object
) -> AsyncIterator[Broker]:
    """Start `broker serve` with its embedded store on a free port, end it with the block.

    `warm` is None for the broker's own default; `settings` go into its environment.
    """
    ready_file = directory / "ready.json"
    argv = [str(BROKER), "serve", "--isolation", isolation, "--port", "0"]
    argv += [] if warm is None else ["--warm", str(warm)]
    argv += ["--state-dir", str(directory / "state"), "--ready-file", str(ready_file)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    # Nothing outlives the measurement, even when the broker has to be killed.
    env |= {"BROKER_ORPHAN_TTL": "5s"}
    env |= {f"BROKER_{name.upper()}": str(value) for name, value in settings.items()}
    async with program(argv, env=env, ready=READY):
        try:
            ready = json.loads(ready_file.read_bytes())
        except FileNotFoundError:
            raise DidNotStart("broker serve printed its URL but wrote no ready file") from None
        yield Broker(ready["url"].rstrip("/"), ready["token"], ready["pid"])
