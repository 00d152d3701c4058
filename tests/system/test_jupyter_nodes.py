"""Kernels of another node, in the Jupyter face: where they are, told to those whose they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from broker.jupyter.names import kernel_id
from tests.jupyter.rest import ask, made, refusal
from tests.system.conftest import RunningBroker
from tests.system.peer import ask_until, execute, new_name
from tests.system.test_tokens import made as token_of

LEAN = "[profiles.python]\npreload = []\nwarm = 0\n"


@pytest.fixture(scope="module")
def nodes(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> Iterator[tuple[RunningBroker, RunningBroker]]:
    """Two nodes on one store: that of the first."""
    one, two = short_dir(), short_dir()
    for directory in (one, two):
        (directory / "broker.toml").write_text(LEAN)
    url = {"BROKER_REDIS_URL": f"unix://{one}/valkey.sock"}
    with (
        start_broker(one, "--config", str(one / "broker.toml")) as first,
        start_broker(two, "--config", str(two / "broker.toml"), **url) as second,
    ):
        yield first, second


@pytest.mark.parametrize(
    ("method", "of"), [("GET", ""), ("DELETE", ""), ("POST", "/interrupt"), ("POST", "/restart")]
)
def test_a_kernel_of_another_node_is_refused_with_its_address(
    nodes: tuple[RunningBroker, RunningBroker], method: str, of: str
) -> None:
    first, second = nodes
    id_ = made(first)["id"]
    told = refusal(ask(second, method, f"/api/kernels/{id_}{of}"), 421)
    assert first.url in told
    assert ask(first, "GET", f"/api/kernels/{id_}").status == 200
    assert ask(first, "DELETE", f"/api/kernels/{id_}").status == 204
    refusal(ask(second, method, f"/api/kernels/{id_}{of}"), 404)  # as what has ended is


async def test_its_socket_and_its_notebook_are_refused_alike(
    nodes: tuple[RunningBroker, RunningBroker],
) -> None:
    first, second = nodes
    id_ = made(first)["id"]
    url = f"ws{second.url.removeprefix('http')}/jupyter/api/kernels/{id_}/channels"
    headers = {"Authorization": f"token {second.token}"}
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, additional_headers=headers, proxy=None)
    assert refused.value.response.status_code == 421
    assert first.url.encode() in (refused.value.response.body or b"")
    notebook = {"path": "a.ipynb", "type": "notebook", "kernel": {"id": id_}}
    assert first.url in refusal(ask(second, "POST", "/api/sessions", notebook), 421)


def test_it_is_told_to_nobody_else(nodes: tuple[RunningBroker, RunningBroker]) -> None:
    first, second = nodes
    id_, name = made(first)["id"], new_name()
    execute(first, name, "1")
    other = token_of(second, tenant="acme")
    bound = token_of(second, session=name)
    for holder in (other, bound):
        refusal(ask(holder, "GET", f"/api/kernels/{id_}"), 404)
    own = kernel_id("default", name)
    assert first.url in refusal(ask(bound, "GET", f"/api/kernels/{own}"), 421)
    refusal(ask(other, "GET", f"/api/kernels/{own}"), 404)
    assert first.url in refusal(ask(second, "POST", "/api/kernels", {"session": name}), 421)


def test_a_chats_kernel_is_told_of_whoever_asks_by_its_id(
    nodes: tuple[RunningBroker, RunningBroker],
) -> None:
    first, second = nodes
    name = new_name()
    execute(first, name, "1")
    own = kernel_id("default", name)
    # What was opened a moment after somebody looked is known once that has passed.
    ask_until(lambda: ask(second, "GET", f"/api/kernels/{own}").status == 421, "the kernel's node")
    for method, path in (("POST", "/interrupt"), ("POST", "/restart"), ("DELETE", "")):
        assert first.url in refusal(ask(second, method, f"/api/kernels/{own}{path}"), 421)
    assert first.url in refusal(ask(second, "POST", "/api/kernels", {"kernel_id": own}), 421)
    other = token_of(second, tenant="acme")
    refusal(ask(other, "GET", f"/api/kernels/{own}"), 404)
    assert ask(first, "GET", f"/api/kernels/{own}").status == 200
