"""Visits: a session that is there already, and what others cause in it."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import pytest

from broker.client import Broker, BrokerError, SessionGone
from broker.client.visiting import visit
from tests.broker.scripted_peer import Peer, running_peer


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as scripted:
        scripted.answers["mine"] = [{"type": "stream", "name": "stdout", "text": "mine"}]
        yield scripted


def test_what_others_cause_is_heard_and_ones_own_is_not(peer: Peer) -> None:
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    session = visit(Broker(peer.url, peer.token).place, "a", heard.put)
    session.attach()
    assert heard.get(timeout=20)["type"] == "session"
    assert session.execute("mine").stdout == "mine"
    other = {"type": "stream", "id": "somebody-1", "name": "stdout", "text": "theirs"}
    peer.call(lambda: peer.tell("a", other))
    assert heard.get(timeout=20)["text"] == "theirs"
    peer.call(lambda: peer.tell("a", {"type": "stream", "name": "stdout", "text": "nobody's"}))
    assert heard.get(timeout=20)["text"] == "nobody's"
    assert heard.empty()
    peer.close(4404, "killed by operator")
    gone = heard.get(timeout=20)
    assert isinstance(gone, SessionGone)
    assert "killed by operator" in gone.message
    session.detach()


@pytest.mark.parametrize(("create", "asked"), [(False, "false"), (True, None)])
def test_it_makes_no_session_unless_it_is_told_to(
    peer: Peer, create: bool, asked: str | None
) -> None:
    heard: list[dict[str, Any] | BrokerError] = []
    session = visit(Broker(peer.url, peer.token).place, "a", heard.append, create=create)
    session.attach()
    session.detach()
    assert peer.queries[-1].get("create") == asked
