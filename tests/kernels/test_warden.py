"""The warden goes on where the system falls short, because all kernels would end with it."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator

import pytest

from kernels.inside.warden import Warden, Zygote, ready

OVER = 1500  # a number that select(2) takes for out of range


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Yield a pipe whose end to read has a number over 1023."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] <= OVER:
        pytest.skip(f"at most {limits[1]} descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], OVER + 1), limits[1]))
    end, other = os.pipe()
    os.dup2(end, OVER)
    os.close(end)
    yield OVER, other
    os.close(OVER)
    os.close(other)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_descriptors_of_any_number_are_waited_for(pipe: tuple[int, int]) -> None:
    ours, theirs = socket.socketpair()
    assert ready([pipe[0], ours], 0) == set()
    os.write(pipe[1], b"x")
    assert ready([pipe[0], ours], None) == {pipe[0]}
    theirs.close()
    assert ready([pipe[0], ours], None) == {pipe[0], ours}
    ours.close()


def test_a_successor_that_cannot_be_started_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> int:
        raise BlockingIOError("no more processes")

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind("")  # a name of the system's choice
    listener.listen()
    warden = Warden(listener, {"sandbox": None, "orphan_ttl": 1}, command=["/bin/false"])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = sorted(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fork", refuse)
    theirs.send(b"successor")
    warden._hear(Zygote(1, ours), ours)
    assert "cannot start the zygote: no more processes" in capfd.readouterr().err
    assert sorted(os.listdir("/proc/self/fd")) == before
    for each in (listener, ours, theirs):
        each.close()
