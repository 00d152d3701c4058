"""A live kernel of ours: its process tree, its sockets, its bounds, its files.

Whoever holds a kernel closes it; its workspace may stay, for the session's next one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernels import watchdog
from kernels.changes import Changes, of_this_process
from kernels.channels import Channels
from kernels.deed import Deed
from kernels.introductions import Introductions
from kernels.process import Process
from kernels.sandbox.cgroups import Cgroup
from kernels.spec import KernelSpec, Usage

logger = logging.getLogger(__name__)

OOM = "oom"


@dataclass(eq=False)
class Workspace:
    """A session's files. `descriptor` is of their directory, and is this object's own."""

    workspace_id: str
    descriptor: int = -1  # what is opened beneath it goes through `safe_open`
    changes: Changes | None = None

    def follow(self) -> None:
        """Tell from now on what changes; of a workspace that had a kernel before, go on."""
        if self.changes is None and self.descriptor >= 0:
            self.changes = Changes(of_this_process())
            self.changes.begin(self.descriptor)

    def changed(self) -> dict[str, Any]:
        """Return what of the files has changed since it was asked last; see `Changes.take`."""
        if self.changes is None or self.descriptor < 0:
            return {}
        return self.changes.take(self.descriptor)

    def open(self, directory: Path) -> None:
        """Have the descriptor of a directory that no sandbox holds, if it is there."""
        self.close()
        with suppress(FileNotFoundError):  # a kernel whose order says where it works
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            self.descriptor = os.open(directory, flags)

    def close(self) -> None:
        """Let go of the descriptor; the files stay."""
        if self.changes is not None:
            self.changes.stop()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Kernel:
    """A live kernel that takes requests.

    `exited` resolves with the reason when its process ends. Whoever holds it closes it. While
    `keep_workspace` is not set, its files go with it. `by_signal` is how it is interrupted.
    """

    keep_workspace = False

    def __init__(
        self,
        kernel_id: str,
        *,
        spec: KernelSpec,
        directory: Path,
        process: Process,
        channels: Channels,
        workspace: Workspace | None = None,
        drop_workspace: Callable[[Workspace], None] | None = None,
        cgroup: Cgroup | None = None,
        by_signal: bool = False,
        introductions: Introductions | None = None,
    ) -> None:
        self.kernel_id = kernel_id
        self.spec = spec
        self.directory = directory
        self.process = process
        self.channels = channels
        self.workspace = workspace
        if workspace is not None:
            workspace.follow()
        self._drop_workspace = drop_workspace
        self._cgroup = cgroup
        self._watchdog: watchdog.Watchdog | None = None
        self._baseline = 0
        self._by_signal = by_signal
        self._introductions = introductions or Introductions()
        self.info = b""  # the content of its answer to `kernel_info_request`, if it is known
        self._loop = asyncio.get_running_loop()
        self._verdict = ""
        self.spent: float | None = None  # CPU seconds in all, once it has ended; None if unknown
        self._closed = False
        self.exited: asyncio.Future[str] = self._loop.create_future()
        try:
            self._oom = cgroup.oom_descriptor() if cgroup is not None else -1
        except OSError:
            channels.close()
            raise
        if self._oom >= 0:
            # Version 1 of cgroups kills one process; a kernel that lost a part is lost whole.
            self._loop.add_reader(self._oom, self._look_for_oom)
        process.exited.add_done_callback(self._process_ended)

    def __repr__(self) -> str:
        return f"<Kernel {self.kernel_id[:8]} {self.spec.name}: {self.process!r}>"

    @property
    def pid(self) -> int:
        """Return the process id as seen from here."""
        return self.process.pid

    def introduce(self, content: bytes) -> None:
        """Note what it has said that it is."""
        self.info = self._introductions.keep(content)

    def label(self, text: str) -> None:
        """Note who is bound to it, where a later broker finds it."""
        try:
            Deed(self.kernel_id, text).write(self.directory)
        except OSError as error:
            logger.warning("kernel=%s will not outlive the broker: %s", self.kernel_id, error)
            try:
                Deed.forget(self.directory)  # which says that it is nobody's, free for anybody
            except OSError as worse:
                self.kill(f"cannot note whose it is: {worse.strerror}")

    @property
    def is_metered(self) -> bool:
        """Tell whether `usage()` counts every process, and takes but microseconds."""
        return self._cgroup is not None

    @property
    def is_ours(self) -> bool:
        """Tell whether its program is ours, and no Jupyter kernelspec's, which runs code alone."""
        return not self.spec.kernelspec

    def usage(self) -> Usage:
        """Return what its process tree has used so far; without a sandbox nobody knows."""
        if self._closed or self.exited.done():
            return Usage()
        try:
            if self._cgroup is not None:
                memory, peak = self._cgroup.memory()
                return Usage(self._cgroup.cpu_seconds(), memory, peak, self._cgroup.processes())
            if self._watchdog is not None:
                return watchdog.usage(self.pid, self._baseline, reaper=self.process.reaper)
        except OSError:  # it has just ended
            pass
        return Usage()

    def watch(self, dog: watchdog.Watchdog, zygote: int) -> None:
        """Have its memory watched where no cgroup holds it; what it has of its zygote is free."""
        self._watchdog, self._baseline = dog, watchdog.kept([zygote])
        self._limit_memory(self.spec.limits.memory)

    def tighten(
        self, *, memory: int | None = None, processes: int | None = None, cpu: float | None = None
    ) -> None:
        """Lower its bounds: bytes, counts, cores. Without a cgroup, memory alone."""
        if self._cgroup is not None:
            self._cgroup.set(memory=memory, processes=processes, cpu=cpu)
        elif memory is not None:
            self._limit_memory(memory)

    def _limit_memory(self, limit: int) -> None:
        if self._watchdog is not None and limit:
            with suppress(ProcessLookupError):  # it has just ended
                self._watchdog.start(
                    self.pid,
                    limit,
                    self.kill,
                    baseline=self._baseline,
                    reaper=self.process.reaper,
                )

    def interrupt(self, request_id: str = "") -> None:
        """Ask the running cell to stop: a message first, because it reaches every descendant.

        A kernel of ours stops nothing but the request of that id, or without one whatever runs.
        A signal where its kernelspec wants one: its parent hands it on to all of its group.
        """
        if not self._by_signal:
            with suppress(BlockingIOError):
                content = {"request": request_id} if request_id else {}
                self.channels.send("control", "interrupt_request", content)
                return
        self.process.send_signal(signal.SIGINT)

    def insist(self) -> None:
        """Ask once more, by a signal: code that holds the interpreter keeps messages unread.

        Not of a kernelspec that wants messages: a signal might end it.
        """
        if self._by_signal or not self.spec.kernelspec:
            self.process.send_signal(signal.SIGINT)

    def kill(self, reason: str = "") -> None:
        """End it at once; `exited` tells when it has, and with this reason if one is given."""
        self._verdict = self._verdict or reason
        self.process.kill()

    async def close(self) -> None:
        """Kill it, wait for its end, remove its files. Safe to call again."""
        self.process.kill()
        await asyncio.wait([self.exited])
        self.channels.close()
        if self._closed:
            return
        self._closed = True
        if not self.keep_workspace and self.workspace and self._drop_workspace:
            self._drop_workspace(self.workspace)
        try:
            await asyncio.to_thread(self._remove)
        except RuntimeError:  # the interpreter is ending and starts no more threads
            self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._cgroup is not None:
            self._cgroup.remove()

    def _look_for_oom(self) -> None:
        if self._cgroup is not None and self._cgroup.is_out_of_memory():
            self._ignore_oom()
            self.kill(OOM)

    def _ignore_oom(self) -> None:
        if self._oom >= 0:
            self._loop.remove_reader(self._oom)
            self._oom = -1

    def _process_ended(self, ended: asyncio.Future[str]) -> None:
        self._ignore_oom()
        if self._cgroup is not None:
            self.spent = self._cgroup.cpu_seconds()
        if self._watchdog is not None:
            self.spent = self._watchdog.spent(self.pid)
            self._watchdog.stop(self.pid)
        try:
            killed = self._cgroup is not None and self._cgroup.oom_kills() > 0
        except OSError:
            killed = False
        if not self.exited.done():
            self.exited.set_result(OOM if killed else self._verdict or ended.result())
