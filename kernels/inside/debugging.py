"""ipykernel's debugger, for which nothing is there until it is used, and nobody else waits.

What it has the user's objects do has an end: debugpy where they are evaluated at a breakpoint, and
a thread like that of the questions where ipykernel itself would have the control thread ask them.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Coroutine
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

from ipykernel.compiler import get_tmp_directory
from jupyter_client.session import DELIM

from .evaluations import stop_evaluations, withdraw
from .interrupts import Aim
from .questions import BUSY, LATE, Questions, Stopped

# s that one request may take: under a debugger's eyes, on a busy machine, the first look at a table
# of pandas' takes four. These run nobody's code, and start much:
LIMIT = 20.0
STARTING, START_LIMIT = ("initialize", "attach", "configurationDone", "disconnect"), 30.0
GRACE = 2.0  # s from then on until it is given up; meanwhile, what is evaluated is stopped
AGAIN = 0.1  # s between two stops
MAX_TOLD = 1000  # characters of an error
# Those that ipykernel serves itself, by the user's objects: always, and where nothing is stopped.
OWN, OWN_AT_REST = ("inspectVariables", "modules"), ("richInspectVariables", "variables")

# What a debugger cannot do here, in the words of the answer to `initialize`: DAP's, and debugpy's.
UNABLE = dict.fromkeys(
    ("supportsTerminateRequest", "supportTerminateDebuggee", "supportsTerminateDebuggee"), False
)

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


class ParentsApart:
    """A kernel whose control requests do not take each other's answers, when two are served."""

    _own: ContextVar[dict[str, Any]] = ContextVar("control_parent")
    _last: dict[str, Any] = {}  # noqa: RUF012 - what other threads see; never changed in place

    @property
    def _control_parent(self) -> dict[str, Any]:
        return self._own.get({}) or self._last

    @_control_parent.setter
    def _control_parent(self, parent: dict[str, Any]) -> None:
        self._own.set(parent)
        self._last = parent


class Debugging:
    """Serves the requests to the debugger one after another, and beside all others.

    Each waits for debugpy, and the first of them for the main thread, on whose behalf debugpy is to
    listen. ipykernel has the control thread wait for that one, and so the interrupts, and the
    output of the cell that it waits for.
    """

    def __init__(self, kernel: Any, aim: Aim) -> None:
        self._kernel = kernel
        self._aim = aim
        self._questions = Questions(kernel)  # apart from those that others wait for
        self._lock = asyncio.Lock()
        self.limit = LIMIT
        self._hook: Any = None  # debugpy's, for `breakpoint()`
        self._stuck: asyncio.Task[Any] | None = None  # a request that never came to its end
        self._is_left = False  # debugpy, which takes nobody else then

    def stand_by(self) -> None:
        """Leave `breakpoint()` to pdb until a debugger comes; debugpy has it do nothing."""
        if sys.breakpointhook is not sys.__breakpointhook__:
            self._hook, sys.breakpointhook = sys.breakpointhook, sys.__breakpointhook__

    async def serve(self, frames: list[bytes]) -> None:
        """Serve a request of the control channel; on its thread."""
        if not _is_for_debugger(frames):
            await self._kernel.dispatch_control(frames)
            return
        async with self._lock:
            await self._kernel.process_control(frames)

    async def obstacle(self, request: dict[str, Any]) -> str:
        """Return why the debugger cannot serve a request, once the main thread was free; or ""."""
        debugger = self._kernel.debugger
        if debugger is None:
            return "debugpy is not installed"
        if request["command"] == "terminate":
            return "a debugger does not end the kernel; `disconnect` lets go of it"
        if request["command"] == "initialize" and self._is_left:
            return "debugpy could not be stopped, and was left; restart the kernel to debug again"
        if request["command"] == "initialize" and not debugger.debugpy_initialized:
            try:
                os.makedirs(get_tmp_directory(), 0o700, exist_ok=True)  # for the cells' sources
                host, port = debugger.debugpy_client.get_host_port()
                called = self._kernel.shell_channel_thread.call(partial(_listen, host, int(port)))
                await asyncio.wrap_future(called)
            except Exception as error:
                return f"debugpy cannot listen: {error!r}"
            debugger.debugpy_initialized = True
            sys.breakpointhook = self._hook or sys.breakpointhook
        return ""

    async def answer(self, request: dict[str, Any], served: Coroutine[Any, Any, Any]) -> Any:
        """Return the debugger's answer to a request, or a refusal once that took too long."""
        command = request["command"]
        if self._stuck is not None and not self._stuck.done():
            served.close()
            if command == "disconnect":
                return self._break_off(request, self._stuck)
            return refusal(request, "an earlier request keeps the debugger, and cannot be stopped")
        at_rest = not self._kernel.debugger.stopped_threads
        if command in OWN or (command in OWN_AT_REST and at_rest):
            told = await self._questions.find(lambda: _driven(request, served), self.limit)
            with suppress(ValueError):  # a thread that was given up is at it still
                served.close()
            if told is BUSY:
                return refusal(request, "too much is asked already")
            return refusal(request, f"{command} took too long") if told is LATE else told
        task = asyncio.create_task(served)
        limit = START_LIMIT if command in STARTING else self.limit
        if not (await asyncio.wait([task], timeout=limit))[0]:
            await self._stop(task)
        if task.done():
            return task.result()
        self._stuck = task
        return refusal(request, f"{command} took more than {limit:g} s, and cannot be stopped")

    def _break_off(self, request: dict[str, Any], stuck: asyncio.Task[Any]) -> dict[str, Any]:
        """Leave debugpy for good; what it has stopped goes on once it can."""
        stuck.cancel()
        self._is_left = True
        debugger = self._kernel.debugger
        debugger.stop()
        debugger.is_started, debugger.breakpoint_list = False, {}
        debugger.stopped_threads = set()
        return {**refusal(request, ""), "success": True}

    async def _stop(self, task: asyncio.Task[Any]) -> None:
        asked: set[int] = set()
        task.add_done_callback(partial(_done, asked))
        for _ in range(int(GRACE / AGAIN)):
            found = stop_evaluations()
            asked |= found
            if threading.main_thread().ident in found:
                self._aim.wake()
            if (await asyncio.wait([task], timeout=AGAIN))[0]:
                return


