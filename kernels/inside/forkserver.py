"""The zygote: import once, stay single-threaded, fork kernels on request.

Speaks JSON over SOCK_SEQPACKET, one object a packet, descriptors beside it:

    fork   {kernel, tied, channels, workspace} + [config, <channels listeners>, <cgroups>…]
           -> {event: forked, kernel, reaper} + [pidfd, own?, ending?, workspace?],
           or {event: refused, kernel, error}
    adopt  {kernel, tied, workspace} + [pidfd, own?, ending?]          of an earlier zygote
    list   {}   -> {event: kernel, kernel, workspace, reaper} + [pidfd, …] as for a fork
           for each, then {event: listed}; kernels that nobody knows any more are ended
    drop   {workspace}                       unmounts it; no answer
    retire {}   has the warden start a successor -> {event: retiring}
    stay   {}   after all: the successor is no good, and ends; no answer
    leave  {}   exits; kernels go on as the warden's
    stop   {}   kills every kernel and exits

and unasked {event: hello | failed, …} + [own pidfd] on connecting, {event: exit, kernel, status}
at an end. A workspace is {name, size, files}. In a sandbox `pidfd` is the reaper's, `own` the
kernel's, and `ending` a pipe in which the warden leaves its wait status. Nothing secret passes
through here, because what was ever in this heap can be read by every later child: a kernel's key
goes down `config`, which only the child reads, and names of kernels and workspaces tell nobody's.
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
from dataclasses import dataclass
from typing import Any

from ..sandbox import reaper, sources
from ..sandbox.recipe import Enclosure
from . import pages
from .child import Request, become
from .preload import preload
from .warden import RETIRED
from .workspaces import Workspaces

MAX_PACKET = 64 << 10
MAX_DESCRIPTORS = 16
VERSION = 3
CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
EXIT_WORDS = {"stop": 0, "leave": RETIRED}


@dataclass
class Child:
    """One forked kernel as its parent sees it."""

    name: str
    pidfd: int  # of its reaper, where it has one: it ends last, and with it all
    own: int = -1  # the kernel's
    pid: int = 0  # 0 for a kernel that another zygote forked
    reaper: int = 0
    ending: int = -1  # the pipe in which the warden leaves the wait status
    workspace: str = ""
    tied: bool = False  # ends with the connection of whoever asked for it


class ForkServer:
    """Serve one controller at a time; a newer connection replaces the older."""

    def __init__(
        self,
        listener: socket.socket,
        warden: socket.socket,
        orphan_ttl: float,
        workspaces: Workspaces | None,
    ) -> None:
        self._listener = listener
        self._warden = warden
        self._orphan_ttl = orphan_ttl
        self._workspaces = workspaces
        self._children: dict[str, Child] = {}
        self._controller: socket.socket | None = None
        self._alone_since = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._retiring = False
        self._exit: int | None = None

    def serve(self, hello: dict[str, object]) -> Request | int:
        """Run until told to stop, or until nobody came for `orphan_ttl` seconds.

        Returns the exit status in the zygote itself, and a Request in each forked child.
        """
        self._hello = hello
        while self._exit is None:
            timeout = None
            if self._controller is None:
                timeout = self._alone_since + self._orphan_ttl - time.monotonic()
                if timeout <= 0:
                    self._exit = 0
                    break
            for key, _ in self._selector.select(timeout):
                request: Request | None = key.data()
                if request is not None:
                    return request
        if self._exit == 0:
            self._kill(self._children.values())
        return self._exit

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        with contextlib.suppress(BlockingIOError):
            if not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                connection.close()  # who came has left, and takes nobody's place
                return
        connection.setblocking(True)
        self._detach()
        self._controller = connection
        self._selector.register(connection, selectors.EVENT_READ, self._handle)
        own = os.pidfd_open(os.getpid())
        self._send(self._hello, (own,))
        os.close(own)

    def _detach(self) -> None:
        if self._controller is None:
            return
        self._selector.unregister(self._controller)
        self._controller.close()
        self._controller = None
        self._alone_since = time.monotonic()
        self._kill(child for child in self._children.values() if child.tied)
        self._stay()  # nobody is left to hand the kernels over

    def _stay(self) -> None:
        if self._retiring:
            self._retiring = False
            self._warden.send(b"cancel")
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

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
        op = request["op"]
        if op == "fork":
            return self._fork(request, descriptors)
        if op == "adopt":
            self._adopt(request, descriptors)
        elif op == "list":
            self._list()
        elif op == "drop" and self._workspaces is not None:
            self._workspaces.drop(request["workspace"])
        elif op == "retire" and not self._retiring:
            self._retiring = True
            self._selector.unregister(self._listener)
            self._warden.send(b"successor")
            self._send({"event": "retiring"})
        elif op == "stay":
            self._stay()
        elif op in EXIT_WORDS:
            self._exit = EXIT_WORDS[op]
        return None

    def _fork(self, request: dict[str, Any], descriptors: list[int]) -> Request | None:
        kernel, wanted = request["kernel"], request["workspace"]
        # A thread that forks leaves its locks held for ever in the child.
        tasks = os.listdir("/proc/self/task")
        if len(tasks) != 1:
            words = f"the zygote has {len(tasks)} threads; a preloaded module started them"
            self._refuse(kernel, words, descriptors)
            return None
        child = Child(kernel, -1, workspace=wanted["name"], tied=request["tied"])
        files, box = -1, None
        try:
            if self._workspaces is None:
                child.pid = os.fork()
            else:
                files, box = self._workspaces.open(wanted)
                child.pid = self._workspaces.fork_into(self._take_reaper(child))
        except OSError as error:
            if child.reaper:  # it would wait for its kernel for ever
                self._kill([child])
            unused = {files, child.pidfd, child.ending} - {-1}
            self._refuse(kernel, f"no fork: {error}", [*descriptors, *unused])
            return None
        if child.pid == 0:
            return self._in_child(descriptors, 1 + request["channels"], box)
        for descriptor in descriptors:
            os.close(descriptor)
        child.own = os.pidfd_open(child.pid)
        if child.reaper:
            self._tell_warden("kernel", reaper=child.reaper, kernel=child.pid)
        else:
            child.pidfd = child.own
        self._watch(child)
        self._tell("forked", child, files)
        return None

    def _in_child(self, descriptors: list[int], count: int, box: Enclosure | None) -> Request:
        self._selector.close()
        keep = set(descriptors)
        if box is not None:
            box.cgroups = descriptors[count:]
            keep.add(box.workspaces)
        self._close_in_child(keep)
        listeners = dict(zip(CHANNELS, descriptors[1:count], strict=False))
        return Request(socket.socket(fileno=descriptors[0]), listeners, box)

    def _take_reaper(self, child: Child) -> int:
        """Get a pid namespace from the warden, which has one ready; return a descriptor of it."""
        self._warden.send(b"reaper")
        data, descriptors, _, _ = socket.recv_fds(self._warden, MAX_PACKET, 3)
        answer = json.loads(data)
        if "error" in answer:
            raise OSError(answer["error"])
        child.reaper = answer["reaper"]
        child.pidfd, child.ending, namespace = descriptors
        return namespace

    def _tell_warden(self, word: str, **said: object) -> None:
        with contextlib.suppress(OSError):  # without a warden there is nobody to tell
            self._warden.send(f"{word} {json.dumps(said)}".encode())

    def _refuse(self, kernel: str, error: str, descriptors: list[int]) -> None:
        for descriptor in descriptors:
            os.close(descriptor)
        self._send({"event": "refused", "kernel": kernel, "error": error})

    def _tell(self, word: str, child: Child, files: int) -> None:
        """Tell of a kernel, with what belongs to it; `files` is closed."""
        own = child.own if child.reaper else -1
        passed = [each for each in (child.pidfd, own, child.ending, files) if each >= 0]
        event: dict[str, object] = {
            "event": word,
            "kernel": child.name,
            "workspace": child.workspace,
            "reaper": bool(child.reaper),
        }
        self._send(event, tuple(passed))
        if files >= 0:
            os.close(files)

    def _adopt(self, request: dict[str, Any], descriptors: list[int]) -> None:
        pidfd, *rest = descriptors
        child = Child(request["kernel"], pidfd)
        if rest:
            child.own, child.ending = rest
            child.reaper = _pid_of(pidfd)
        child.tied, child.workspace = request["tied"], request["workspace"]
        self._watch(child)

    def _list(self) -> None:
        for child in list(self._children.values()):
            files = -1
            if self._workspaces is not None and child.workspace:
                files = self._workspaces.descriptor(child.workspace)
            self._tell("kernel", child, files)
        self._send({"event": "listed"})
        if self._workspaces is not None:
            self._workspaces.drop_unused({child.workspace for child in self._children.values()})
            reapers = [child.reaper for child in self._children.values()]
            self._tell_warden("keep", reapers=reapers)
        else:
            self._end_strangers()

    def _end_strangers(self) -> None:
        """Kill what a zygote before this one forked and nobody has handed over."""
        known = {_pid_of(child.pidfd) for child in self._children.values()}
        path = f"/proc/{os.getppid()}/task/{os.getppid()}/children"
        with contextlib.suppress(OSError), open(path) as file:
            for pid in map(int, file.read().split()):
                if pid != os.getpid() and pid not in known:
                    os.kill(pid, signal.SIGKILL)

    def _watch(self, child: Child) -> None:
        self._children[child.name] = child
        watched = child.own if child.pid else child.pidfd
        self._selector.register(watched, selectors.EVENT_READ, lambda: self._reap(child, watched))

    def _reap(self, child: Child, watched: int) -> None:
        self._selector.unregister(watched)
        if self._children.get(child.name) is child:  # a restart may have given its name away
            del self._children[child.name]
        if child.pid:
            _, status = os.waitpid(child.pid, 0)
            if child.reaper:
                self._tell_warden("ended", reaper=child.reaper, status=status)
            self._send({"event": "exit", "kernel": child.name, "status": status})
        for descriptor in {child.pidfd, child.own, child.ending} - {-1}:
            os.close(descriptor)

    @staticmethod
    def _kill(children: Iterable[Child]) -> None:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)

    @staticmethod
    def _close_in_child(keep: set[int]) -> None:
        reaper.close_all_but(keep)
        # The zygote's log is the operator's: a kernel must neither read nor fill it.
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(null)


def _pid_of(pidfd: int) -> int:
    """Return the process id behind a pidfd, as this pid namespace counts."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        return next((int(line.split()[1]) for line in file if line.startswith("Pid:")), 0)


