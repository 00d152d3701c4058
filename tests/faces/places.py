"""Where the servers are that the clients of these tests are pointed at."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Template

import pytest

from broker.client import Broker
from tests.examples import examples
from tests.faces.peers import stock_server
from tests.jupyter.rest import Place, call, face
from tests.system.conftest import RunningBroker, broker_process, short_dir

__all__ = [
    "broker",
    "documented",
    "in_path",
    "jupyter_face",
    "kernel_of",
    "live",
    "place",
    "short_dir",
    "stock",
]


def jupyter_face(broker: RunningBroker) -> Place:
    """Return where a broker serves Jupyter's clients."""
    return face(broker)


def in_path(place: Place) -> Place:
    """Return the same place for clients that send no token: it is in the address."""
    return Place(f"{place.url}/t/{place.token}", place.token)


def documented(name: str, **variables: str) -> list[str]:
    """Return the arguments of a command of Jupyter's, as the document has it, behind its name."""
    (example,) = (one for one in examples("deploy/docs/clients.md") if one.name == name)
    return shlex.split(Template(example.code).substitute(variables))[2:]


@pytest.fixture(scope="module")
def broker(short_dir: Callable[[], Path]) -> Iterator[RunningBroker]:
    with broker_process(short_dir(), "--warm", "2") as running:
        yield running


@pytest.fixture(scope="module")
def place(broker: RunningBroker) -> Place:
    return jupyter_face(broker)


@pytest.fixture(scope="module")
def stock(short_dir: Callable[[], Path]) -> Iterator[Place]:
    """Give a stock Jupyter server."""
    with stock_server(short_dir()) as place:
        yield place


@pytest.fixture(scope="module")
def live(broker: RunningBroker, place: Place) -> str:
    """Give the id, as a kernel, of a chat's session; `answer` is 42 in it."""
    return chat(broker, place, "chat-42")


def chat(broker: RunningBroker, place: Place, name: str) -> str:
    """Have a chat's session, with `answer` in it; return its id as a kernel."""
    with Broker(broker.url, broker.token).session(name) as session:
        session.execute("answer = 42").raise_for_status()
    return kernel_of(place, name)


def kernel_of(place: Place, session: str) -> str:
    """Return the id of a live session's kernel, found as people find it: by its kernelspec."""
    specs = call(place, "GET", "/api/kernelspecs").body["kernelspecs"]
    (name,) = (
        name
        for name, one in specs.items()
        if one["spec"]["display_name"] == f"{session} (live session)"
    )
    made = call(place, "POST", "/api/kernels", {"name": name})
    assert made.status == 201, made.text
    return str(made.body["id"])
