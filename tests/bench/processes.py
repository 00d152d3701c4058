"""Programs under measurement: started in a group of their own, gone when the block ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

GRACE = 15.0  # s; a gateway with many kernels takes its time to end them


class DidNotStart(RuntimeError):
    """The program ended, or said nothing, before it was ready; the message ends with its words."""


@dataclass
class Program:
    """A running program and the last lines it wrote."""

    process: asyncio.subprocess.Process
    ready: re.Match[str] | None = None
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=30))

    @property
    def pid(self) -> int:
        return self.process.pid

    async def wait_for(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Read lines until one matches; None when the program has closed its output."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            text = line.decode(errors="replace").rstrip()
            self.tail.append(text)
            if found := pattern.search(text):
                return found
        return None

    async def drain(self) -> None:
        """Read on for ever, so that a full pipe never stops the program."""
        await self.wait_for(re.compile(r"(?!)"))


@contextlib.asynccontextmanager
async def program(
    argv: Sequence[str], *, env: Mapping[str, str], ready: str, patience: float = 120.0
) -> AsyncIterator[Program]:
    """Start a program, wait for the line that says it is ready, end it with the block.

    `patience` is in seconds. `ready` is a regular expression, its match `Program.ready`.
    Raises DidNotStart.
    """
    running = Program(
        await asyncio.create_subprocess_exec(
            *argv,
            env=dict(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    )
    drain: asyncio.Task[None] | None = None
    try:
        try:
            async with asyncio.timeout(patience):
                running.ready = await running.wait_for(re.compile(ready))
        except TimeoutError:
            running.tail.append(f"(not ready after {patience:g} s)")
        if running.ready is None:
            words = "\n".join(running.tail)
            raise DidNotStart(f"{' '.join(argv[:4])} … did not become ready:\n{words}")
        drain = asyncio.create_task(running.drain())
        yield running
    finally:
        await end(running.process)
        if drain is not None:
            drain.cancel()
            await asyncio.gather(drain, return_exceptions=True)


async def end(process: asyncio.subprocess.Process) -> None:
    """Ask the program to end, then make its whole group end."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(GRACE):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
