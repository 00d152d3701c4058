"""Stock ipykernel, spoken to over raw ZMQ: no client library between the clock and the kernel."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import secrets
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson
import zmq

CHANNELS = {"shell": 1, "iopub": 2, "stdin": 3, "control": 4, "hb": 5}
DELIMITER = b"<IDS|MSG>"
PATIENCE = 60_000  # ms


class Silent(RuntimeError):
    """The kernel did not answer in time."""


def isolated(directory: Path) -> dict[str, str]:
    """Return an environment in which no configuration of this machine's user is read."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "KG_", "IPYTHON"))}
    env |= {
        f"JUPYTER_{kind}_DIR": str(directory / kind.lower())
        for kind in ("CONFIG", "DATA", "RUNTIME")
    }
    return env | {"IPYTHONDIR": str(directory / "ipython"), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


class StockKernel:
    """One kernel process and the sockets to it. Its calls block: the clock sees nothing else.

    Unix sockets, as our own kernels have: TCP would only make the peer slower.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = secrets.token_hex(32)
        self.session = uuid.uuid4().hex
        self.process: asyncio.subprocess.Process | None = None
        self._context = zmq.Context()
        self._shell = self._socket(zmq.DEALER)
        self._iopub = self._socket(zmq.SUB)
        self._iopub.subscribe(b"")

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        # The default retry of 100 ms would round the start-up time up.
        socket.setsockopt(zmq.RECONNECT_IVL, 1)
        socket.setsockopt(zmq.LINGER, 0)
        return socket

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def start(self) -> None:
        """Start the process; `ask("kernel_info_request")` waits until it answers."""
        stem = self.directory / "k"
        connection = self.directory / "connection.json"
        description = {f"{name}_port": port for name, port in CHANNELS.items()} | {
            "transport": "ipc",
            "ip": str(stem),
            "key": self.key,
            "signature_scheme": "hmac-sha256",
            "kernel_name": "",
        }
        connection.write_bytes(orjson.dumps(description))
        self._shell.connect(f"ipc://{stem}-{CHANNELS['shell']}")
        self._iopub.connect(f"ipc://{stem}-{CHANNELS['iopub']}")
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ipykernel_launcher", "-f", str(connection)),
            env=isolated(self.directory),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )

    def send(self, kind: str, content: dict[str, Any]) -> str:
        """Send one signed request and return its message id."""
        message_id = uuid.uuid4().hex
        header = {
            "msg_id": message_id,
            "msg_type": kind,
            "session": self.session,
            "username": "",
            "date": "2020-01-01T00:00:00Z",
            "version": "5.4",
        }
        parts = [orjson.dumps(header), b"{}", b"{}", orjson.dumps(content)]
        digest = hmac.new(self.key.encode(), b"".join(parts), hashlib.sha256)
        self._shell.send_multipart([DELIMITER, digest.hexdigest().encode(), *parts])
        return message_id

    def _receive(self, socket: zmq.Socket[bytes], parent: str) -> tuple[str, bytes]:
        """Return type and content of the next message that belongs to `parent`."""
        while True:
            if not socket.poll(PATIENCE):
                raise Silent("the stock kernel did not answer")
            frames = socket.recv_multipart()
            start = frames.index(DELIMITER)
            header, its_parent = frames[start + 2], orjson.loads(frames[start + 3])
            if its_parent.get("msg_id") == parent:
                return str(orjson.loads(header)["msg_type"]), frames[start + 5]

    def ask(self, kind: str) -> bytes:
        """Send a request without content and return the reply's content."""
        return self._receive(self._shell, self.send(kind, {}))[1]

    def execute(self, code: str) -> float:
        """Run the code and return the seconds until all of its output and `idle` have arrived."""
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        began = perf_counter()
        parent = self.send("execute_request", content)
        while True:
            kind, body = self._receive(self._iopub, parent)
            if kind == "error" and "1/0" not in code:
                raise RuntimeError(body.decode())
            if kind == "status" and orjson.loads(body)["execution_state"] == "idle":
                elapsed = perf_counter() - began
                self._receive(self._shell, parent)
                return elapsed

    async def close(self) -> None:
        self._context.destroy(linger=0)
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()


@contextlib.asynccontextmanager
async def stock_kernel(directory: Path) -> AsyncIterator[StockKernel]:
    """Start a stock kernel, wait until it answers, end it with the block."""
    kernel = StockKernel(directory)
    try:
        await kernel.start()
        kernel.ask("kernel_info_request")
        yield kernel
    finally:
        await kernel.close()