def _done(asked: set[int], task: asyncio.Task[Any]) -> None:
    """Stop nothing that comes after a request; of one that was given up, its error is nobody's."""
    if not task.cancelled():  # else what it has evaluated goes on, and is to be stopped still
        withdraw(asked)
        task.exception()  # or its loss is told in the next cell's output


def _driven(request: dict[str, Any], served: Coroutine[Any, Any, Any]) -> Any:
    """Run what waits for nothing; return its answer, or a refusal that tells why there is none."""
    try:
        served.send(None)
    except StopIteration as ended:
        return ended.value
    except Stopped:
        raise
    except BaseException as error:  # the user's objects may raise what they like
        return refusal(request, f"{request['command']} failed: {_told(error)}")
    return refusal(request, "a thread has been stopped meanwhile; ask again")  # and is waited for


def _told(error: BaseException) -> str:
    try:
        return repr(error)[:MAX_TOLD]
    except Exception:
        return type(error).__name__


def sparing(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request without the wish that the kernel end with the debugging.

    debugpy would have it exit: with its variables, and often before its answer is out.
    """
    if request["command"] != "disconnect":
        return request
    arguments = request.get("arguments")
    given = arguments if isinstance(arguments, dict) else {}
    return {**request, "arguments": {**given, "terminateDebuggee": False}}


def modest(answer: Any) -> Any:
    """Return an answer that promises nothing of what is refused."""
    if not isinstance(answer, dict) or answer.get("command") != "initialize":
        return answer
    body = answer.get("body")
    return {**answer, "body": {**body, **UNABLE}} if isinstance(body, dict) else answer


def refusal(request: dict[str, Any], why: str) -> dict[str, Any]:
    """Return the answer to a request that the debugger cannot serve."""
    return {
        "type": "response",
        "seq": 0,
        "request_seq": request.get("seq", 0),
        "command": request["command"],
        "success": False,
        "message": why,
    }


def _is_for_debugger(frames: list[bytes]) -> bool:
    """Tell which way a request goes; nobody has checked its signature yet."""
    try:
        return b"debug_request" in frames[frames.index(DELIM) + 2]
    except (ValueError, IndexError):
        return False  # no message, as the kernel will find


def _listen(host: str, port: int) -> None:
    before = os.environ.get(QUIET)
    os.environ[QUIET] = "1"
    try:
        import debugpy

        debugpy.listen((host, port))
    finally:
        del os.environ[QUIET]
        if before is not None:
            os.environ[QUIET] = before
