"""Sessions as Jupyter's kernels, over REST: what its clients ask for, and what they rely on."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.jupyter.names import kernel_id
from tests.system.conftest import RunningBroker, StartBroker, kill
from tests.system.jupyter_peer import Told, ask, asking_for_a_kernel, kernel_ids, made
from tests.system.peer import (
    ask_until,
    attached,
    call,
    execute,
    gate,
    new_name,
    row_of,
    steady,
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
KERNEL = ["id", "name", "last_activity", "execution_state", "connections"]
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")


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


def refusal(told: Told, status: int) -> str:
    """Return why something was refused, in Jupyter's form."""
    assert told.status == status, told.text
    assert sorted(set(told.body) - {"short_message"}) == ["message", "reason"]
    return str(told.body["message"])


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


# Kernels


@pytest.mark.parametrize("body", [None, "", "{}", "null", '{"name": null, "theme": {"dark": 1}}'])
def test_whatever_asks_for_nothing_special_gets_a_kernel(
    broker: RunningBroker, body: str | None
) -> None:
    told = ask(broker, "POST", "/api/kernels", body)
    assert told.status == 201, told.text
    assert list(told.body) == KERNEL
    assert (told.body["name"], told.body["execution_state"]) == ("python3", "idle")
    assert DATE.fullmatch(told.body["last_activity"])
    assert told.headers["Location"] == f"kernels/{told.body['id']}"
    assert ask(broker, "GET", f"/api/{told.headers['Location']}").body["id"] == told.body["id"]


@pytest.mark.parametrize(
    ("asked", "named"), [("python", "python"), ("python3", "python3"), ("", "python3")]
)
def test_a_kernel_is_called_as_it_was_asked_for(
    broker: RunningBroker, asked: str, named: str
) -> None:
    assert made(broker, name=asked)["name"] == named


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


def test_a_kernel_is_a_session_of_ours(broker: RunningBroker) -> None:
    id_ = made(broker)["id"]
    assert value_of(broker, f"kernel-{id_}", "6 * 7") == "42"


def test_a_session_of_ours_is_a_kernel_with_a_lasting_id(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "x = 20")
    id_ = kernel_id("default", name)
    assert id_ in kernel_ids(broker)
    assert made(broker, session=name)["id"] == id_
    assert made(broker, env={"KERNEL_SESSION": name})["id"] == id_
    assert made(broker, kernel_id=id_)["id"] == id_
    assert ask(broker, "POST", f"/api/kernels/{id_}/restart").body["id"] == id_
    assert row_of(broker, name)["generation"] == 2


def test_the_ids_outlive_the_broker(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name = new_name()
    with start_broker(*place) as broker:
        execute(broker, name, "x = 20")
        before = sorted([made(broker)["id"], made(broker, session=name)["id"]])
        steady(broker)
        kill(broker)
    with start_broker(*place) as broker:
        assert sorted(kernel_ids(broker)) == before
        assert value_of(broker, name, "x") == "20"


def test_a_client_may_choose_the_id_and_gets_the_same_kernel_again(broker: RunningBroker) -> None:
    chosen = str(uuid.uuid4())
    assert made(broker, kernel_id=chosen.upper())["id"] == chosen
    assert made(broker, kernel_id=chosen)["id"] == chosen
    assert kernel_ids(broker).count(chosen) == 1


def test_a_kernel_gets_its_environment_and_nothing_of_the_servers(broker: RunningBroker) -> None:
    env = {"GREETING": "hello", "KERNEL_USERNAME": "ann", "KERNEL_GATEWAY": "1"}
    name = f"kernel-{made(broker, env=env)['id']}"
    found = "[os.environ.get(n) for n in ('GREETING', 'KERNEL_USERNAME', 'KERNEL_GATEWAY')]"
    assert value_of(broker, name, f"import os; {found}") == "['hello', None, None]"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"name": "nope"}, "no kernel 'nope'"),
        ({"name": f"session-{uuid.uuid4()}"}, "has ended"),
        ({"kernel_id": "mine"}, "expected a UUID"),
        ({"session": "a b"}, "session: expected"),
        ({"name": 5}, "name: expected str"),
        ({"env": {"A": 5}}, "env: "),
        ({"env": {"A=B": "c"}}, "env: "),
        ({"env": {"A": "x" * 40_000}}, "env: "),
        ("[]", "a message is a map"),
        ("{", "not JSON"),
        (b"\xff", "not JSON"),
    ],
)
def test_a_bad_body_is_told_what_is_wrong_and_makes_nothing(
    broker: RunningBroker, body: dict[str, object] | str | bytes, words: str
) -> None:
    before = kernel_ids(broker)
    assert words in refusal(ask(broker, "POST", "/api/kernels", body), 400)
    assert kernel_ids(broker) == before


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


