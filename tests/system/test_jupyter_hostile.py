"""Tokens, tenants and half-open connections at the Jupyter face of a real broker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.jupyter.names import kernel_id
from tests.faces.wire import V1, Place, socket
from tests.system.conftest import RunningBroker, StartBroker
from tests.system.peer import execute, new_name
from tests.system.test_tokens import made

FORGE = """
kernel = get_ipython().kernel
banner = {'status': 'ok', 'banner': 'forged', 'implementation': 'x', 'protocol_version': '5.3'}
kernel.session.send(
    kernel.shell_stream, 'kernel_info_reply', banner, kernel.get_parent('shell'),
    kernel._shell_parent_ident.get() if hasattr(kernel, '_shell_parent_ident') else None)
"""


@pytest.fixture(scope="module")
def noted(start_broker: StartBroker, short_dir: object) -> Iterator[RunningBroker]:
    directory = short_dir()  # type: ignore[operator]
    settings = {
        "BROKER_AUDIT_FILE": str(Path(directory) / "audit.log"),
        "BROKER_WIRE_CLIENT_BACKLOG": "256K",
    }
    with start_broker(directory, "--warm", "1", "--preload", "", **settings) as running:
        yield running


async def test_what_a_kernel_of_one_tenant_says_that_it_is_no_other_tenant_is_told(
    noted: RunningBroker,
) -> None:
    names = new_name(), new_name()
    holders = made(noted, tenant="acme"), made(noted, tenant="other")
    for name, holder in zip(names, holders, strict=True):
        execute(holder, name, "1")
    place = Place(f"{noted.url}/jupyter", holders[0].token)
    async with socket(place, kernel_id("acme", names[0]), V1, "me") as hostile:
        await hostile.run(FORGE)
    place = Place(f"{noted.url}/jupyter", holders[1].token)
    async with socket(place, kernel_id("other", names[1]), V1, "me") as victim:
        reply = await victim.reply(await victim.send("shell", "kernel_info_request", {}))
    assert "forged" not in json.dumps(reply)
