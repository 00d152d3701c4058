"""Tokens, tenants and half-open connections at the Jupyter face of a real broker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.jupyter.names import kernel_id
from tests.jupyter.messages import V1
from tests.jupyter.rest import face
from tests.jupyter.sockets import socket
from tests.system.conftest import RunningBroker, StartBroker
from tests.system.peer import ask_until, execute, new_name
from tests.system.test_jupyter_channels import looking_into
from tests.system.test_tokens import made, revoke

FORGE = """
kernel = get_ipython().kernel
banner = {'status': 'ok', 'banner': 'forged', 'implementation': 'x', 'protocol_version': '5.3'}
kernel.session.send(
    kernel.shell_stream, 'kernel_info_reply', banner, kernel.get_parent('shell'),
    kernel._shell_parent_ident.get() if hasattr(kernel, '_shell_parent_ident') else None)
"""


@pytest.fixture(scope="module")
def noted(start_broker: StartBroker, short_dir: object) -> Iterator[RunningBroker]:
    directory = short_dir()
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
    place = face(noted, holders[0].token)
    async with socket(place, kernel_id("acme", names[0]), V1, "me") as hostile:
        await hostile.run(FORGE)
    place = face(noted, holders[1].token)
    async with socket(place, kernel_id("other", names[1]), V1, "me") as victim:
        reply = await victim.reply(await victim.send("shell", "kernel_info_request", {}))
    assert "forged" not in json.dumps(reply)


async def test_a_watching_token_takes_no_place_and_reads_nothing_kept_for_another(
    noted: RunningBroker,
) -> None:
    name = new_name()
    execute(noted, name, "1")
    watcher = made(noted, scopes=["watch"], session=name)
    async with (
        looking_into(noted, name, session="lab") as owner,
        looking_into(noted, name, session="lab", token=watcher.token) as other,
    ):
        cell = await owner.execute("1", user_expressions={"secret": "40 + 2"})
        assert (await owner.done(cell))["content"]["status"] == "ok"
        assert owner.closed_with is None
        await other.idle(cell)
        assert not [one for one in other.came if one["channel"] == "shell"]


async def test_a_revoked_tokens_place_is_not_kept(noted: RunningBroker) -> None:
    name, holder = new_name(), made(noted)
    execute(noted, name, "1")
    async with looking_into(noted, name, token=holder.token) as gone:
        cell = await gone.execute("import time; time.sleep(1); print('kept')")
        assert revoke(noted, holder).status == 200
        assert await gone.until_closed() == 4401
    async with looking_into(noted, name) as other:
        await other.run("1")
        told = [one for one in other.came if one["parent_header"].get("msg_id") == cell]
        assert not [one for one in told if one["channel"] != "iopub"]


async def test_what_a_notebook_runs_and_restarts_is_noted(noted: RunningBroker) -> None:
    name = new_name()
    execute(noted, name, "1")
    async with looking_into(noted, name) as notebook:
        await notebook.run("'audited'")
        await notebook.reply(await notebook.send("control", "interrupt_request", {}))
        await notebook.reply(await notebook.send("control", "shutdown_request", {"restart": True}))

    def events() -> list[str]:
        return [one["event"] for one in noted.audited if one.get("session") == name]

    noted_of_it = ["executed", "executed", "interrupted", "restarted"]
    ask_until(lambda: not set(noted_of_it) - set(events()), "all that was done")
    assert sorted(one for one in events() if one in noted_of_it) == noted_of_it
