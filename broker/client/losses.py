"""Which results stand for a loss that their caller is to hear of."""

from __future__ import annotations

from typing import Literal

from .result import Event, Result
from .resume import Link, state_lost

OnLost = Literal["result", "raise"]
UNTOLD = "broker_restart"  # how it ended is not known; the variables are there


def check_state(result: Result, on_lost: OnLost, link: Link) -> Result:
    """Return the result; with "raise", raise StateLost if variables were lost before or in it.

    That is once for what has run, and never after a restart of one's own.
    """
    gone = result.status in ("lost", "aborted")
    in_it = result.status == "lost" and result.reason != UNTOLD
    generation = result.generation + gone  # that comes after the one that is lost
    if on_lost != "raise" or not (in_it or result.state == "lost"):
        return result
    if generation <= link.known_loss and not gone:
        return result
    link.known_loss = max(generation, link.known_loss)
    loss: Event = {}
    for event in result.events:
        if event.get("type") == "session" and event.get("state") in ("lost", "restored"):
            loss = event
    raise state_lost(generation, {"reason": result.reason, **loss}, result)
