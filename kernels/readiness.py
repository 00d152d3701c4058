"""Find out when a kernel of another project's takes requests, and be heard by nobody later."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Protocol

from kernels.channels import Channels
from kernels.errors import KernelDied, LaunchError
from kernels.introductions import heard, written
from kernels.messages import Message

NUDGE = 0.5  # s between two requests to a kernel that is still starting


class Starting(Protocol):
    """A kernel on its way up; `exited` resolves with the reason of its end."""

    @property
    def channels(self) -> Channels:
        """Return its connections, which nobody else uses yet."""

    @property
    def exited(self) -> asyncio.Future[str]:
        """Return the future of the exit reason."""


async def until_subscribed(kernel: Starting, answer: Mapping[str, Any]) -> bytes:
    """Wait until a kernel of ours has greeted us on iopub. Raises KernelDied, LaunchError.

    Return what it says that it is: its `answer`, when it had started, tells.
    """
    channels = kernel.channels
    waited: list[asyncio.Future[Any]] = [channels.subscribed, kernel.exited, channels.broken]
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if kernel.exited.done():
        raise KernelDied(kernel.exited.result())
    if channels.broken.done():
        raise LaunchError(f"the kernel sent {channels.broken.result()}")
    return written(answer.get("info"))


async def until_ready(kernel: Starting) -> bytes:
    """Wait for an answer and for a first output message. Raises KernelDied.

    Return what it says that it is, as `heard` has it: nobody's code has run there yet. Only the
    newest kernels greet a subscriber, so one that has answered is asked again until the
    subscription shows.
    """
    channels = kernel.channels
    ready = asyncio.Event()
    answered = asyncio.Event()
    info = b""

    def check(_: object = None) -> None:
        if kernel.exited.done() or (answered.is_set() and channels.subscribed.done()):
            ready.set()

    def take(channel: str, message: Message) -> None:
        nonlocal info
        if channel == "iopub" and not channels.subscribed.done():
            channels.subscribed.set_result(None)
        if message.type == "kernel_info_reply":
            answered.set()
            info = heard(message) or info
        check()

    channels.subscribed.add_done_callback(check)
    channels.receiver = take
    kernel.exited.add_done_callback(check)
    try:
        while not ready.is_set():
            channels.send("shell", "kernel_info_request", {})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(NUDGE):
                    await ready.wait()
        if not kernel.exited.done():
            await _settle(kernel)
    finally:
        kernel.exited.remove_done_callback(check)
        channels.receiver = None
    if kernel.exited.done():
        raise KernelDied(kernel.exited.result())
    return info


async def _settle(kernel: Starting) -> None:
    """Wait until the last answer to the nudges is through, so that no one else receives it."""
    channels = kernel.channels
    last = channels.next_id()
    done = asyncio.Event()
    missing = {"shell", "iopub"}

    def take(channel: str, message: Message) -> None:
        if message.parent_id != last:
            return
        if channel == "shell":
            missing.discard("shell")
        elif message.type == "status" and message.content.get("execution_state") == "idle":
            missing.discard("iopub")
        if not missing:
            done.set()

    def ended(_: object) -> None:
        done.set()

    channels.receiver = take
    channels.send("shell", "kernel_info_request", {}, msg_id=last)
    kernel.exited.add_done_callback(ended)
    try:
        await done.wait()
    finally:
        kernel.exited.remove_done_callback(ended)
