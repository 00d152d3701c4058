"""One cell after another: ipykernel's kernel, which here answers each request, come what may."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import comm
from ipykernel.ipkernel import IPythonKernel
from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Type

from .streams import CellStream, OutputBudget

RUN_CODE = InteractiveShell.run_code.__code__
REPEAT_AFTER = 0.02  # s from an interrupt to the next, if nothing came of it; then twice as long
REPEAT_UNTIL = 1.0  # s
OWN_FILES = os.path.dirname(__file__) + os.sep


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def forget_own_frames(error: BaseException | None) -> None:
    """Take our frames out of the traceback of an error, and of those that led to it."""
    left, seen = [error], set()
    while left:
        error = left.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        left += [error.__cause__, error.__context__]
        step = error.__traceback__
        while step is not None:
            inner = step.tb_next
            if inner is not None and inner.tb_frame.f_code.co_filename.startswith(OWN_FILES):
                step.tb_next = inner.tb_next
            else:
                step = inner


class Shell(ZMQInteractiveShell):
    """The shell, with `!cmd` through the captured descriptors instead of a terminal."""

    # A pty would turn line ends into CRLF, and a sandbox has no /dev/pts.
    system = InteractiveShell.system_raw

    @property
    def keeps_outputs(self) -> bool:
        """Tell whether outputs are kept for `Out` and `%notebook`."""
        return bool(self.cache_size)

    @contextmanager
    def _tee(self, channel: Any) -> Iterator[None]:
        # IPython would keep every piece of text of the session, and slow each write for it.
        if self.keeps_outputs:
            with super()._tee(channel):
                yield
        else:
            yield

    def showtraceback(self, exc_tuple: Any = None, *args: Any, **options: Any) -> None:
        """Show an error, where it happened in the user's code."""
        forget_own_frames(exc_tuple[1] if exc_tuple else sys.exc_info()[1])
        super().showtraceback(exc_tuple, *args, **options)

    def forget_outputs(self) -> None:
        """Drop what the history has kept of results and errors, unless it is to be kept."""
        history = self.history_manager
        if not self.keeps_outputs and history is not None:
            for name in ("outputs", "output_hist_reprs", "exceptions"):
                getattr(history, name, {}).clear()


class Kernel(IPythonKernel):
    """The kernel, with its text output under a budget per execution.

    SIGINT is taken at all times, and raises KeyboardInterrupt only while the user's code runs.
    Elsewhere it would break off the sending of a reply or of `idle`, and whoever waits for them
    would wait for ever; there it is remembered until the code of the same request starts.
    """

    budget: ClassVar[OutputBudget]
    message_bytes: ClassVar[int] = 0
    module_files: ClassVar[list[str]] = []  # of the zygote: what a debugger does not step into
    shell_class = Type(Shell)

    def __init__(self, **options: Any) -> None:
        self._interruptible = False
        self._interrupted = False
        self._heard = True  # a signal's handler has run: Python's part of it, not C's
        self._handlers: list[Any] = [self._take_interrupt]  # of ours, the innermost last
        self._cpu = 0.0
        signal.signal(signal.SIGINT, self._take_interrupt)
        # Not IPythonKernel's own: it reads the file name of every module, which writes a reference
        # count to a page of each, and so costs every kernel 6 MB of memory that was shared.
        super(IPythonKernel, self).__init__(**options)
        self._init_debugger()
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
                self.debug_shell_socket,
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

    async def interrupt_request(self, *request: Any) -> None:
        """Interrupt what runs, and again as long as nothing shows that the signal was noticed.

        One that comes when the main thread has let go of the interpreter and is about to sleep in
        the kernel is noted, wakes nobody, and would be acted on only at the end of that sleep.
        """
        self._heard = False
        await super().interrupt_request(*request)
        asyncio.get_running_loop().call_later(REPEAT_AFTER, self._repeat_interrupt, REPEAT_AFTER)

    def _repeat_interrupt(self, waited: float) -> None:
        # A handler of the cell's own might not take two for one.
        ours = signal.getsignal(signal.SIGINT) in self._handlers
        if self._heard or not ours or waited > REPEAT_UNTIL:
            return
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        loop = asyncio.get_running_loop()
        loop.call_later(waited, self._repeat_interrupt, 2 * waited)

    def _take_interrupt(self, number: int, frame: Any) -> None:
        self._heard = True
        if self._interruptible:
            raise KeyboardInterrupt
        self._interrupted = True

    @contextmanager
    def _cancel_on_sigint(self, future: asyncio.Future[Any]) -> Iterator[None]:
        """Let SIGINT end a cell with a top-level `await`: cancel it where it waits.

        Where the cell computes, KeyboardInterrupt ends it as it does any other; raised elsewhere
        it would end the event loop.
        """
        loop = asyncio.get_running_loop()

        def take(number: int, frame: Any) -> None:
            self._heard = True
            while frame is not None:
                if frame.f_code is RUN_CODE:
                    raise KeyboardInterrupt
                frame = frame.f_back
            # Not `call_soon`, which would not wake the loop from a signal handler.
            loop.call_soon_threadsafe(future.cancel)

        self._handlers.append(take)
        before = signal.signal(signal.SIGINT, take)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            self._handlers.remove(take)

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

    def pre_handler_hook(self) -> None:
        """Leave the signal handler as it is."""

    def post_handler_hook(self) -> None:
        """Leave the signal handler as it is."""

    async def dispatch_shell(self, msg: Any, /, subshell_id: Any = None, **options: Any) -> None:
        """Serve one request; an interrupt from now on is meant for it."""
        if subshell_id is None:
            self._interrupted = False
        await super().dispatch_shell(msg, subshell_id=subshell_id, **options)

    async def do_execute(self, code: str, silent: bool, *args: Any, **options: Any) -> Any:
        """Run one cell; the tail of an over-long output is sent before its reply."""
        self.budget.begin()
        began = cpu_seconds()
        CellStream.patient = True
        try:
            with self.interruptible():
                reply = await super().do_execute(code, silent, *args, **options)
        except (Exception, KeyboardInterrupt) as error:
            # Interrupted before the code ran, or an exception whose `str` raises: ipykernel
            # would send no reply at all.
            self._interruptible = False
            reply = self._failed(error, silent)
        finally:
            CellStream.patient = False
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, CellStream):
                stream.collect()
        self.budget.finish()
        self._cpu = cpu_seconds() - began
        if isinstance(self.shell, Shell):
            self.shell.forget_outputs()
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
        if self.budget.truncated:
            metadata["truncated"] = {"shown": self.budget.shown, "total": self.budget.total}
        return metadata

    def _failed(self, error: BaseException, silent: bool) -> dict[str, Any]:
        content: dict[str, Any] = {
            "ename": type(error).__name__,
            "evalue": _text(error),
            "traceback": traceback.format_exception_only(type(error), error),
        }
        if not silent:
            self.send_response(self.iopub_socket, "error", content)
        return {
            "status": "error",
            **content,
            "execution_count": self.execution_count,
            "user_expressions": {},
            "payload": [],
        }

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


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(an exception that cannot be shown)"
