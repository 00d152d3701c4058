"""The HTTP face: executions without a socket, and what operators ask."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.system.conftest import RunningBroker
from tests.system.peer import (
    Answer,
    Place,
    ask_until,
    attached,
    call,
    execute,
    gate,
    metric,
    new_name,
    open_gate,
    row_of,
    steady,
)

FIELDS = [
    "session",
    "generation",
    "state",
    "status",
    "execution_count",
    "stdout",
    "stderr",
    "result",
    "displays",
    "error",
    "outputs",
    "done",
]


def listed(broker: RunningBroker, query: str = "") -> list[str]:
    body = call(broker, "GET", f"/v1/sessions{query}").body
    return [row["session"] for row in body["sessions"]]


def bare(broker: RunningBroker, path: str, **headers: str) -> Answer:
    """Ask without a token."""
    parts = urlsplit(broker.url)
    with closing(http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)) as asker:
        asker.request("GET", path, headers=headers)
        response = asker.getresponse()
        return Answer(response.status, response.headers, response.read().decode())


# Executions


@pytest.mark.row("POST /v1/sessions/{s}/execute")
def test_an_execution_answers_what_the_protocol_says(broker: RunningBroker) -> None:
    name = new_name()
    code = "import sys\nprint('out')\nprint('err', file=sys.stderr)\ndisplay('shown')\n6 * 7"
    body = execute(broker, name, code)
    assert list(body) == FIELDS
    plain = {key: body[key] for key in FIELDS[:10]}
    assert plain == {
        "session": name,
        "generation": 1,
        "state": "fresh",
        "status": "ok",
        "execution_count": 1,
        "stdout": "out\n",
        "stderr": "err\n",
        "result": {"text/plain": "42"},
        "displays": [{"text/plain": "'shown'"}],
        "error": None,
    }
    kinds = [event["type"] for event in body["outputs"]]
    assert sorted(kinds) == ["display", "result", "stream", "stream"]
    assert [event["seq"] for event in body["outputs"]] == sorted(
        event["seq"] for event in body["outputs"]
    )
    assert (body["done"]["type"], body["done"]["status"]) == ("done", "ok")
    assert execute(broker, name, "x = 1")["state"] == "warm"


def test_code_that_fails_is_still_http_200(broker: RunningBroker) -> None:
    body = execute(broker, new_name(), "print('before'); 1 / 0")
    assert (body["status"], body["stdout"], body["result"]) == ("error", "before\n", None)
    assert sorted(body["error"]) == ["message", "name", "short", "traceback"]
    assert (body["error"]["name"], body["error"]["message"]) == (
        "ZeroDivisionError",
        "division by zero",
    )
    assert any("1 / 0" in line for line in body["error"]["traceback"])


def test_a_timeout_is_http_200_with_its_status(broker: RunningBroker) -> None:
    body = execute(broker, new_name(), "import time; time.sleep(60)", timeout=0.2)
    assert (body["status"], body["done"]["reason"]) == ("timeout", "timeout")


def test_binary_values_are_base64_text(broker: RunningBroker) -> None:
    code = "from IPython.display import Image, display; display(Image(b'\\x89PNG\\r\\n\\x1a\\n'))"
    [data] = execute(broker, new_name(), code)["displays"]
    assert base64.b64decode(data["image/png"]) == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_what_nests_too_deep_is_left_out_with_a_note(broker: RunningBroker, accept: str) -> None:
    code = (
        "deep = 1\nfor _ in range(600): deep = [deep]\n"
        "display({'application/json': deep}, raw=True)"
    )
    path = f"/v1/sessions/{new_name()}/execute"
    answer = call(broker, "POST", path, {"code": code}, Accept=accept)
    assert answer.status == 200
    assert "nested deeper than 200 levels" in answer.text


def test_the_answer_tells_of_an_earlier_loss(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "x = 1")
    lost = execute(broker, name, "import os; os._exit(3)")
    assert (lost["status"], lost["done"]["reason"], lost["generation"]) == ("lost", "exit 3", 1)
    after = execute(broker, name, "'x' in globals()")
    assert (after["state"], after["generation"]) == ("lost", 2)
    assert after["result"] == {"text/plain": "False"}


class Stream:
    """An execution's events as lines, read one by one."""

    def __init__(self, broker: Place, path: str, code: str) -> None:
        parts = urlsplit(broker.url)
        self.connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)
        headers = {
            "Authorization": f"Bearer {broker.token}",
            "Accept": "application/x-ndjson",
        }
        self.connection.request("POST", path, json.dumps({"code": code}), headers)
        self.response = self.connection.getresponse()

    def close(self) -> None:
        self.connection.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while line := self.response.readline():
            yield json.loads(line)


