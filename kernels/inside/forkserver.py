"""The zygote: import once, stay single-threaded, fork kernels on request.

Speaks JSON over SOCK_SEQPACKET, one object a packet, descriptors beside it:

    fork   {kernel, tied} + [config, shell, iopub, stdin, control, hb?]
           -> {event: forked, kernel, pid} + [pidfd], or {event: refused, kernel, error}
    adopt  {kernel, label, pid, tied} + [pidfd]   a kernel of an earlier zygote; no answer
    label  {kernel, label}                   who is bound to it; no answer
    list   {}   -> {event: kernel, kernel, pid, label} + [pidfd] for each, then {event: listed}
    stop   {}   kills every kernel and exits

and unasked {event: hello | failed, …} on connecting, {event: exit, kernel, status} at an end.
Nothing secret passes through here: a kernel's key goes down `config`, which only the child reads,
because what was ever in this heap can be read by every later child.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_PACKET = 64 << 10
MAX_DESCRIPTORS = 8
VERSION = 1
# Imported always: the kernel itself, and what it would otherwise import at its start.
KERNEL_IMPORTS = (
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipykernel.zmqshell",
    "ipykernel.debugger",
    "IPython.core.magics",
    "IPython.core.completer",
    "IPython.core.historyapp",
    "jupyter_client.session",
    "matplotlib_inline.config",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.logger",
    "IPython.core.oinspect",
    "IPython.extensions.storemagic",
    "IPython.utils.wildcard",
    "faulthandler",
    "pdb",
    "tornado.platform.asyncio",
    "_kernel_inside.app",
    "_strptime",
    "encodings.idna",
)
OPTIONAL = {"matplotlib_inline.config", "ipykernel.debugger"}


@dataclass
class Child:
    """One forked kernel as its parent sees it."""

    name: str
    pid: int
    pidfd: int
    label: str = ""
    adopted: bool = False
    tied: bool = False  # ends with the connection of whoever asked for it


@dataclass
class Request:
    """What a forked child is to become; its descriptors are its own."""

    kernel: str
    config: socket.socket
    listeners: dict[str, int] = field(default_factory=dict)


class ForkServer:
    """Serve one controller at a time; a newer connection replaces the older."""

    def __init__(self, listener: socket.socket, orphan_ttl: float) -> None:
        self._listener = listener
        self._orphan_ttl = orphan_ttl
        self._children: dict[str, Child] = {}
        self._controller: socket.socket | None = None
        self._alone_since = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._running = True

    def serve(self, hello: dict[str, object]) -> Request | None:
        """Run until told to stop, or until nobody came for `orphan_ttl` seconds.

        Returns None in the zygote itself, and a Request in each forked child.
        """
        self._hello = hello
        while self._running:
            timeout = None
            if self._controller is None:
                timeout = self._alone_since + self._orphan_ttl - time.monotonic()
                if timeout <= 0:
                    break
            for key, _ in self._selector.select(timeout):
                request: Request | None = key.data()
                if request is not None:
                    return request
        self._kill(self._children.values())
        return None

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(True)
        self._detach()
        self._controller = connection
        self._selector.register(connection, selectors.EVENT_READ, self._handle)
        self._send(self._hello)

    def _detach(self) -> None:
        if self._controller is not None:
            self._selector.unregister(self._controller)
            self._controller.close()
            self._controller = None
            self._alone_since = time.monotonic()
            self._kill(child for child in self._children.values() if child.tied)

    def _send(self, event: dict[str, object], descriptors: tuple[int, ...] = ()) -> None:
        if self._controller is None:
            return
        try:
            socket.send_fds(self._controller, [json.dumps(event).encode()], list(descriptors))
        except OSError:
            self._detach()

    def _handle(self) -> Request | None:
        if self._controller is None:
            return None
        try:
            data, descriptors, _, _ = socket.recv_fds(self._controller, MAX_PACKET, MAX_DESCRIPTORS)
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._detach()
            return None
        request = json.loads(data)
        kernel = request.get("kernel", "")
        op = request["op"]
        if op == "fork":
            return self._fork(kernel, descriptors, tied=request["tied"])
        if op == "adopt":
            child = Child(kernel, request["pid"], descriptors[0], request["label"], adopted=True)
            child.tied = request["tied"]
            self._watch(child)
        elif op == "label" and kernel in self._children:
            self._children[kernel].label = request["label"]
        elif op == "list":
            for child in self._children.values():
                event = {"event": "kernel", "kernel": child.name, "pid": child.pid}
                self._send({**event, "label": child.label}, (child.pidfd,))
            self._send({"event": "listed"})
        elif op == "stop":
            self._running = False
        return None

    def _fork(self, kernel: str, descriptors: list[int], *, tied: bool) -> Request | None:
        # A thread that forks leaves its locks held for ever in the child.
        tasks = os.listdir("/proc/self/task")
        if len(tasks) != 1:
            for descriptor in descriptors:
                os.close(descriptor)
            error = f"the zygote has {len(tasks)} threads; a preloaded module started them"
            self._send({"event": "refused", "kernel": kernel, "error": error})
            return None
        pid = os.fork()
        if pid == 0:
            self._close_in_child(keep=descriptors)
            names = ("shell", "iopub", "stdin", "control", "hb")
            config = socket.socket(fileno=descriptors[0])
            return Request(kernel, config, dict(zip(names, descriptors[1:], strict=False)))
        for descriptor in descriptors:
            os.close(descriptor)
        child = Child(kernel, pid, os.pidfd_open(pid), tied=tied)
        self._watch(child)
        self._send({"event": "forked", "kernel": kernel, "pid": pid}, (child.pidfd,))
        return None

    def _watch(self, child: Child) -> None:
        self._children[child.name] = child
        self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._reap(child))

    def _reap(self, child: Child) -> None:
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        if self._children.get(child.name) is child:  # a restart may have given its name away
            del self._children[child.name]
        if not child.adopted:
            _, status = os.waitpid(child.pid, 0)
            self._send({"event": "exit", "kernel": child.name, "status": status})

    @staticmethod
    def _kill(children: Iterable[Child]) -> None:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)

    def _close_in_child(self, keep: list[int]) -> None:
        self._selector.close()
        for name in os.listdir("/proc/self/fd"):
            descriptor = int(name)
            if descriptor > 2 and descriptor not in keep:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        # The zygote's log is the operator's: a kernel must neither read nor fill it.
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(null)


def preload(modules: list[str]) -> None:
    """Import everything the kernels will share. Raises ImportError naming the module."""
    for module in (*KERNEL_IMPORTS, *modules):
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            if module in OPTIONAL and isinstance(error, ImportError):
                continue
            raise ImportError(f"cannot import {module!r} in {sys.executable}: {error}") from error


def main(arguments: list[str]) -> None:
    """Import, freeze, serve; a forked child comes back here and becomes a kernel."""
    listener = socket.socket(fileno=int(arguments[0]))
    options = json.loads(arguments[1])
    hello: dict[str, object] = {"event": "hello", "version": VERSION, "pid": os.getpid()}
    hello["python"] = sys.version.split()[0]
    try:
        preload(options["preload"])
        app = importlib.import_module("_kernel_inside.app")
        app.prepare()
    except BaseException as error:
        # A broken preload is told to whoever waits; the traceback is in the log.
        traceback.print_exc()
        listener.settimeout(10)
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            listener.close()  # whoever comes now must start another, not wait for our exit
            text = f"{type(error).__name__}: {error}"
            connection.send(json.dumps({"event": "failed", "error": text}).encode()[:MAX_PACKET])
            connection.close()
        raise SystemExit(1) from error
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What is alive now is shared by all children: keep the collector from writing to it.
    gc.collect()
    gc.disable()
    gc.freeze()
    request = ForkServer(listener, options["orphan_ttl"]).serve(hello)
    if request is not None:
        app.become_kernel(request)
