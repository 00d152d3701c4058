"""One cell after another: ipykernel's kernel, which here answers each request, come what may."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import comm
from ipykernel.ipkernel import IPythonKernel
from IPython.core.interactiveshell import InteractiveShell
from tornado.ioloop import IOLoop
from traitlets import Any as Anything
from traitlets import Type

from . import adapted  # noqa: F401 - before anything is made of it
from .asking import Asking
from .budget import OutputBudget
from .calls import DRIVE
from .cells import Compiler
from .debugging import Debugging, LazyStream, ParentsApart, modest, refusal, sparing
from .interrupts import Aim
from .parcels import Parcels
from .publish import Publisher
from .questions import Questions
from .session import KernelSession
from .shell import Shell
from .streams import CellStream, flush
from .subshells import Requests
from .tools import ToolBox
from .tracebacks import text_of

RUN_CODE = {InteractiveShell.run_code.__code__, DRIVE}
BROKEN_OFF = {
    "ename": "BrokenOff",
    "evalue": "a signal handler of the session's raised when the code had ended",
    "traceback": [],
}


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class Kernel(ParentsApart, IPythonKernel):
    """The kernel, with its text output under a budget per execution.

    SIGINT is taken at all times, and raises KeyboardInterrupt only while the user's code runs.
    Elsewhere it would break off the sending of a reply or of `idle`, and whoever waits for them
    would wait for ever; there it is remembered until the code of the same request starts.
    """

    budget: ClassVar[OutputBudget]
    message_bytes: ClassVar[int] = 0
    answers_exit = False  # as ipykernel does, whose loop goes on for 0.1 s
    module_files: ClassVar[list[str]] = []  # of the zygote: what a debugger does not step into
    shell_class = Type(Shell)
    compiler_class = Type(Compiler)
    # ipykernel wants them to be ZeroMQ's.
    shell_stream = Anything()
    control_stream = Anything()
    debugpy_stream = Anything()
    session: KernelSession
    iopub_socket: Publisher
    shell_channel_thread: Requests
    debugger: Any = None  # without debugpy

    def __init__(self, **options: Any) -> None:
        self._interruptible = False
        self._interrupted = False
        self._control_tasks: set[asyncio.Task[None]] = set()
        self._aim = Aim(self._take_interrupt)
        self._cpu = 0.0
        # Not IPythonKernel's own: it reads the file name of every module, which writes a reference
        # count to a page of each, and so costs every kernel 6 MB of memory that was shared.
        super(IPythonKernel, self).__init__(**options)
        self.shell_channel_thread = Requests(self, self.shell_stream)
        self.asking, self.tools = Asking(self), ToolBox()
        self.debugpy_stream = LazyStream(self)
        self._parcels = Parcels(self)
        self._questions = Questions(self)
        self._debugging = Debugging(self, self._aim)
        self._init_debugger()
        self._debugging.stand_by()
        self.comm_manager = comm.get_comm_manager()
        self._init_shell()
        for kind in ("comm_open", "comm_msg", "comm_close"):
            self.shell_handlers[kind] = getattr(self.comm_manager, kind)

    def _init_debugger(self) -> None:
        from ipykernel.debugger import _is_debugpy_available

        if _is_debugpy_available:
            self.debugger = self.debugger_class(
                self.log,
                self.debugpy_stream,
                self._publish_debug_event,
                None,
                self.session,
                self.module_files,
                self.debug_just_my_code,
                self.filter_internal_frames,
            )

    def _init_shell(self) -> None:
        shell: Any = self.shell_class.instance(
            parent=self,
            profile_dir=self.profile_dir,
            user_module=self.user_module,
            user_ns=self.user_ns,
            kernel=self,
            compiler_class=self.compiler_class,
        )
        shell.displayhook.session = self.session
        shell.displayhook.pub_socket = self.iopub_socket
        shell.displayhook.topic = self._topic("execute_result")
        shell.display_pub.session = self.session
        shell.display_pub.pub_socket = self.iopub_socket
        if name := os.environ.get("JPY_SESSION_NAME"):
            shell.user_ns["__session__"] = name
        shell.configurables.append(self.comm_manager)
        self.shell = shell

    def start(self) -> None:
        """Take requests, on this thread's loop and the control thread's."""
        loop: Any = IOLoop.current()
        self.io_loop = loop
        self._control_lock = asyncio.Lock()
        self._main_asyncio_lock = asyncio.Lock()
        signal.signal(signal.SIGINT, self._take_interrupt)
        control = self.control_thread.io_loop.asyncio_loop
        self.shell_channel_thread.start(loop.asyncio_loop, control)
        self.shell_stream.io_loop = self.io_loop
        self.control_stream.io_loop = self.control_thread.io_loop
        if self.shell is not None:
            self.shell.exit_now = False
        self._publish_status("starting", "shell")

    def take_control(self, frames: list[bytes]) -> None:
        """Serve a request of the control channel, after others of its kind; on its thread."""
        if self._questions.serve(frames):
            return
        task = asyncio.get_running_loop().create_task(self._debugging.serve(frames))
        self._control_tasks.add(task)
        task.add_done_callback(self._control_tasks.discard)

    async def do_debug_request(self, msg: dict[str, Any]) -> Any:
        """Serve a request to the debugger."""
        if why := await self._debugging.obstacle(msg):
            return refusal(msg, why)
        return modest(await self._debugging.answer(msg, super().do_debug_request(sparing(msg))))

    def _publish_status_and_flush(self, *args: Any, **options: Any) -> None:
        flush()
        self._publish_status(args[0], args[1], options.get("parent"))
        self.iopub_socket.flush()

    def _abort_queues(self, subshell_id: str | None = None) -> None:
        self.shell_channel_thread.drop_waiting(subshell_id)

    async def create_subshell_request(self, socket: Any, ident: Any, parent: Any) -> None:
        """Make a thread that runs requests beside the main one."""
        content = {"status": "ok", "subshell_id": self.shell_channel_thread.create()}
        self.session.send(socket, "create_subshell_reply", content, parent, ident)

    async def delete_subshell_request(self, socket: Any, ident: Any, parent: Any) -> None:
        """End such a thread."""
        content = {"status": "ok"}
        try:
            await self.shell_channel_thread.delete(parent["content"]["subshell_id"])
        except KeyError as error:
            content = {"status": "error", "evalue": str(error)}
        self.session.send(socket, "delete_subshell_reply", content, parent, ident)

    async def list_subshell_request(self, socket: Any, ident: Any, parent: Any) -> None:
        """Say which of them there are."""
        content = {"status": "ok", "subshell_id": self.shell_channel_thread.list_subshell()}
        self.session.send(socket, "list_subshell_reply", content, parent, ident)

    def _input_request(self, prompt: str, ident: Any, parent: Any, password: bool = False) -> str:
        return self.asking.read(str(prompt), password=password)

    async def interrupt_request(self, socket: Any, ident: Any, parent: Any) -> None:
        """Interrupt what runs, if it is what the request names, or it names nothing."""
        if self._aim.aim(parent["content"]):
            await super().interrupt_request(socket, ident, parent)
            self._aim.follow()
        else:
            self.session.send(socket, "interrupt_reply", {"status": "ok"}, parent, ident)

    def set_parent(self, ident: Any, parent: Any, channel: str = "shell") -> None:
        """Note what is served from now on, before anybody is told of it."""
        if channel == "shell" and threading.current_thread() is threading.main_thread():
            self._aim.serving = parent["header"]["msg_id"]
        super().set_parent(ident, parent, channel)

    @property
    def _tells_interrupt(self) -> bool:
        return isinstance(self.shell, Shell) and self.shell.tells_interrupt

    def _take_interrupt(self, number: int, frame: Any) -> None:
        if not self._aim.hear() or self._tells_interrupt:
            return
        if not self._interruptible:
            self._interrupted = True
        elif self.iopub_socket.is_sending(frame):
            self.iopub_socket.interrupted = True  # it raises when it is done
        else:
            raise KeyboardInterrupt

    @contextmanager
    def _cancel_on_sigint(self, future: asyncio.Future[Any]) -> Iterator[None]:
        """Let SIGINT end a cell with a top-level `await`: cancel it where it waits.

        Where the cell computes, KeyboardInterrupt ends it as it does any other; raised elsewhere
        it would end the event loop.
        """
        loop = asyncio.get_running_loop()

        def take(number: int, frame: Any) -> None:
            if not self._aim.hear() or self._tells_interrupt:
                return
            sending = self.iopub_socket.is_sending(frame)
            while frame is not None:
                if frame.f_code in RUN_CODE:
                    if not sending:
                        raise KeyboardInterrupt
                    self.iopub_socket.interrupted = True
                    return
                frame = frame.f_back
            # Not `call_soon`, which would not wake the loop from a signal handler.
            loop.call_soon_threadsafe(future.cancel)

        self._aim.handlers.append(take)
        before = signal.signal(signal.SIGINT, take)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            self._aim.handlers.remove(take)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let SIGINT raise KeyboardInterrupt in this block, in the thread that gets signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        try:
            self._interruptible = True
            if self._interrupted:
                raise KeyboardInterrupt
            yield
        finally:
            self._interruptible = False

    def should_handle(self, stream: Any, msg: Any, idents: Any) -> bool:
        """Let what is of no known type pass without a word in the session's output."""
        return msg["header"]["msg_type"] in self.shell_handlers

    def pre_handler_hook(self) -> None:
        """Leave the signal handler as it is."""

    def post_handler_hook(self) -> None:
        """Leave the signal handler as it is."""

    async def dispatch_shell(self, msg: Any, /, subshell_id: Any = None, **options: Any) -> None:
        """Serve one request; an interrupt from now on is meant for it.

        Its reply follows all that was published about it, `idle` included.
        """
        if subshell_id is not None or options.get("concurrent"):
            await super().dispatch_shell(msg, subshell_id=subshell_id, **options)
            return
        self._interrupted = self.iopub_socket.interrupted = False
        self.shell_stream.hold()
        try:
            await super().dispatch_shell(msg, subshell_id=subshell_id, **options)
        except (Exception, KeyboardInterrupt):
            # Raised by a signal handler of the cell's own, where none of the cell's code runs.
            self._publish_status_and_flush("idle", "shell")
        finally:
            self._aim.serving = ""
            if not self.shell_stream.release():
                with suppress(ValueError, TypeError, KeyError):  # no request at all
                    failure, known = self._failure(BROKEN_OFF), self.shell_handlers
                    self.session.answer(self.shell_stream, msg, failure, known)

    def _stand_apart(self) -> OutputBudget:
        """Have what is shown from here on told of this request, and counted by itself."""
        shell: Any = self.shell
        with suppress(Exception):  # of whatever a cell has put in the place of what shows things
            shell.set_thread_parent(self.get_parent())
        return self.budget.apart()

    async def do_execute(self, code: str, silent: bool, *args: Any, **options: Any) -> Any:
        """Run one cell; the tail of an over-long output is sent before its reply."""
        beside = threading.current_thread() is not threading.main_thread()
        budget = self._stand_apart() if beside else self.budget
        lent = self._parcels.lent if beside else 0
        budget.begin()
        self.tools.prepare(self)
        began = cpu_seconds()
        CellStream.patient |= not beside
        try:
            with self.interruptible():
                reply = await self._parcels.run(super().do_execute, code, silent, *args, **options)
        except (Exception, KeyboardInterrupt) as error:
            # Interrupted before the code ran, or an exception whose `str` raises: ipykernel
            # would send no reply at all.
            self._interruptible = False
            reply = self._failed(error, silent)
        finally:
            CellStream.patient &= beside
            self._parcels.put_back(lent)
        budget.finish()
        self._cpu = cpu_seconds() - began
        if isinstance(self.shell, Shell):
            told = self.shell.told_error
            if told and not beside and reply.get("ename") == told["ename"]:
                reply["evalue"] = told["evalue"]  # in the same words
            if not beside or not CellStream.patient:  # else it is the main thread's cell's
                self.shell.forget_outputs()
            # `exit()`: at once, or the next cell would be lost in this one's place.
            if self.shell.exit_now and not self.answers_exit:
                self.iopub_socket.flush()
                self.iopub_socket.wait_until_sent()
                os._exit(0)
        return self._fitted(reply)

    def do_complete(self, code: str, cursor_pos: int) -> Any:
        """Complete; what runs in the user's objects can be interrupted."""
        try:
            with self.interruptible():
                return super().do_complete(code, cursor_pos)
        except KeyboardInterrupt:
            return {"status": "ok", "matches": [], "metadata": {}} | {
                "cursor_start": cursor_pos,
                "cursor_end": cursor_pos,
            }

    def do_inspect(self, *args: Any, **options: Any) -> Any:
        """Inspect; what runs in the user's objects can be interrupted."""
        try:
            with self.interruptible():
                return super().do_inspect(*args, **options)
        except KeyboardInterrupt:
            return {"status": "ok", "found": False, "data": {}, "metadata": {}}

    def finish_metadata(self, parent: Any, metadata: Any, reply_content: Any) -> Any:
        """Say in the reply what the cell has used, and how much of its text was left out."""
        metadata = super().finish_metadata(parent, metadata, reply_content)
        metadata["cpu"] = round(self._cpu, 6)
        # ru_maxrss is in KiB, getrusage(2), and the kernel's highest so far, not the cell's.
        metadata["memory_peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        if truncated := self.budget.here.truncated:
            metadata["truncated"] = truncated
        return metadata

    def _failed(self, error: BaseException, silent: bool) -> dict[str, Any]:
        told = getattr(self.shell, "told_error", None)
        content: dict[str, Any] = told or {
            "ename": type(error).__name__,
            "evalue": text_of(error),
            "traceback": traceback.format_exception_only(type(error), error),
        }
        if not silent and not told:
            self.budget.here.catch_up()
            self.send_response(self.iopub_socket, "error", content)
        return self._failure(content)

    def _failure(self, content: dict[str, Any]) -> dict[str, Any]:
        count = {"execution_count": self.execution_count}
        return {"status": "error", **content, **count, "user_expressions": {}, "payload": []}

    def _fitted(self, reply: dict[str, Any]) -> dict[str, Any]:
        """Return the reply, without what would make it larger than the reader takes."""
        if not self.message_bytes or (
            reply["status"] == "ok" and not reply["payload"] and not reply["user_expressions"]
        ):
            return reply
        size = len(repr(reply))
        if size <= self.message_bytes:
            return reply
        note = f"[reply of {size:,} characters left out: the bound is {self.message_bytes:,}]"
        fitted = {**reply, "payload": [], "user_expressions": {}}
        if reply["status"] == "error":
            fitted |= {"ename": reply["ename"][:100], "evalue": note, "traceback": [note]}
        return fitted
