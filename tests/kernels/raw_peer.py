"""A kernel's end of the channels, in the hands of a test."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import zmq

from kernels.channels import PORTS
from kernels.messages import Signer

KEY = b"0123456789"


class Peer:
    """The kernel's end of each socket, in the hands of a test."""

    def __init__(self, prefix: Path) -> None:
        self.signer = Signer(KEY)
        self.context = zmq.Context()
        self.sockets = {}
        for channel, kind in {
            "shell": zmq.ROUTER,
            "control": zmq.ROUTER,
            "stdin": zmq.ROUTER,
            "iopub": zmq.XPUB,
        }.items():
            socket = self.sockets[channel] = self.context.socket(kind)
            socket.linger = 0
            socket.rcvtimeo = socket.sndtimeo = 10_000
            socket.bind(f"ipc://{prefix}-{PORTS[channel]}")

    def frames(self, kind: str, content: Mapping[str, object]) -> list[bytes]:
        return self.signer.pack(kind, content, msg_id="k_1", date="", session="k")

    async def publish(self, *frames: bytes) -> None:
        """Publish, once somebody has subscribed."""
        await asyncio.to_thread(self.sockets["iopub"].send_multipart, list(frames))

    async def subscribed(self) -> None:
        assert await asyncio.to_thread(self.sockets["iopub"].recv) == b"\1"

    def close(self) -> None:
        for one in self.sockets.values():
            one.close()
        self.context.term()
