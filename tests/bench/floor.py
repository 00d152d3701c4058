"""The floor: a WebSocket, two processes and `run_cell`, and nothing that anybody would want.

Whatever gives a client's snippet to a kernel in a process of its own does at least this: Tornado
takes a frame, ZeroMQ carries it over, IPython runs it, and the same way back.

`python -m tests.bench.floor DIRECTORY` is the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from tests.bench.client import ClientConnection, socket
from tests.bench.processes import program


@dataclass
class Floor:
    """A connection to the server."""

    connection: ClientConnection

    async def execute(self, code: str) -> float:
        """Run the code and return the seconds until its answer."""
        began = perf_counter()
        await self.connection.send(code)
        answer = await self.connection.recv()
        elapsed = perf_counter() - began
        assert answer == "2", answer
        return elapsed


@contextlib.asynccontextmanager
async def floor(directory: Path) -> AsyncIterator[Floor]:
    """Start the server and connect; both end with the block."""
    argv = [sys.executable, "-m", "tests.bench.floor", str(directory)]
    async with (
        program(argv, env=dict(os.environ), ready=r"http://\S+") as running,
        socket(running.ready[0] if running.ready else "", {}) as connection,
    ):
        yield Floor(connection)


def compute(address: str) -> None:
    """Answer each snippet with its result, for ever."""
    import zmq
    from IPython.core.interactiveshell import InteractiveShell

    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - displayhook prints
    shell = InteractiveShell.instance()
    shell.history_manager.enabled = False
    replies = zmq.Context().socket(zmq.REP)
    replies.connect(address)
    while True:
        result = shell.run_cell(replies.recv().decode(), store_history=True)
        replies.send(repr(result.result).encode())


def serve(directory: str) -> None:
    """Carry frames between WebSockets and the other process."""
    import zmq
    import zmq.asyncio
    from tornado import web, websocket

    address = f"ipc://{directory}/floor"

    class Carrier(websocket.WebSocketHandler):
        async def on_message(self, message: str | bytes) -> None:
            await requests.send(str(message).encode())
            await self.write_message((await requests.recv()).decode())

    async def run() -> None:
        server = web.Application([(r"/", Carrier)]).listen(0, "127.0.0.1")
        port = next(iter(server._sockets.values())).getsockname()[1]
        print(f"http://127.0.0.1:{port}/", flush=True)
        await asyncio.Event().wait()

    requests = zmq.asyncio.Context().socket(zmq.REQ)
    requests.bind(address)
    multiprocessing.get_context("spawn").Process(
        target=compute, args=(address,), daemon=True
    ).start()
    asyncio.run(run())


if __name__ == "__main__":
    serve(sys.argv[1])
