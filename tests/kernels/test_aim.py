"""An interrupt stops the cell that it is meant for, and no other."""

from __future__ import annotations

import asyncio

import pytest

from tests.kernels.talk import Talk

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_interrupt_of_a_cell_that_has_ended_stops_no_other(talk: Talk) -> None:
    ended = await talk.run("1")
    said = talk.start("import time\nprint('in', flush=True)\ntime.sleep(0.2)\n'whole'")
    await talk.until(lambda: "in" in said.text())
    await talk.interrupt(ended)
    assert (await talk.end(said)).value == "'whole'"


async def test_an_interrupt_of_a_cell_that_has_ended_harms_nothing_between_cells(
    talk: Talk,
) -> None:
    await talk.interrupt(await talk.run("1"))
    assert await talk.value("import time\ntime.sleep(0.1)\n1 + 1") == "2"


async def test_an_interrupt_that_names_its_cell_stops_it(talk: Talk) -> None:
    for code in (
        "import time\nprint('in')\ntime.sleep(60)",
        "import asyncio\nprint('in')\nawait asyncio.sleep(60)",
    ):
        said = talk.start(code)
        await talk.until(lambda said=said: "in" in said.text())
        await talk.interrupt(said)
        assert (await talk.end(said)).status == "error"


async def test_an_interrupt_is_not_repeated_for_the_next_cell(talk: Talk) -> None:
    """The first cell swallows the signal, below Python, and ends."""
    code = (
        "import signal\n"
        "before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\n"
        "print('in', flush=True)\n"
        "signal.sigwait({signal.SIGINT})\n"
        "before = signal.pthread_sigmask(signal.SIG_SETMASK, before)"
    )
    for named in (True, False):
        said = talk.start(code)
        after = talk.start("import time\nfor _ in range(30): time.sleep(0.01)\n'whole'")
        await talk.until(lambda said=said: "in" in said.text())
        await talk.interrupt(said if named else None)
        assert (await talk.end(after)).value == "'whole'"


async def test_a_signal_from_outside_after_a_swallowed_one_is_taken(talk: Talk) -> None:
    await test_an_interrupt_is_not_repeated_for_the_next_cell(talk)
    said = talk.start("print('in', flush=True)\nwhile True: pass")
    await talk.until(lambda: "in" in said.text())
    talk.kernel.insist()
    assert (await talk.end(said)).status == "error"


async def test_an_interrupt_at_any_moment_spares_the_cell_behind_its_own(talk: Talk) -> None:
    """One that comes too late for its own is dropped."""
    for number in range(60):
        first = talk.start("import time; time.sleep(0.005)")
        second = talk.start("time.sleep(0.01); 'whole'")
        await talk.until(lambda first=first: bool(first.messages))
        await asyncio.sleep(number / 10_000)  # s: until after the end of the first
        await talk.interrupt(first)
        await talk.end(first)
        assert (await talk.end(second)).value == "'whole'"
