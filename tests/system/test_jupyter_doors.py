"""Who the Jupyter face lets in, what they are refused, and what it tells nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.jupyter.names import kernel_id
from tests.jupyter.rest import ask, asking_for_a_kernel, kernel_ids, made, refusal
from tests.system.conftest import RunningBroker, StartBroker
from tests.system.peer import (
    ask_until,
    execute,
    new_name,
    row_of,
    value_of,
)
from tests.system.test_tokens import Holder
from tests.system.test_tokens import made as holder_of

LEAN = """
log_level = "debug"
[jupyter]
at_root = true
delete_ends = "all"
[tenants.fuzz]
sessions = 2
[tenants.narrow]
profiles = ["slim"]
[profiles.python]
preload = []
warm = 2
warm_most = 2
[profiles.slim]
preload = []
warm = 0
"""
FULL = """
[tenants.refused]
waiting = 0
[profiles.python]
preload = []
warm = 0
cap = 1
"""


@pytest.fixture(scope="module")
def rooted(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> Iterator[RunningBroker]:
    """A broker that serves at the root as well, ends all that is deleted, and notes everything."""
    directory = short_dir()
    (directory / "broker.toml").write_text(LEAN)
    audit = {"BROKER_AUDIT_FILE": str(directory / "audit.log")}
    with start_broker(directory, "--config", str(directory / "broker.toml"), **audit) as running:
        yield running


# Who is let in


@pytest.mark.parametrize("form", ["token {}", "Token {}", "TOKEN {}", "Bearer {}", "bearer {}"])
def test_a_token_is_taken_in_every_form_of_the_header(broker: RunningBroker, form: str) -> None:
    told = ask(broker, "GET", "/api/kernels", authorization=form.format(broker.token))
    assert told.status == 200


def test_a_token_is_taken_from_the_query_and_from_the_path(broker: RunningBroker) -> None:
    for path in (f"/api/kernels?token={broker.token}", f"/t/{broker.token}/api/kernels"):
        assert ask(broker, "GET", path, authorization=None).status == 200
    # Clients that have none send an empty one all the same.
    assert ask(broker, "GET", f"/t/{broker.token}/api/me", authorization="token ").status == 200


@pytest.mark.parametrize("path", ["/api/kernels", "/t/wrong/api/kernels", "/t/a%0Ab/api/kernels"])
def test_without_a_token_nobody_is_let_in(broker: RunningBroker, path: str) -> None:
    told = ask(broker, "GET", path, authorization=None)
    assert "token" in refusal(told, 401)
    assert told.headers["WWW-Authenticate"] == "Bearer"


def test_whose_api_this_is_everybody_may_know(broker: RunningBroker) -> None:
    assert "version" in ask(broker, "GET", "/api", authorization=None).body


@pytest.mark.parametrize("path", ["", "/", "/tree", "/tree?", "/login", "/api/contents"])
def test_what_is_not_there_is_404_with_and_without_a_token(
    broker: RunningBroker, path: str
) -> None:
    for authorization in ("", None):
        refusal(ask(broker, "GET", path, authorization=authorization), 404)


def test_at_the_root_it_is_only_if_it_is_set_so(
    broker: RunningBroker, rooted: RunningBroker
) -> None:
    assert ask(broker, "GET", "/api", mount="").status == 404
    path = f"/t/{broker.token}/api/kernels"
    assert ask(broker, "GET", path, authorization=None, mount="").status == 404
    assert ask(rooted, "GET", "/api", mount="").status == 200
    path = f"/t/{rooted.token}/api/kernels"
    assert ask(rooted, "GET", path, authorization=None, mount="").body == []


def test_a_token_in_the_path_opens_nothing_but_this_face(rooted: RunningBroker) -> None:
    path = f"/t/{rooted.token}/v1/sessions"
    assert ask(rooted, "GET", path, authorization=None, mount="").status == 404


def test_who_watches_reads_and_makes_nothing(broker: RunningBroker) -> None:
    watcher = holder_of(broker, "watch")
    id_ = made(broker)["id"]
    assert id_ in kernel_ids(watcher)
    assert ask(watcher, "GET", "/api/sessions").status == 200
    for method, path in [
        ("POST", "/api/kernels"),
        ("POST", f"/api/kernels/{id_}/restart"),
        ("POST", f"/api/kernels/{id_}/interrupt"),
        ("DELETE", f"/api/kernels/{id_}"),
        ("POST", "/api/sessions"),
    ]:
        refusal(ask(watcher, method, path), 403)


def test_tenants_see_nothing_of_each_other(broker: RunningBroker) -> None:
    acme, other = holder_of(broker, tenant="acme"), holder_of(broker, tenant="other")
    id_ = made(acme)["id"]
    try:
        assert kernel_ids(other) == []
        assert f"session-{id_}" not in ask(other, "GET", "/api/kernelspecs").text
        for method, path in [
            ("GET", f"/api/kernels/{id_}"),
            ("DELETE", f"/api/kernels/{id_}"),
            ("POST", f"/api/kernels/{id_}/restart"),
            ("POST", f"/api/kernels/{id_}/interrupt"),
            ("GET", f"/api/sessions/{id_}"),
            ("DELETE", f"/api/sessions/{id_}"),
            ("GET", f"/api/kernelspecs/session-{id_}"),
        ]:
            refusal(ask(other, method, path), 404)
    finally:
        assert ask(acme, "DELETE", f"/api/kernels/{id_}").status == 204


def test_a_token_of_one_session_sees_that_one_alone(broker: RunningBroker) -> None:
    name = new_name()
    bound, elsewhere = holder_of(broker, session=name), made(broker)["id"]
    own = ask(bound, "POST", "/api/kernels").body["id"]  # it means the one there is for it
    assert own == kernel_id("default", name)
    assert kernel_ids(bound) == [own]
    refusal(ask(bound, "GET", f"/api/kernels/{elsewhere}"), 404)
    refusal(ask(bound, "POST", "/api/kernels", {"session": new_name()}), 404)
    refusal(ask(bound, "POST", "/api/kernels", {"kernel_id": elsewhere}), 404)


# What they are refused


def test_what_a_tenant_may_not_use_is_not_there(rooted: RunningBroker) -> None:
    narrow = holder_of(rooted, tenant="narrow")
    specs = ask(narrow, "GET", "/api/kernelspecs").body
    assert (specs["default"], [*specs["kernelspecs"]]) == ("python3", ["python3", "slim"])
    model = made(narrow, name="python")  # no profile of its own: the default, as in Jupyter
    assert model["name"] == "python3"
    assert row_of(narrow, f"kernel-{model['id']}")["profile"] == "slim"
    assert "known: python3, slim" in refusal(
        ask(narrow, "POST", "/api/kernels", {"name": "r"}), 400
    )


def test_a_quota_is_the_answer_of_the_request_that_is_over_it(rooted: RunningBroker) -> None:
    fuzz = holder_of(rooted, tenant="fuzz")
    ids = [made(fuzz)["id"], made(fuzz)["id"]]
    told = ask(fuzz, "POST", "/api/kernels")
    assert "sessions: 2 sessions of 2 are open" in refusal(told, 429)
    assert int(told.headers["Retry-After"]) >= 1
    for id_ in ids:
        assert ask(fuzz, "DELETE", f"/api/kernels/{id_}").status == 204


def test_a_full_node_is_the_answer_and_who_waits_may_leave(
    start_broker: StartBroker, short_dir: Callable[[], Path]
) -> None:
    directory = short_dir()
    (directory / "broker.toml").write_text(FULL)
    with start_broker(directory, "--config", str(directory / "broker.toml")) as broker:
        refused = holder_of(broker, tenant="refused")
        id_ = made(broker)["id"]
        told = ask(refused, "POST", "/api/kernels")
        refusal(told, 503)
        assert "Retry-After" in told.headers
        assert kernel_ids(refused) == []  # nothing is left of what was refused
        with asking_for_a_kernel(broker):
            ask_until(lambda: len(kernel_ids(broker)) == 2, "one that waits")
            states = [one["execution_state"] for one in ask(broker, "GET", "/api/kernels").body]
            assert states == ["idle", "starting"]
        ask_until(lambda: kernel_ids(broker) == [id_], "its caller has gone, and so has it")
        assert ask(broker, "DELETE", f"/api/kernels/{id_}").status == 204
        made(refused)


def test_deleting_leaves_a_chat_that_somebody_looked_into(
    broker: RunningBroker, rooted: RunningBroker
) -> None:
    name = new_name()
    for one in (broker, rooted):
        execute(one, name, "x = 20")
    id_ = kernel_id("default", name)
    assert ask(broker, "DELETE", f"/api/kernels/{id_}").status == 204
    assert ask(broker, "DELETE", f"/api/sessions/{id_}").status == 204
    assert value_of(broker, name, "x") == "20"
    assert ask(rooted, "DELETE", f"/api/kernels/{id_}").status == 204  # which is set to end all
    assert id_ not in kernel_ids(rooted)


# What nobody is told, and nothing breaks


def test_no_line_of_a_log_or_of_the_audit_has_the_token_of_a_path(rooted: RunningBroker) -> None:
    holder = holder_of(rooted, tenant="logged")
    base, name = f"/t/{holder.token}", new_name()
    refused = holder_of(rooted, "watch", tenant="logged")
    for mount in ("", "/jupyter"):
        nobody: dict[str, Any] = {"authorization": None, "mount": mount}
        told = ask(rooted, "POST", f"{base}/api/kernels", {"session": name}, **nobody)
        assert told.status == 201
        id_ = told.body["id"]
        for method, path in [
            ("GET", "/api/kernels"),
            ("POST", f"/api/kernels/{id_}/restart"),
            ("POST", f"/api/kernels/{id_}/interrupt"),
            ("GET", "/api/nothing"),
            ("GET", ""),
            ("GET", "/"),
            ("GET", "//"),
            ("PUT", "/api/kernels"),
            ("GET", "/v1/sessions"),
            ("GET", "/api/kernels?%ff=1"),
            ("DELETE", f"/api/kernels/{id_}"),
        ]:
            told = ask(rooted, method, base + path, **nobody)
            assert holder.token not in told.text + str(told.headers)
        denied = ask(rooted, "POST", f"/t/{refused.token}/api/kernels", **nobody)
        refusal(denied, 403)
    for odd in (f"http://x/jupyter{base}/api", f"/j{base}/api", f"//jupyter{base}/api"):
        assert ask(rooted, "GET", odd, authorization=None, mount="").status == 404
    audit = rooted.state_dir / "audit.log"
    ask_until(lambda: "refused" in audit.read_text(), "the refusal in the audit")
    told_of = [line for line in audit.read_text().splitlines() if f'"{holder.id}"' in line]
    for event in ("attached", "restarted", "interrupted", "killed"):
        assert any(f'"event": "{event}"' in line and name in line for line in told_of), event
    assert "/jupyter/api/kernels" in rooted.log  # which has every request, at this level
    for secret in (holder.token, refused.token):
        assert secret not in rooted.log
        assert secret not in audit.read_text()


def test_a_chat_that_was_left_alive_is_not_noted_as_ended(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    audit, name = place[0] / "audit.log", new_name()
    with start_broker(
        *place, BROKER_AUDIT_FILE=str(audit), BROKER_JUPYTER_DELETE_ENDS="unnamed"
    ) as b:
        made(b, session=name)
        ask(b, "DELETE", f"/api/kernels/{kernel_id('default', name)}")
        ask(b, "DELETE", f"/api/kernels/{made(b)['id']}")
    lines = audit.read_text().splitlines()
    killed = [line for line in lines if '"event": "killed"' in line]
    assert len(killed) == 1
    assert name not in killed[0]


@pytest.fixture(scope="module")
def fuzz(rooted: RunningBroker) -> Holder:
    return holder_of(rooted, tenant="fuzz")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


FIELDS = st.sampled_from(
    ["name", "path", "kernel_id", "env", "session", "type", "kernel", "id", "notebook"]
)


BODIES = st.binary(max_size=200) | st.dictionaries(FIELDS, PLAIN, max_size=5)


ROOM = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@ROOM
@given(body=BODIES, path=st.sampled_from(["/api/kernels", "/api/sessions"]))
def test_any_body_is_answered_as_jupyter_does_and_is_never_our_fault(
    fuzz: Holder, body: bytes | dict[str, object], path: str
) -> None:
    told = ask(fuzz, "POST", path, body)
    assert told.status in (201, 400, 404, 413, 429, 501), told.text
    if told.status != 201:
        refusal(told, told.status)


@ROOM
@given(
    parts=st.lists(st.text(max_size=12) | st.sampled_from(["api", "kernels", "t"]), max_size=4),
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE"]),
)
def test_any_path_is_answered_as_jupyter_does_and_is_never_our_fault(
    fuzz: Holder, parts: list[str], method: str
) -> None:
    path = "".join("/" + quote(one.encode("utf-8", "replace"), safe="") for one in parts)
    told = ask(fuzz, method, path)
    assert told.status < 500, told.text
    if told.status >= 400:
        refusal(told, told.status)
