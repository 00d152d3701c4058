"""Jupyter's servers: their virtual environment, their processes, their WebSocket protocol."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson

from tests import environments
from tests.bench.client import ClientConnection, socket
from tests.bench.client import request as ask
from tests.bench.processes import program
from tests.bench.stock import isolated
from tests.jupyter.messages import execution, is_about, is_idle, is_reply, request

LOCK = Path(__file__).parent / "requirements.lock"
TOKEN = "bench"
READY = r"available at (http://\S+)"
SERVER_READY = r"(http://127\.0\.0\.1:\d+)/tree\?|(http://127\.0\.0\.1:\d+)/\?token"
# Beyond 1 MB/s they drop what a kernel prints: a row that prints much would compare nothing.
UNBOUNDED = "--ZMQChannelsWebsocketConnection.limit_rate=False"
PATIENCE = 30.0  # s


async def environment() -> Path:
    """Return the Python of the peers' virtual environment, made when the lock file has changed."""
    return await asyncio.to_thread(environments.environment, "bench-venv", LOCK)


class GatewayKernel:
    """A connected kernel, in Jupyter's words.

    It reads where it waits: a task that reads beside it would be timed with the server.
    """

    def __init__(self, connection: ClientConnection, session: str) -> None:
        self._connection = connection
        self._session = session

    async def execute(self, code: str) -> list[dict[str, Any]]:
        """Run the code and return its messages up to `idle`, with which all output is there."""
        messages = [message async for message in self.messages(code)]
        if failed := [each for each in messages if each["msg_type"] == "error"]:
            raise RuntimeError(f"{failed[0]['content']}")
        return messages

    def messages(self, code: str) -> AsyncIterator[dict[str, Any]]:
        """Run the code and give its messages as they come, up to both the reply and `idle`."""
        return self.asked("execute_request", execution(code))

    async def asked(self, kind: str, content: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Send a request and give the messages about it, up to both the reply and `idle`."""
        message = request(kind, content, self._session)
        message_id = message["header"]["msg_id"]
        await self._connection.send(orjson.dumps(message | {"channel": "shell"}).decode())
        missing = {"reply", "idle"}
        async for frame in self._connection:
            answer = orjson.loads(frame)
            if not is_about(answer, message_id):
                continue
            yield answer
            if is_reply(answer):
                missing.discard("reply")
            elif is_idle(answer):
                missing.discard("idle")
            if not missing:
                return
        raise ConnectionError("the server closed the connection")


@dataclass
class Gateway:
    """A running server: Kernel Gateway, or the one of Jupyter."""

    url: str
    pid: int
    headers: Mapping[str, str] = field(default_factory=lambda: {"Authorization": f"token {TOKEN}"})

    async def create(self) -> str:
        model = await ask("POST", f"{self.url}/api/kernels", self.headers, {"name": "python3"})
        assert isinstance(model, dict)
        return str(model["id"])

    async def delete(self, kernel: str) -> None:
        await ask("DELETE", f"{self.url}/api/kernels/{kernel}", self.headers)

    @contextlib.asynccontextmanager
    async def attach(self, kernel: str) -> AsyncIterator[GatewayKernel]:
        session = uuid.uuid4().hex
        url = f"{self.url}/api/kernels/{kernel}/channels?session_id={session}"
        async with socket(url, self.headers) as connection:
            yield GatewayKernel(connection, session)

    async def first_result(self, code: str) -> float:
        """Return the seconds from nothing to the result of the first snippet."""
        began = perf_counter()
        kernel = await self.create()
        try:
            async with self.attach(kernel) as session:
                messages = await session.execute(code)
                elapsed = perf_counter() - began
            assert any(message["msg_type"] == "execute_result" for message in messages)
            return elapsed
        finally:
            await self.delete(kernel)


@contextlib.asynccontextmanager
async def gateway(python: Path, directory: Path) -> AsyncIterator[Gateway]:
    """Start a Kernel Gateway with its defaults on a free port, end it with the block."""
    env = isolated(directory) | {"KG_AUTH_TOKEN": TOKEN, "KG_IP": "127.0.0.1"}
    # The port is only where the search begins: it says itself where it ended up.
    env |= {"KG_PORT": "18888", "KG_PORT_RETRIES": "200"}
    env["PATH"] = f"{python.parent}:{env.get('PATH', '')}"
    argv = [str(python), "-m", "kernel_gateway", UNBOUNDED]
    async with program(argv, env=env, ready=READY) as running:
        assert running.ready is not None
        yield await answering(Gateway(running.ready[1].rstrip("/"), running.pid))


@contextlib.asynccontextmanager
async def jupyter_server(python: Path, directory: Path) -> AsyncIterator[Gateway]:
    """Start a Jupyter server with its defaults on a free port, end it with the block."""
    env = isolated(directory) | {"JUPYTER_TOKEN": TOKEN}
    env["PATH"] = f"{python.parent}:{env.get('PATH', '')}"
    argv = [str(python), "-m", "jupyter_server", "--no-browser", "--allow-root"]
    argv += ["--ip=127.0.0.1", "--port=19888", "--port-retries=200"]
    argv += [f"--ServerApp.root_dir={directory}", UNBOUNDED]
    async with program(argv, env=env, ready=SERVER_READY) as running:
        assert running.ready is not None
        yield await answering(Gateway(running.ready[1] or running.ready[2], running.pid))


async def answering(server: Gateway) -> Gateway:
    """Wait until the server answers: it prints its address before it listens. Raises TimeoutError.

    It has no event that says so: hence the polling.
    """
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(OSError):
                await ask("GET", f"{server.url}/api", server.headers)
                return server
            await asyncio.sleep(0.05)