def test_ndjson_arrives_while_the_cell_runs(broker: RunningBroker) -> None:
    name = new_name()
    code = f"{gate('before')}\nprint('opened')\n6 * 7"
    with closing(Stream(broker, f"/v1/sessions/{name}/execute", code)) as stream:
        assert stream.response.status == 200
        assert stream.response.headers["Content-Type"] == "application/x-ndjson"
        lines = iter(stream)
        kinds = []
        for event in lines:
            kinds.append(event["type"])
            if event["type"] == "stream":
                break
        assert event["text"] == "before\n"
        open_gate(row_of(broker, name)["pid"])  # the cell waits for this: it was still running
        rest = list(lines)
    assert kinds == ["started", "stream"]
    assert [event["type"] for event in rest] == ["stream", "result", "done"]
    assert rest[0]["text"] == "opened\n"
    assert [event["seq"] for event in rest] == sorted(event["seq"] for event in rest)


def test_a_refusal_of_a_stream_is_an_error_like_any_other(broker: RunningBroker) -> None:
    with closing(Stream(broker, "/v1/sessions/a%20b/execute", "1")) as stream:
        assert stream.response.status == 400
        assert json.loads(stream.response.read())["error"]["code"] == "bad_message"


@pytest.mark.parametrize("code", ["x = 20; x", "1 / 0", "import os; os._exit(3)"])
@pytest.mark.row("POST /v1/execute")
def test_a_one_shot_leaves_no_session_behind(broker: RunningBroker, code: str) -> None:
    answer = call(broker, "POST", "/v1/execute", {"code": code})
    assert answer.status == 200
    assert list(answer.body) == FIELDS
    name = answer.body["session"]
    # The answer does not wait for the kernel to end.
    ask_until(lambda: name not in listed(broker, "?state=all"), "the one-shot gone")
    assert call(broker, "GET", f"/v1/sessions/{name}").status == 404


def test_a_streamed_one_shot_ends_with_its_done_and_leaves_no_session(
    broker: RunningBroker,
) -> None:
    with closing(Stream(broker, "/v1/execute", "print('hi')")) as stream:
        events = list(stream)
    assert [event["type"] for event in events] == ["started", "stream", "done"]
    ask_until(lambda: "once-" not in str(listed(broker, "?state=all")), "the one-shot gone")


def test_a_caller_that_vanishes_from_a_stream_is_no_error_of_ours(broker: RunningBroker) -> None:
    before = len(broker.log)
    for path in ("/v1/execute", f"/v1/sessions/{new_name()}/execute"):
        code = "while True: print('text' * 1000, flush=True)"
        with closing(Stream(broker, path, code)) as stream:
            name = str(next(iter(stream))["type"])
            assert name == "started"
    ask_until(lambda: "once-" not in str(listed(broker, "?state=all")), "the one-shot gone")
    assert "Traceback" not in broker.log[before:]


