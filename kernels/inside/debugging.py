"""ipykernel's debugger, for which nothing is there until it is used, and nobody else waits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from functools import partial
from typing import Any

from ipykernel.compiler import get_tmp_directory
from jupyter_client.session import DELIM

QUIET = "PYDEVD_DISABLE_FILE_VALIDATION"  # else debugpy prints into the next cell's output


class LazyStream:
    """The stream to debugpy: a ZMQ context, its thread and the socket come with the first use."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._stream: Any = None

    @property
    def socket(self) -> Any:
        """Return the socket; on the control thread."""
        return self._made().socket

    def send_multipart(self, frames: Any) -> None:
        """Send to debugpy."""
        self._made().send_multipart(frames)

    def _made(self) -> Any:
        if self._stream is None:
            import zmq
            from zmq.eventloop.zmqstream import ZMQStream

            kernel = self._kernel
            kernel.zmq_context = zmq.Context()
            connection = kernel.zmq_context.socket(zmq.STREAM)
            connection.linger = 1000
            loop = kernel.control_thread.io_loop
            self._stream = ZMQStream(connection, loop)
            self._stream.on_recv(kernel.dispatch_debugpy, copy=False)
            kernel.stopped_events = asyncio.run_coroutine_threadsafe(
                kernel.poll_stopped_queue(), loop.asyncio_loop
            )
        return self._stream


class Debugging:
    """Serves the requests to the debugger one after another, beside all others.

    debugpy is to listen on behalf of the main thread, which may be busy for long: ipykernel has the
    control thread wait for it, and so the interrupts, and the output of the cell that it waits for.
    """

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._lock = asyncio.Lock()

    async def serve(self, frames: list[bytes]) -> None:
        """Serve a request of the control channel; on its thread."""
        kernel = self._kernel
        command = _command(frames)
        if command is None:
            await kernel.dispatch_control(frames)
            return
        async with self._lock:
            debugger = kernel.debugger
            if command == "initialize" and debugger and not debugger.debugpy_initialized:
                with contextlib.suppress(Exception):  # whatever it is: it will be refused
                    host, port = debugger.debugpy_client.get_host_port()
                    called = kernel.shell_channel_thread.call(partial(_listen, host, int(port)))
                    debugger.debugpy_initialized = await asyncio.wrap_future(called)
                    os.makedirs(get_tmp_directory(), 0o700, exist_ok=True)  # for cells' sources
            await kernel.dispatch_control(frames)


def refusal(request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a request that the debugger cannot serve."""
    return {
        "type": "response",
        "seq": 0,
        "request_seq": request.get("seq", 0),
        "command": request.get("command", ""),
        "success": False,
        "message": "debugpy cannot be imported, or cannot listen",
    }


def _command(frames: list[bytes]) -> str | None:
    """Return what the debugger is asked for; None if something else is asked for."""
    try:
        _, header, _, _, content = frames[frames.index(DELIM) + 1 :][:5]
        if b"debug_request" not in header:
            return None
        return str(json.loads(content).get("command"))
    except (ValueError, AttributeError):
        return None  # told by whoever reads it in earnest


def _listen(host: str, port: int) -> bool:
    os.environ[QUIET] = "1"
    try:
        import debugpy

        debugpy.listen((host, port))
    finally:
        del os.environ[QUIET]
    return True
