"""The audit of a real broker: everything that was done, by whom; no code, no secret."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import RunningBroker
from tests.system.peer import ask_until, attached, call, execute, new_name
from tests.system.test_tokens import Holder, made, revoke

SECRET = "a-word-that-only-the-code-has"


@pytest.fixture(scope="module")
def noted(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> Iterator[RunningBroker]:
    directory = short_dir()
    settings = {"BROKER_AUDIT_FILE": str(directory / "audit.log")}
    with start_broker(directory, "--warm", "1", "--preload", "", **settings) as running:
        yield running


def lines(broker: RunningBroker, **wanted: Any) -> list[dict[str, Any]]:
    found = broker.audited
    return [one for one in found if all(one.get(name) == wanted[name] for name in wanted)]


def line(broker: RunningBroker, **wanted: Any) -> dict[str, Any]:
    """Return the one line that has these fields; it may be on its way."""
    ask_until(lambda: bool(lines(broker, **wanted)), f"a line with {wanted}")
    [found] = lines(broker, **wanted)
    return found


async def test_what_is_done_over_a_socket_is_noted_with_who_did_it(noted: RunningBroker) -> None:
    name, holder = new_name(), made(noted, tenant="acme")
    async with attached(holder, name) as peer:
        await peer.run(f"x = {SECRET!r}", id="e1")
        await peer.send({"type": "close", "id": "c1"})
        await peer.until("reply", id="c1")
    who = {"tenant": "acme", "token": holder.id, "ip": "127.0.0.1", "session": name}
    line(noted, event="attached", **who)
    executed = line(noted, event="executed", **who)
    assert (executed["id"], executed["size"], len(executed["sha256"])) == ("e1", 35, 64)
    line(noted, event="closed", id="c1", **who)
    of_session = {"tenant": "acme", "session": name, "generation": 1}
    assert line(noted, event="opened", **of_session)["profile"] == "python"
    assert line(noted, event="ended", **of_session)["reason"] == "closed"


def test_what_is_done_over_http_is_noted_with_who_did_it(noted: RunningBroker) -> None:
    name = new_name()
    execute(noted, name, f"x = {SECRET!r}")
    call(noted, "POST", f"/v1/sessions/{name}/restart")
    call(noted, "DELETE", f"/v1/sessions/{name}?reason=enough")
    for event in ("executed", "restarted", "killed"):
        found = line(noted, event=event, session=name)
        assert (found["tenant"], found["token"]) == ("default", "static")
    for generation in (1, 2):
        line(noted, event="opened", session=name, generation=generation)
    assert line(noted, event="ended", session=name, generation=2)["reason"] == "enough"


def test_tokens_and_refusals_are_noted(noted: RunningBroker) -> None:
    holder = made(noted, "run", tenant="acme")
    line(noted, event="token_created", subject=holder.id)
    call(holder, "GET", "/v1/nodes")
    denied = line(noted, event="refused", token=holder.id)
    assert (denied["status"], denied["path"], denied["tenant"]) == (403, "/v1/nodes", "acme")
    revoke(noted, holder)
    line(noted, event="token_revoked", subject=holder.id)
    wrong = Holder(noted.url, "a-wrong-token-of-somebody", "")
    call(wrong, "GET", "/v1/sessions?token=another-wrong-token")
    assert "tenant" not in line(noted, event="refused", path="/v1/sessions")
    text = (noted.state_dir / "audit.log").read_text()
    for secret in (holder.token, wrong.token, "another-wrong-token", noted.token, SECRET):
        assert secret not in text


def test_the_end_of_the_broker_is_noted_too(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> None:
    directory, name = short_dir(), new_name()
    settings = {"BROKER_AUDIT_FILE": str(directory / "audit.log"), "BROKER_AUDIT_CODE": "on"}
    with start_broker(directory, "--warm", "1", "--preload", "", **settings) as broker:
        execute(broker, name, "x = 20")
    assert line(broker, event="executed", session=name)["code"] == "x = 20"
    assert line(broker, event="ended", session=name)["reason"] == "shutdown"