async def test_what_runs_is_busy_and_can_be_interrupted(broker: RunningBroker) -> None:
    name = new_name()
    async with attached(broker, name) as peer:
        await peer.run("x = 20")
        id_ = kernel_id("default", name)
        assert ask(broker, "GET", f"/api/kernels/{id_}").body["execution_state"] == "idle"
        await peer.send({"type": "execute", "id": "e", "code": gate()})
        await peer.until("stream", id="e")
        model = ask(broker, "GET", f"/api/kernels/{id_}").body
        assert (model["execution_state"], model["connections"]) == ("busy", 1)
        assert ask(broker, "POST", f"/api/kernels/{id_}/interrupt", "{}").status == 204
        assert (await peer.until("done", id="e"))["status"] == "interrupted"
        assert (await peer.run("x"))[-1]["status"] == "ok"


@pytest.mark.parametrize("body", [None, "{}", "anything", b"\xff"])
def test_an_interrupt_of_nothing_is_done_at_once(
    broker: RunningBroker, body: str | bytes | None
) -> None:
    told = ask(broker, "POST", f"/api/kernels/{made(broker)['id']}/interrupt", body)
    assert (told.status, told.text) == (204, "")


def test_a_restart_forgets_the_variables_and_answers_with_the_kernel(broker: RunningBroker) -> None:
    id_ = made(broker)["id"]
    execute(broker, f"kernel-{id_}", "x = 20")
    told = ask(broker, "POST", f"/api/kernels/{id_}/restart", "{}")
    assert (told.status, told.body["id"], told.body["execution_state"]) == (200, id_, "idle")
    assert value_of(broker, f"kernel-{id_}", "'x' in globals()") == "False"


def test_a_kernel_that_died_says_why_and_comes_back(broker: RunningBroker) -> None:
    id_ = made(broker)["id"]
    execute(broker, f"kernel-{id_}", "import os; os._exit(3)")
    model = ask(broker, "GET", f"/api/kernels/{id_}").body
    assert (model["execution_state"], model["reason"]) == ("dead", "exit 3")
    assert made(broker, kernel_id=id_)["execution_state"] == "idle"


def test_deleting_ends_what_a_client_of_jupyter_has_made(broker: RunningBroker) -> None:
    id_ = made(broker)["id"]
    told = ask(broker, "DELETE", f"/api/kernels/{id_}")
    assert (told.status, told.text) == (204, "")
    assert id_ not in kernel_ids(broker)
    refusal(ask(broker, "GET", f"/api/kernels/{id_}"), 404)
    refusal(ask(broker, "DELETE", f"/api/kernels/{id_}"), 404)


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


def test_what_ends_elsewhere_is_gone_from_the_list(broker: RunningBroker) -> None:
    name = new_name()
    id_ = made(broker, session=name)["id"]
    assert call(broker, "DELETE", f"/v1/sessions/{name}").status == 200
    assert id_ not in kernel_ids(broker)
    assert id_ not in ask(broker, "GET", "/api/sessions").text
    assert id_ not in ask(broker, "GET", "/api/kernelspecs").text


# Kernelspecs