def left_alone(broker: Place, name: str, code: str, accept: str) -> socket.socket:
    """Ask for an execution as `accept`, without reading of it."""
    parts = urlsplit(broker.url)
    body = json.dumps({"code": code})
    asker = socket.create_connection((str(parts.hostname), parts.port or 80), timeout=30)
    asker.sendall(
        f"POST /v1/sessions/{name}/execute HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Authorization: Bearer {broker.token}\r\nAccept: {accept}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    return asker


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_what_a_caller_waits_for_no_longer_is_interrupted_and_nothing_else(
    broker: RunningBroker, accept: str
) -> None:
    name = new_name()
    execute(broker, name, "x = 1\nimport time")
    running = left_alone(broker, name, "time.sleep(600)", accept)
    ask_until(lambda: row_of(broker, name)["state"] == "busy", "the first running")
    # Of one that waits, the first event comes with the next: here it is known by its turn.
    waiting = left_alone(broker, name, "x = 2", accept)
    ask_until(lambda: row_of(broker, name)["queued"] == 1, "the second waiting")
    waiting.close()
    ask_until(lambda: row_of(broker, name)["queued"] == 0, "the second cancelled")
    assert row_of(broker, name)["state"] == "busy"
    running.close()
    after = execute(broker, name, "x")
    assert (after["generation"], after["state"], after["result"]) == (
        1,
        "warm",
        {"text/plain": "1"},
    )
    assert row_of(broker, name)["executions"] == 3


# Sessions


@pytest.mark.row("GET /v1/sessions", "GET /v1/sessions/{s}", "DELETE /v1/sessions/{s}")
def test_a_session_is_described_listed_and_ended(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "x = 20")
    row = row_of(broker, name)
    assert list(row) == [
        "session",
        "tenant",
        "node",
        "kernel",
        "generation",
        "profile",
        "state",
        "reason",
        "created",
        "last_used",
        "expires",
        "idle",
        "executions",
        "queued",
        "clients",
        "pid",
        "last_error",
        "cell",
        "usage",
        "code",
        "limits",
        "workspace_bytes",
        "history",
        "errors",
        "attached",
    ]
    assert (row["state"], row["generation"], row["executions"]) == ("ready", 1, 1)
    assert row["created"] <= row["last_used"] < row["expires"]
    assert psutil.pid_exists(row["pid"])
    assert name in listed(broker)

    answer = call(broker, "DELETE", f"/v1/sessions/{name}?reason=tidied")
    assert (answer.status, answer.body) == (
        200,
        {"session": name, "generation": 1, "reason": "tidied"},
    )
    assert not psutil.pid_exists(row["pid"])
    assert name not in listed(broker)
    assert name in listed(broker, "?state=all")
    assert name in listed(broker, "?state=closed")
    assert (row_of(broker, name)["state"], row_of(broker, name)["reason"]) == ("closed", "tidied")
    assert call(broker, "DELETE", f"/v1/sessions/{name}").status == 404
    again = execute(broker, name, "1")
    assert (again["generation"], again["state"]) == (2, "lost")


async def test_the_list_is_filtered_by_state_and_idleness(broker: RunningBroker) -> None:
    idle, busy = new_name("idle"), new_name("busy")
    async with attached(broker, busy) as peer:
        await asyncio.to_thread(execute, broker, idle, "1")
        await peer.send({"type": "execute", "id": "b", "code": "import time; time.sleep(60)"})
        await peer.until("started", id="b")
        assert (idle in listed(broker, "?state=ready"), busy in listed(broker, "?state=ready")) == (
            True,
            False,
        )
        assert (idle in listed(broker, "?state=busy"), busy in listed(broker, "?state=busy")) == (
            False,
            True,
        )
        assert idle in listed(broker, "?idle=0.001")
        assert busy not in listed(broker, "?idle=0.001")
        assert idle not in listed(broker, "?idle=3600")
        answer = call(broker, "POST", f"/v1/sessions/{busy}/interrupt")
        assert answer.body == {"interrupted": "b"}
        assert (await peer.until("done", id="b"))["status"] == "interrupted"


def test_the_list_is_read_in_pages(broker: RunningBroker) -> None:
    names = sorted(new_name("page") for _ in range(3))
    for name in names:
        execute(broker, name, "1")
    seen, after = [], ""
    while True:
        body = call(broker, "GET", f"/v1/sessions?limit=2&after={after}").body
        assert len(body["sessions"]) <= 2
        seen += [row["session"] for row in body["sessions"]]
        after = body["next"]
        if after is None:
            break
        assert after == seen[-1]
    assert seen == sorted(set(seen))
    assert set(names) <= set(seen)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/sessions/absent"),
        ("DELETE", "/v1/sessions/absent"),
        ("POST", "/v1/sessions/absent/interrupt"),
        ("POST", "/v1/sessions/absent/restart"),
    ],
)
def test_an_absent_session_is_404(broker: RunningBroker, method: str, path: str) -> None:
    answer = call(broker, method, path)
    assert (answer.status, answer.error["code"]) == (404, "unknown_session")
    assert "absent" in answer.error["message"]


