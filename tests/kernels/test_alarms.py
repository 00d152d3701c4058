"""Signal handlers that a cell leaves behind, and that raise when its code has ended."""

from __future__ import annotations

import pytest

from tests.kernels.talk import Talk

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("error", ["TimeoutError('late')", "KeyboardInterrupt"])
@pytest.mark.parametrize("interval", [0, 0.001])
async def test_an_alarm_between_cells_costs_no_variables(
    talk: Talk, error: str, interval: float
) -> None:
    said = await talk.run(
        "import signal\n"
        f"def late(*_): raise {error}\n"
        "kept = 'kept'; signal.signal(signal.SIGALRM, late)\n"
        f"_ = signal.setitimer(signal.ITIMER_REAL, 0.05, {interval})"
    )
    await talk.until(lambda: said.late)
    assert said.late[0].content["text"].startswith("a signal handler raised between two cells: ")
    assert await talk.value("kept") == "'kept'"


# Where one may strike: in what follows a cell's code until its reply has left.
PLACES = ["collect", "finish", "forget_outputs", "finish_metadata", "_publish_status", "flush"]


@pytest.mark.parametrize("place", PLACES)
async def test_a_cell_is_answered_wherever_a_handler_strikes(talk: Talk, place: str) -> None:
    said = await talk.run(
        "import sys\n"
        "def strike(frame, event, _):\n"
        f"    if event == 'call' and frame.f_code.co_name == {place!r}:\n"
        "        sys.setprofile(None)\n"
        "        raise TimeoutError\n"
        "kept = 'kept'\n"
        "sys.setprofile(strike)"
    )
    assert said.status in ("ok", "error")
    assert await talk.value("kept") == "'kept'"
