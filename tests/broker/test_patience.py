"""How long the clients wait, and what they say of it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from broker.client import AsyncBroker, AsyncSession, Broker, Session
from broker.client.door import Door
from broker.client.find import Place
from broker.client.patience import Patience
from tests.broker.scripted_peer import Peer, running_peer

OVER, SENT, ANSWERED = "over", "sent", "answered"


class Heard(logging.Handler):
    """What the log of the client has said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.something = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
        self.something.set()


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler, logger = Heard(), logging.getLogger("broker.client")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@dataclass(frozen=True)
class Counted(Patience):
    """Notes when a wait begins and when it is over."""

    noted: list[str] = field(default_factory=list)

    @contextmanager
    def awaiting(self, url: str) -> Iterator[None]:
        self.noted.append(url)
        yield
        self.noted.append(OVER)


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as scripted:
        yield scripted


def take_long(patience: Patience, url: str) -> None:
    """Wait for as long as it takes to be told of it, if that is to happen."""
    with patience.awaiting(url):
        for one in threading.enumerate():
            if isinstance(one, threading.Timer):
                one.join(20)


def test_a_servers_slowness_is_told_once(heard: Heard) -> None:
    patience = Patience(notice=0)
    for url in ("http://one", "http://one", "http://two", "http://one"):
        take_long(patience, url)
    assert heard.said == ["waiting for http://one to answer", "waiting for http://two to answer"]


@pytest.mark.parametrize("wait", [False, True])
def test_connecting_and_the_answer_are_one_wait_but_for_what_takes_its_time(
    peer: Peer, wait: bool
) -> None:
    patience = Counted()
    peer.http["POST", "/x"] = lambda _: (patience.noted.append(ANSWERED), (200, {}))[1]
    Door(Place(peer.url, peer.token, patience)).call("POST", "/x", wait=wait)
    rest = [OVER, ANSWERED] if wait else [ANSWERED, OVER]
    assert patience.noted == [peer.url, *rest]


def test_of_an_exchange_only_sending_a_body_is_no_wait(peer: Peer) -> None:
    patience = Counted()
    door = Door(Place(peer.url, peer.token, patience))
    peer.http["GET", "/x"] = peer.http["POST", "/x"] = 200, {}
    with door.exchange("GET", "/x"):
        assert patience.noted == [peer.url, OVER]
    patience.noted.clear()

    def body() -> Iterator[bytes]:
        patience.noted.append(SENT)
        yield b"{}"

    with door.exchange("POST", "/x", body=body(), length=2):
        assert patience.noted == [peer.url, OVER, SENT, peer.url, OVER]


def test_both_clients_are_made_of_the_same() -> None:
    for one, twin in ((Broker, AsyncBroker), (Session, AsyncSession)):
        assert [*inspect.signature(one).parameters] == [*inspect.signature(twin).parameters]


async def test_the_asyncio_client_says_so_too(heard: Heard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the system takes the connections
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        broker = AsyncBroker(url, "t", patience=Patience(notice=0))
        opening = asyncio.create_task(broker.session("a").attach())
        assert await asyncio.to_thread(heard.something.wait, 20)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
    assert heard.said == [f"waiting for {url} to answer"]


def test_a_broker_at_a_known_place_is_looked_for_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_TOKEN", "another")
    place = Place("http://127.0.0.1:1", "", Patience(answer=3))
    assert Broker.at(place).place is place
    assert Broker.at(place).session("a")._place is place