def test_profiles_and_live_sessions_are_kernelspecs(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "x = 20")
    id_ = kernel_id("default", name)
    body = ask(broker, "GET", "/api/kernelspecs").body
    assert body["default"] == "python3"
    assert {"python3", "python", f"session-{id_}"} <= set(body["kernelspecs"])
    for spec_name, one in body["kernelspecs"].items():
        assert sorted(one) == ["name", "resources", "spec"]
        assert (one["name"], one["spec"]["language"]) == (spec_name, "python")
        assert ask(broker, "GET", f"/api/kernelspecs/{spec_name}").body == one
    live = body["kernelspecs"][f"session-{id_}"]
    assert live["spec"]["display_name"] == f"{name} (live session)"
    model = made(broker, name=f"session-{id_}")
    assert (model["id"], model["name"]) == (id_, f"session-{id_}")
    assert value_of(broker, name, "x") == "20"


def test_the_session_used_last_is_the_first_of_the_live_ones(broker: RunningBroker) -> None:
    names = [new_name(), new_name()]
    for name in (*names, names[0]):
        execute(broker, name, "1")
    specs = ask(broker, "GET", "/api/kernelspecs").body["kernelspecs"]
    live = [one for one in specs if one.startswith("session-")]
    assert live[:2] == [f"session-{kernel_id('default', name)}" for name in names]


def test_a_kernelspec_has_a_logo_and_nothing_else(broker: RunningBroker) -> None:
    spec = ask(broker, "GET", "/api/kernelspecs/python3").body
    told = ask(broker, "GET", spec["resources"]["logo-svg"], mount="")
    assert (told.status, told.headers["Content-Type"]) == (200, "image/svg+xml")
    assert "sandbox" in told.headers["Content-Security-Policy"]
    refusal(ask(broker, "GET", "/kernelspecs/python3/logo-64x64.png"), 404)
    refusal(ask(broker, "GET", "/kernelspecs/nope/logo-svg.svg"), 404)
    refusal(ask(broker, "GET", "/api/kernelspecs/nope"), 404)


# Notebooks


def notebook(path: str, **more: object) -> dict[str, object]:
    return {"path": path, "type": "notebook", "name": "", "kernel": {"name": "python3"}, **more}


def test_a_notebook_gets_a_kernel_and_keeps_it(broker: RunningBroker) -> None:
    path = f"{new_name('work/a')}.ipynb"
    first = ask(broker, "POST", "/api/sessions", notebook(path))
    again = ask(broker, "POST", "/api/sessions", notebook(path, kernel={"name": "nope"}))
    assert (first.status, again.status) == (201, 201)
    assert first.body == again.body
    model = first.body
    assert list(model) == ["id", "path", "name", "type", "kernel", "notebook"]
    assert list(model["kernel"]) == KERNEL
    assert model["notebook"] == {"path": path, "name": ""}
    assert ask(broker, "GET", f"/api/{first.headers['Location']}").body == model
    assert model in ask(broker, "GET", "/api/sessions").body
    assert ask(broker, "DELETE", f"/api/sessions/{model['id']}").status == 204
    refusal(ask(broker, "GET", f"/api/sessions/{model['id']}"), 404)
    refusal(ask(broker, "GET", f"/api/kernels/{model['kernel']['id']}"), 404)


def test_each_session_is_a_notebook_of_its_name(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "x = 20")
    id_ = kernel_id("default", name)
    told = ask(broker, "GET", f"/api/sessions/{id_}").body
    assert (told["id"], told["path"], told["kernel"]["id"]) == (id_, f"{name}.ipynb", id_)
    opened = ask(broker, "POST", "/api/sessions", notebook(f"{name}.ipynb"))
    assert (opened.status, opened.body) == (201, told)


def test_two_notebooks_may_share_a_kernel(broker: RunningBroker) -> None:
    paths = [new_name(), new_name()]
    one = ask(broker, "POST", "/api/sessions", notebook(paths[0])).body
    kernel = {"id": one["kernel"]["id"]}
    two = ask(broker, "POST", "/api/sessions", notebook(paths[1], kernel=kernel)).body
    assert two["kernel"]["id"] == one["kernel"]["id"]
    assert two["id"] != one["id"]
    listed = {row["id"]: row["path"] for row in ask(broker, "GET", "/api/sessions").body}
    assert (listed[one["id"]], listed[two["id"]]) == (paths[0], paths[1])