@pytest.mark.row("POST /v1/sessions/{s}/interrupt")
def test_interrupting_an_idle_session_is_409(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "1")
    answer = call(broker, "POST", f"/v1/sessions/{name}/interrupt")
    assert (answer.status, answer.error["code"]) == (409, "not_running")


def test_a_restart_that_does_not_say_whether_to_keep_files_changes_nothing(
    broker: RunningBroker,
) -> None:
    name = new_name()
    execute(broker, name, "1")
    for query, field in (("keep_files=maybe", "keep_files"), ("files=1", "files")):
        answer = call(broker, "POST", f"/v1/sessions/{name}/restart?{query}")
        assert (answer.status, answer.error["field"]) == (400, field)
    assert row_of(broker, name)["generation"] == 1
    answer = call(broker, "POST", f"/v1/sessions/{name}/restart?keep_files=false")
    assert answer.body["generation"] == 2


@pytest.mark.row("POST /v1/sessions/{s}/restart")
def test_a_restart_is_the_next_generation_without_variables(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "x = 20")
    answer = call(broker, "POST", f"/v1/sessions/{name}/restart")
    assert (answer.status, answer.body) == (200, {"session": name, "generation": 2})
    after = execute(broker, name, "'x' in globals()")
    assert (after["result"], after["generation"]) == ({"text/plain": "False"}, 2)


# Operators


@pytest.mark.row("GET /v1/nodes", "GET /v1/pools")
def test_nodes_and_pools_show_what_there_is(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "1")
    steady(broker)
    [node] = call(broker, "GET", "/v1/nodes").body["nodes"]
    assert (node["url"], node["draining"]) == (broker.url, False)
    body = call(broker, "GET", "/v1/pools?memory=true").body
    [pool] = body["pools"]
    assert (pool["profile"], pool["state"], pool["error"]) == ("python", "ok", "")
    assert (pool["warm"], pool["target"], node["warm"]) == (3, 3, 3)
    [own] = [kernel for kernel in pool["kernels"] if kernel["session"] == name]
    assert (own["state"], own["generation"], own["pid"]) == (
        "bound",
        1,
        row_of(broker, name)["pid"],
    )
    for measured in [own, body["broker"], *body["zygotes"]]:
        assert measured["rss"] >= measured["pss"] >= measured["uss"] > 0
    assert body["broker"]["pid"] == broker.pid
    assert body["store"]["embedded"] is True
    assert "rss" not in call(broker, "GET", "/v1/pools").body["broker"]


@pytest.mark.row("GET /healthz", "GET /readyz")
def test_health_and_readiness_need_no_token(broker: RunningBroker) -> None:
    steady(broker)
    healthy, ready = bare(broker, "/healthz"), bare(broker, "/readyz")
    assert (healthy.status, healthy.body) == (200, {"alive": True})
    assert (ready.status, ready.body) == (200, {"ready": True, "reasons": []})


