"""Sessions as Jupyter's kernels, over REST: what its clients ask for, and what they rely on."""

from __future__ import annotations

import re
import uuid
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from broker.jupyter.names import kernel_id
from tests.jupyter.rest import ask, kernel_ids, made, refusal
from tests.system.conftest import RunningBroker, StartBroker, kill
from tests.system.peer import (
    attached,
    call,
    execute,
    gate,
    new_name,
    row_of,
    steady,
    value_of,
)
from tests.system.test_tokens import made as holder_of

LEAN = """
[profiles.python]
preload = []
warm = 1
warm_most = 1
"""
KERNEL = ["id", "name", "last_activity", "execution_state", "connections"]
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")


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