def main(arguments: list[str]) -> None:
    """Import, freeze, serve; a forked child comes back here and becomes a kernel."""
    numbers = [int(number) for number in arguments[0].split(",")]
    listener, warden = (socket.socket(fileno=number) for number in numbers[:2])
    options = json.load(sys.stdin)
    hello: dict[str, object] = {"event": "hello", "version": VERSION}
    hello["python"] = sys.version.split()[0]
    hello["code"] = sources.digest()
    try:
        preload(options["preload"], kernel=options["kernel"])
        if options["kernel"]:
            importlib.import_module("_kernel.inside.app").prepare()
    except BaseException as error:
        # A broken preload is told to whoever waits; the traceback is in the log.
        traceback.print_exc()
        listener.settimeout(10)
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            text = f"{type(error).__name__}: {error}"
            connection.send(json.dumps({"event": "failed", "error": text}).encode()[:MAX_PACKET])
            connection.close()
            warden.send(b"failed")
        raise SystemExit(1) from error
    warden.send(b"ready")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sandbox = options["sandbox"]
    workspaces = Workspaces(numbers[2], sandbox) if sandbox else None
    # What is alive now is shared by all children: keep the collector from writing to it.
    gc.collect()
    gc.disable()
    gc.freeze()
    pages.collapse()
    outcome = ForkServer(listener, warden, options["orphan_ttl"], workspaces).serve(hello)
    if isinstance(outcome, int):
        sys.exit(outcome)
    become(outcome)