@pytest.mark.row("GET /metrics")
def test_metrics_are_prometheus_text_and_count(broker: RunningBroker) -> None:
    def sample(name: str, **labels: str) -> float:
        text = call(broker, "GET", "/metrics")
        assert text.headers["Content-Type"].startswith("text/plain")
        return sum(
            sample.value
            for family in text_string_to_metric_families(text.text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    before = {
        name: sample(name, **labels)
        for name, labels in (
            ("broker_executions_total", {"status": "error"}),
            ("broker_execution_seconds_count", {}),
            ("broker_bind_seconds_count", {}),
            ("broker_first_result_seconds_count", {}),
            ("broker_sessions", {}),
        )
    }
    execute(broker, new_name(), "1 / 0")
    assert (
        sample("broker_executions_total", status="error") == before["broker_executions_total"] + 1
    )
    for name in list(before)[1:]:
        assert sample(name) == before[name] + 1, name
    assert sample("broker_kernels", profile="python", state="bound") >= 1
    ask_until(lambda: sample("broker_kernels", state="warm") == 3, "the pool refilled")


# The door


@pytest.mark.parametrize(
    "path", ["/absent", "/v1", "/v1/absent", "/v1/sessions/a/b/c", "/V1/sessions"]
)
def test_what_is_no_route_is_404_as_json(broker: RunningBroker, path: str) -> None:
    answer = bare(broker, path)
    assert answer.status == 404
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.error["code"] == "unknown_route"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/sessions", "GET"),
        ("GET", "/v1/execute", "POST"),
        ("PATCH", "/v1/sessions/a", "GET, POST, DELETE"),
        ("POST", "/healthz", "GET, HEAD"),
        ("BREW", "/v1/sessions", "GET"),
    ],
)
def test_an_unknown_method_is_405_as_json_and_says_which_there_are(
    broker: RunningBroker, method: str, path: str, allowed: str
) -> None:
    answer = call(broker, method, path)
    assert (answer.status, answer.error["code"]) == (405, "unknown_method")
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer ", "Basic {}", "{}"])
def test_without_the_token_it_is_401_and_says_how(
    broker: RunningBroker, header: str | None
) -> None:
    headers = {} if header is None else {"Authorization": header.format(broker.token)}
    for path in ("/v1/sessions", "/v1/pools", "/v1/nodes", "/metrics"):
        answer = bare(broker, path, **headers)
        assert (answer.status, answer.error["code"]) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert broker.token not in answer.text


def test_nodes_pools_and_metrics_tell_one_isolation(broker: RunningBroker) -> None:
    [node] = call(broker, "GET", "/v1/nodes").body["nodes"]
    [pool] = call(broker, "GET", "/v1/pools").body["pools"]
    told = (node["isolation"], node["mode"])
    assert (node["memory"] is not None) == (node["cpu_seconds"] is not None) == (told[0] == "full")
    assert told == (pool["isolation"], pool["mode"])
    levels = {"none": 0, "standard": 1, "full": 2}
    assert metric(broker, "broker_isolation_level", profile="python") == levels[told[0]]
    if told[0] == "none":
        assert "code in kernels has all the rights of this user" in broker.log


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "token"])
def test_the_token_is_taken_in_either_scheme_and_in_the_query(
    broker: RunningBroker, scheme: str
) -> None:
    assert bare(broker, "/v1/nodes", Authorization=f"{scheme} {broker.token}").status == 200
    assert bare(broker, f"/v1/nodes?token={broker.token}").status == 200
    assert bare(broker, "/v1/nodes?token=wrong").status == 401


def test_answers_say_nothing_of_the_server_and_stay_out_of_caches(broker: RunningBroker) -> None:
    answer = bare(broker, "/healthz")
    assert "Server" not in answer.headers
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/sessions?limit=1&limit=2", "limit"),
        ("/v1/sessions?limit=", "limit"),
        ("/v1/sessions?limit=0", "limit"),
        ("/v1/sessions?limit=1.5", "limit"),
        ("/v1/sessions?idel=1", "idel"),
        ("/v1/nodes?memory=true", "memory"),
        ("/v1/sessions/nobodys/files?limit=00000000120000", "limit"),
        ("/v1/pools?memory=yes", "memory"),
    ],
)
def test_a_query_that_means_nothing_is_refused_by_name(
    broker: RunningBroker, path: str, field: str
) -> None:
    answer = call(broker, "GET", path)
    assert answer.status == 400
    assert answer.error["field"] == field
