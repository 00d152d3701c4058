"""What a model calls for, run in a session of either kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker.client.aio import AsyncSession
from broker.client.result import Result
from broker.client.sync import Session

from . import words


def run(session: Session | AsyncSession, given: object) -> Result:
    """Run code with the arguments of a call; raises BrokerError, TypeError for the other kind."""
    own = words.of_kind(Session, session)
    code, timeout = words.arguments(given)
    return own.execute(code, timeout=timeout)


async def arun(session: Session | AsyncSession, given: object) -> Result:
    """Do as `run`."""
    own = words.of_kind(AsyncSession, session)
    code, timeout = words.arguments(given)
    return await own.execute(code, timeout=timeout)


def part(call: object, name: str) -> Any:
    """Return a part of a call, an object or a map; None where there is none."""
    return call.get(name) if isinstance(call, Mapping) else getattr(call, name, None)
