"""The zygote's hold on what is each session's own: a workspace, and a user id that goes with it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from ..sandbox import mounts, seccomp, system
from ..sandbox.recipe import Enclosure


class Workspaces:
    """Mount workspaces in the warden's mount namespace, which `keeper` refers to.

    A workspace's owner is its slot: no two that are there have the same, so that files made in
    one are nobody's in another. Only in mode `user` is there but one id for all.
    """

    def __init__(self, keeper: int, sandbox: dict[str, Any]) -> None:
        self._keeper = keeper
        self._sandbox = sandbox
        self._here = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._filter = seccomp.compile_filter(memory_files=sandbox["level"] == "full")
        self._data = _private_bytes()
        self._owners: dict[tuple[str, int], int] = {}  # of workspaces, each looked at once

    def open(self, wanted: dict[str, Any]) -> tuple[int, Enclosure]:
        """Return a directory descriptor of the workspace, made if need be, and its sandbox."""
        name, mode = wanted["name"], self._sandbox["mode"]
        with self._in_keeper():
            try:
                files = mounts.open_workspace(name)
            except FileNotFoundError:
                size, inodes = wanted["size"], wanted["files"]
                with self._alone():
                    files = mounts.make_workspace(name, uid=self._free(), size=size, files=inodes)
        box = Enclosure(
            uid=os.fstat(files).st_uid,
            mode=mode,
            network=self._sandbox["network"],
            workspace=name,
            workspaces=self._keeper,
            shown=self._sandbox["shown"],
            hidden=[mounts.CACHE, *self._sandbox["own"]],
            filter=self._filter,
            private_bytes=self._data,
            without=tuple(self._sandbox["without"]),
        )
        return files, box

    def descriptor(self, name: str) -> int:
        """Return a directory descriptor of a workspace, or -1 if there is none."""
        with self._in_keeper():
            try:
                return mounts.open_workspace(name)
            except OSError:
                return -1

    def drop(self, name: str) -> None:
        """Unmount a workspace; what has it open keeps it until it ends."""
        with self._in_keeper():
            if os.path.isdir(f"{mounts.WORKSPACES}/{name}"):
                mounts.drop_workspace(name)

    def drop_unused(self, used: Collection[str]) -> None:
        """Unmount those of sessions that nobody knows any more."""
        with self._in_keeper():
            for name in os.listdir(mounts.WORKSPACES):
                if name not in used:
                    mounts.drop_workspace(name)

    def fork_into(self, namespace: int) -> int:
        """Fork a child into a pid namespace and return its pid; the descriptor is closed."""
        system.setns(namespace, system.CLONE_NEWPID)
        os.close(namespace)
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid:  # in the parent, or in nobody
                system.setns(self._pids, system.CLONE_NEWPID)
        return pid

    def _free(self) -> int:
        """Return the lowest id that no workspace has."""
        if self._sandbox["mode"] == "user":
            return 0
        first, count = self._sandbox["ids"]
        first = first if self._sandbox["mode"] == "root-plain" else 0
        # A number of its own tells a directory from an earlier one of that name.
        with os.scandir(mounts.WORKSPACES) as entries:
            there = {(entry.name, entry.inode()) for entry in entries}
        for gone in self._owners.keys() - there:
            del self._owners[gone]
        for found in there - self._owners.keys():
            self._owners[found] = os.stat(f"{mounts.WORKSPACES}/{found[0]}").st_uid
        taken = set(self._owners.values())
        for uid in range(first + 1, first + count):
            if uid not in taken:
                return uid
        raise OSError(f"all {count - 1} user ids of this zygote are taken")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other zygote choose an id meanwhile: during a change of guard there are two."""
        directory = os.open(mounts.WORKSPACES, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    @contextmanager
    def _in_keeper(self) -> Iterator[None]:
        system.setns(self._keeper, system.CLONE_NEWNS)
        try:
            yield
        finally:
            system.setns(self._here, system.CLONE_NEWNS)


def _private_bytes() -> int:
    """Return what this process maps privately and writably, which its children begin with."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmData:"))