def test_a_notebook_is_moved_and_given_another_kernel(broker: RunningBroker) -> None:
    before = ask(broker, "POST", "/api/sessions", notebook(new_name())).body
    where, path = f"/api/sessions/{before['id']}", new_name("moved")
    moved = ask(broker, "PATCH", where, {"path": path, "name": "b", "type": "console"}).body
    assert (moved["path"], moved["name"], moved["type"]) == (path, "b", "console")
    assert moved["kernel"]["id"] == before["kernel"]["id"]
    assert "notebook" not in moved
    changed = ask(broker, "PATCH", where, {"kernel": {"name": "python3", "id": None}}).body
    assert (changed["id"], changed["path"]) == (before["id"], path)
    assert changed["kernel"]["id"] != before["kernel"]["id"]
    refusal(ask(broker, "GET", f"/api/kernels/{before['kernel']['id']}"), 404)  # it was its own
    assert ask(broker, "GET", where).body == changed


def test_a_notebook_takes_up_a_live_session_and_lets_go_of_it(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "x = 20")
    chat = kernel_id("default", name)
    mine = ask(broker, "POST", "/api/sessions", notebook(new_name())).body
    where = f"/api/sessions/{mine['id']}"
    taken = ask(broker, "PATCH", where, {"kernel": {"id": chat}}).body
    assert taken["kernel"]["id"] == chat
    ask(broker, "PATCH", where, {"kernel": {"name": "python3"}})
    assert value_of(broker, name, "x") == "20"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (notebook("a.ipynb", kernel={"name": "nope"}), 501, "no kernel 'nope'"),
        (notebook("a.ipynb", kernel={"id": str(uuid.uuid4())}), 404, "Kernel does not exist"),
        (notebook("a.ipynb", type=None), 400, "type: missing"),
        (notebook(""), 400, "path: missing"),
        (notebook("a" * 5000), 400, "path: "),
        (notebook("a", kernel="python3"), 400, "kernel: "),
        ("", 400, "the body is empty"),
    ],
)
def test_a_notebook_that_cannot_be_is_told_why(
    broker: RunningBroker, body: dict[str, object] | str, status: int, words: str
) -> None:
    assert words in refusal(ask(broker, "POST", "/api/sessions", body), status)
    assert not [one for one in ask(broker, "GET", "/api/sessions").body if one["path"] == "a.ipynb"]


# The server


def test_the_status_counts_ones_own(broker: RunningBroker) -> None:
    holder = holder_of(broker, tenant="counted")
    assert ask(holder, "GET", "/api/status").body["kernels"] == 0
    id_ = made(holder)["id"]
    told = ask(holder, "GET", "/api/status").body
    assert sorted(told) == ["connections", "kernels", "last_activity", "started"]
    assert (told["kernels"], told["connections"]) == (1, 0)
    assert datetime.fromisoformat(told["last_activity"]) >= datetime.fromisoformat(told["started"])
    assert ask(holder, "DELETE", f"/api/kernels/{id_}").status == 204


def test_one_is_told_who_one_is_and_what_one_may_do(broker: RunningBroker) -> None:
    watcher = holder_of(broker, "watch", tenant="acme")
    asked = quote('{"kernels": ["read", "write"], "contents": ["read"], "x": 5}')
    told = ask(watcher, "GET", f"/api/me?permissions={asked}").body
    assert told["identity"]["username"] == "acme"
    assert told["permissions"] == {"kernels": ["read"], "contents": [], "x": []}
    for wrong in ("5", "{", "%ff"):
        refusal(ask(watcher, "GET", f"/api/me?permissions={wrong}"), 400)


def test_a_method_that_is_not_there_is_405_with_those_that_are(broker: RunningBroker) -> None:
    told = ask(broker, "PUT", "/api/kernels")
    refusal(told, 405)
    assert told.headers["Allow"] == "GET, POST"


# What nobody should have to worry about


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
