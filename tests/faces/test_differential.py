"""One script, against a stock Jupyter server and against the broker: the same is to come back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.faces.accepted import accepted
from tests.faces.places import broker, place, short_dir, stock
from tests.faces.script import Step, client, steps
from tests.faces.transcripts import difference
from tests.jupyter.messages import LEGACY, V1
from tests.jupyter.rest import Place

__all__ = ["broker", "place", "short_dir", "stock"]

pytestmark = [pytest.mark.faces, pytest.mark.timeout(900)]  # the peers may be installed first

CASES = [
    pytest.param(framing, name, step, id=f"{name}-{framing.partition('.')[0]}")
    for framing in (V1, LEGACY)
    for name, step in steps(framing).items()
]


async def told(place: Place, framing: str, step: Step) -> dict[str, Any]:
    """Return what a server told in a step, with a kernel of the step's own."""
    async with client(place, framing) as scripted:
        await step(scripted)
        return {"rest": scripted.told, **await scripted.transcript()}


@pytest.mark.parametrize(("framing", "name", "step"), CASES)
async def test_a_client_is_told_what_a_jupyter_server_tells(
    stock: Place, place: Place, framing: str, name: str, step: Step
) -> None:
    theirs, ours = await asyncio.gather(told(stock, framing, step), told(place, framing, step))
    differs = difference(*accepted(theirs, ours))
    assert not differs, differs


@pytest.mark.parametrize(
    ("theirs", "ours", "is_accepted"),
    [
        (500, 404, True),
        (500, 400, True),
        (404, 404, True),
        (500, 403, False),
        (500, 503, False),
        (404, 400, False),
        (400, 500, False),
        (200, 404, False),
    ],
)
def test_an_error_is_the_clients_mistake_only_where_theirs_is_500(
    theirs: int, ours: int, is_accepted: bool
) -> None:
    both = ({"rest": [("GET /a", status, ["message", "reason"])]} for status in (theirs, ours))
    assert (not difference(*accepted(*both))) == is_accepted
