"""What tests of this directory share: a real Valkey, stores with a prefix of their own, formats."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from broker.protocol import SUBPROTOCOLS, Codec, codec
from broker.store import Store
from broker.valkey import Valkey
from tests.broker.frames import BOUNDS

StoreMaker = Callable[..., Awaitable[Store]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def valkey_url() -> AsyncIterator[str]:
    """Yield the URL of a server that this worker's tests share."""
    with tempfile.TemporaryDirectory(prefix="kb-") as directory:
        async with Valkey(Path(directory), logging.getLogger("valkey")) as valkey:
            yield valkey.url


@pytest.fixture
def prefix() -> str:
    return f"t{uuid.uuid4().hex[:8]}"


@pytest_asyncio.fixture
async def make_store(valkey_url: str, prefix: str) -> AsyncIterator[StoreMaker]:
    """Yield a function that connects stores to one mapping; they are closed after the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(node: str = "n1", *, lease: float = 15.0, keep: float = 3600.0) -> Store:
            store = await Store.connect(
                valkey_url, prefix=prefix, node=node, lease=lease, keep=keep
            )
            stack.push_async_callback(store.aclose)
            return store

        yield make


@pytest_asyncio.fixture
async def store(make_store: StoreMaker) -> Store:
    return await make_store("n1")


@pytest.fixture(params=SUBPROTOCOLS)
def wire(request: pytest.FixtureRequest) -> Codec:
    """Run the test in each format."""
    return codec(request.param, BOUNDS)
