"""A session's files over HTTP: what goes in comes out, and nothing else does."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from tests.system.conftest import BROKER, RunningBroker
from tests.system.ordinary import command_as, uid_of_worker
from tests.system.peer import (
    Answer,
    PeakMemory,
    Place,
    ask_until,
    attached,
    call,
    execute,
    gate,
    new_name,
    open_gate,
    row_of,
    value_of,
)

MIB = 1 << 20


@dataclass
class Holder:
    """Somebody with a token of their own."""

    url: str
    token: str


@pytest.fixture
def session(broker: RunningBroker) -> str:
    name = new_name("files")
    execute(broker, name, "1")
    return name


def files(broker: Place, method: str, session: str, path: str = "", *args: object) -> Answer:
    body = args[0] if args else None
    headers = args[1] if len(args) > 1 else {}
    where = f"/v1/sessions/{session}/files" + (f"/{quote(path)}" if path else "")
    return call(broker, method, where, body, **headers)  # type: ignore[arg-type]


def refused(answer: Answer) -> tuple[int, str, str | None]:
    return answer.status, answer.error["code"], answer.error.get("field")


@pytest.mark.row("GET /v1/sessions/{s}/files/{path}", "PUT /v1/sessions/{s}/files/{path}")
def test_what_is_put_is_the_kernels_and_what_it_writes_comes_back(
    broker: RunningBroker, session: str
) -> None:
    made = files(broker, "PUT", session, "data/in é.csv", "a,b\n1,2\n")
    assert made.status == 201, made.text
    assert made.body == {
        "path": "data/in é.csv",
        "type": "file",
        "size": 8,
        "mtime": made.body["mtime"],
    }
    code = (
        "f = open('data/in é.csv', 'a'); f.write('3,4\\n'); f.close(); open('data/in é.csv').read()"
    )
    assert value_of(broker, session, code) == r"'a,b\n1,2\n3,4\n'"
    answer = files(broker, "GET", session, "data/in é.csv")
    assert (answer.status, answer.text) == (200, "a,b\n1,2\n3,4\n")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"] == (
        "attachment; filename=\"in _.csv\"; filename*=UTF-8''in%20%C3%A9.csv"
    )
    assert files(broker, "PUT", session, "data/in é.csv", "new").status == 200
    assert (
        value_of(broker, session, "import os; os.remove('data/in é.csv'); os.rmdir('data')") is None
    )
    assert refused(files(broker, "GET", session, "data/in é.csv")) == (404, "no_such_file", "path")


@pytest.mark.row("GET /v1/sessions/{s}/files")
def test_listing_goes_in_pages_and_into_directories(broker: RunningBroker, session: str) -> None:
    for path in ("b", "a/x", "a/y/z", "c"):
        assert files(broker, "PUT", session, path, path).status == 201
    execute(broker, session, "import os; os.symlink('/etc', 'd'); os.mkfifo('e')")

    def listed(query: str) -> tuple[list[str], str | None]:
        body = call(broker, "GET", f"/v1/sessions/{session}/files{query}").body
        return [row["path"] for row in body["files"]], body["next"]

    shown = listed("")
    hidden = {path for path in shown[0] if path.startswith(".")}
    assert [path for path in shown[0] if path not in hidden] == ["a", "b", "c", "d", "e"]
    assert listed("?path=a&recursive=true") == (["a/x", "a/y", "a/y/z"], None)
    assert listed("?path=a&limit=1") == (["a/x"], "a/x")
    assert listed("?path=a&limit=1&after=a/x") == (["a/y"], None)
    for query, field in (("?path=../x", "path"), ("?limit=0", "limit"), ("?deep=1", "deep")):
        answer = call(broker, "GET", f"/v1/sessions/{session}/files{query}")
        assert (answer.status, answer.error["field"]) == (400, field)
    assert call(broker, "GET", f"/v1/sessions/{session}/files?path=d").error["code"] == "bad_path"


def test_parts_of_a_file_are_sent_as_asked(broker: RunningBroker, session: str) -> None:
    files(broker, "PUT", session, "f", "0123456789")

    def part(header: str, **more: str) -> tuple[int, str, str | None]:
        answer = files(broker, "GET", session, "f", None, {"Range": header, **more})
        text = answer.text if answer.status != 416 else answer.error["field"]
        return answer.status, text, answer.headers.get("Content-Range")

    assert part("bytes=2-4") == (206, "234", "bytes 2-4/10")
    assert part("bytes=7-") == (206, "789", "bytes 7-9/10")
    assert part("bytes=-3") == (206, "789", "bytes 7-9/10")
    assert part("bytes=5-99") == (206, "56789", "bytes 5-9/10")
    assert part("bytes=10-") == (416, "Range", "bytes */10")
    assert part("bytes=1-2,4-5") == (200, "0123456789", None)
    head = files(broker, "HEAD", session, "f")
    assert (head.status, head.text, head.headers["Content-Length"]) == (200, "", "10")
    assert head.headers["Accept-Ranges"] == "bytes"
    version = head.headers["ETag"]
    assert part("bytes=2-4", **{"If-Range": version})[0] == 206
    assert part("bytes=2-4", **{"If-Range": '"other"'})[0] == 200
    assert files(broker, "GET", session, "f", None, {"If-None-Match": version}).status == 304
    files(broker, "PUT", session, "f", "0123456780")
    assert files(broker, "GET", session, "f", None, {"If-None-Match": version}).status == 200


@pytest.mark.row("POST /v1/sessions/{s}/files/{path}", "DELETE /v1/sessions/{s}/files/{path}")
def test_names_are_changed_directories_made_and_files_removed(
    broker: RunningBroker, session: str
) -> None:
    def post(path: str, body: dict[str, object]) -> Answer:
        return files(broker, "POST", session, path, body)

    made = post("d/e", {"directory": True})
    assert (made.status, made.body["type"]) == (201, "directory")
    assert post("d/e", {"directory": True}).status == 200
    files(broker, "PUT", session, "f", "x")
    assert post("f", {"move_to": "d/e/g"}).body["path"] == "d/e/g"
    files(broker, "PUT", session, "f", "y")
    assert refused(post("f", {"move_to": "d/e/g"})) == (412, "file_exists", "move_to")
    assert post("f", {"move_to": "d/e/g", "replace": True}).status == 200
    assert value_of(broker, session, "open('d/e/g').read()") == "'y'"
    assert refused(post("d", {"move_to": "d/x/y"})) == (409, "file_conflict", "move_to")
    assert refused(post("none", {"move_to": "x"})) == (404, "no_such_file", "path")
    assert refused(post("d", {"move_to": "../x"})) == (400, "bad_path", "move_to")
    assert refused(post("d", {})) == (400, "bad_message", "move_to")
    assert refused(post("d", {"move": "x"})) == (400, "bad_message", "move")
    assert refused(files(broker, "DELETE", session, "d")) == (409, "file_conflict", "path")
    gone = call(broker, "DELETE", f"/v1/sessions/{session}/files/d?recursive=true")
    assert gone.body == {"path": "d", "removed": True}
    assert refused(files(broker, "DELETE", session, "d")) == (404, "no_such_file", "path")


def test_create_only_replaces_nothing(broker: RunningBroker, session: str) -> None:
    only_new = {"If-None-Match": "*"}
    assert files(broker, "PUT", session, "f", "x", only_new).status == 201
    again = files(broker, "PUT", session, "f", "y", only_new)
    assert refused(again) == (412, "file_exists", "path")
    assert files(broker, "GET", session, "f").text == "x"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("..%2F..%2Fetc%2Fpasswd", 400, "bad_path"),
        ("../etc/passwd", 400, "bad_path"),
        ("%2Fetc%2Fpasswd", 400, "bad_path"),
        ("a%00b", 400, "bad_path"),
        ("", 400, "bad_path"),
        ("x" * 256, 400, "bad_path"),
        ("out/passwd", 400, "bad_path"),
        ("link", 400, "bad_path"),
        ("fifo", 400, "bad_path"),
        ("second", 400, "bad_path"),
        ("dir", 409, "file_conflict"),
        ("first/x", None, None),
    ],
)
def test_hostile_names_lead_nowhere(
    broker: RunningBroker, session: str, path: str, status: int | None, code: str | None
) -> None:
    execute(
        broker,
        session,
        "import os; os.symlink('/etc', 'out'); os.symlink('/etc/passwd', 'link')\n"
        "os.mkfifo('fifo')\n"
        "open('first', 'w').write('x'); os.link('first', 'second'); os.mkdir('dir')",
    )
    where = f"/v1/sessions/{session}/files/{path}"
    for method in ("GET", "PUT"):
        answer = call(broker, method, where, "x" if method == "PUT" else None)
        if status is not None:
            assert (answer.status, answer.error["code"]) == (status, code), method
        else:
            assert answer.status in (404, 409)


def test_nothing_is_sent_that_a_browser_would_run(broker: RunningBroker, session: str) -> None:
    for name in (
        "a.html",
        "a.svg",
        "a.xhtml",
        "a.js",
        "a.xml",
        "a.pdf",
        "a.mhtml",
        "a",
        "a.htm.gz",
    ):
        files(broker, "PUT", session, name, "<script>alert(1)</script>")
        headers = files(broker, "GET", session, name).headers
        assert headers["Content-Type"] == "application/octet-stream", name
        assert headers["Content-Disposition"].startswith("attachment;")
        assert headers["Content-Security-Policy"] == "sandbox; default-src 'none'"


def test_only_who_may_sees_the_files_of_a_session_that_is_there(
    broker: RunningBroker, session: str
) -> None:
    wrong = call(broker, "GET", f"/v1/sessions/{session}/files/x", Authorization="Bearer wrong")
    assert wrong.status == 401
    assert files(broker, "GET", "nobody", "x").error["code"] == "unknown_session"
    assert files(broker, "PUT", "nobody", "x", "y").error["code"] == "unknown_session"
    assert files(broker, "GET", "a%20b", "x").status == 400


def test_each_token_opens_the_files_of_its_own_and_no_others(
    broker: RunningBroker, session: str
) -> None:
    files(broker, "PUT", session, "f", "x")

    def holder(*scopes: str, **fields: str) -> Holder:
        body = {"scopes": list(scopes), **fields}
        return Holder(broker.url, call(broker, "POST", "/v1/tokens", body).body["token"])

    watcher, stranger = holder("watch"), holder("run", tenant="acme")
    assert files(watcher, "GET", session, "f").text == "x"
    assert files(watcher, "GET", session).status == 200
    for method, body in (("PUT", "y"), ("DELETE", None), ("POST", {"directory": True})):
        assert files(watcher, method, session, "f", body).status == 403, method
        answer = files(stranger, method, session, "f", body)
        assert (answer.status, answer.error["code"]) == (404, "unknown_session"), method
    assert files(stranger, "GET", session, "f").error["code"] == "unknown_session"
    assert files(stranger, "GET", session).error["code"] == "unknown_session"
    bound = holder("run", session=session)
    assert files(bound, "PUT", session, "g", "y").status == 201
    assert files(bound, "GET", new_name(), "g").status in (403, 404)
    assert files(broker, "GET", session, "f").text == "x"


def test_only_so_many_files_are_on_their_way_at_once(broker: RunningBroker, session: str) -> None:
    execute(broker, session, f"f = open('f', 'wb'); f.truncate({200 * MIB})")
    head = (
        f"GET /v1/sessions/{session}/files/f HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {broker.token}\r\n\r\n"
    )
    parts = urlsplit(broker.url)
    with ExitStack() as stack:
        for _ in range(32):  # one tenant's share
            raw = socket.create_connection((parts.hostname, parts.port), timeout=30)
            stack.enter_context(raw)
            raw.sendall(head.encode())
            assert raw.recv(12) == b"HTTP/1.1 200"
        answer = files(broker, "PUT", session, "g", "x")
        assert (answer.status, answer.error["code"]) == (503, "capacity")
        assert value_of(broker, session, "6 * 7") == "42"
    ask_until(lambda: files(broker, "PUT", session, "g", "x").status < 300, "room again")


def test_files_are_there_while_no_kernel_is(broker: RunningBroker, session: str) -> None:
    files(broker, "PUT", session, "f", "kept")
    execute(broker, session, "import os; os._exit(1)")
    assert files(broker, "GET", session, "f").text == "kept"
    assert files(broker, "PUT", session, "g", "too").status == 201
    assert value_of(broker, session, "open('g').read()") == "'too'"


def test_a_full_workspace_says_which_bound_it_is_at(broker: RunningBroker, session: str) -> None:
    most = 256 << 20
    answer = call(
        broker, "PUT", f"/v1/sessions/{session}/files/f", None, **{"Content-Length": str(most + 1)}
    )
    assert refused(answer) == (507, "quota", "workspace")
    assert "268,435,456" in answer.error["message"]
    execute(
        broker,
        session,
        f"import os; os.posix_fallocate(os.open('fill', os.O_RDWR | os.O_CREAT), 0, {most - MIB})",
    )
    assert refused(files(broker, "PUT", session, "f", b"x" * (2 * MIB))) == (
        507,
        "quota",
        "workspace",
    )
    execute(
        broker,
        session,
        "os.remove('fill')\nfor i in range(20000): os.close(os.open(str(i), os.O_CREAT))",
    )
    full = files(broker, "PUT", session, "f", b"x")
    assert refused(full) == (507, "quota", "workspace")
    assert "16,384 files" in full.error["message"]
    assert value_of(broker, session, "[n for n in os.listdir() if n.startswith('.broker')]") == "[]"


def test_an_upload_over_the_bound_is_refused_before_it_is_sent(
    broker: RunningBroker, session: str
) -> None:
    parts = urlsplit(broker.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as raw:
        head = (
            f"PUT /v1/sessions/{session}/files/huge HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {broker.token}\r\nContent-Length: {1 << 40}\r\n"
            "Expect: 100-continue\r\n\r\n"
        )
        raw.sendall(head.encode())
        with raw.makefile("rb") as answer:
            assert answer.readline().split()[1] == b"507"
            assert b'"quota"' in answer.read()


def test_a_sparse_file_is_read_where_it_is_asked_for(broker: RunningBroker, session: str) -> None:
    size = 100 * MIB
    execute(broker, session, f"f = open('f', 'wb'); f.truncate({size})")
    answer = files(broker, "GET", session, "f", None, {"Range": f"bytes={size - 3}-"})
    assert (answer.status, answer.text) == (206, "\0\0\0")


async def test_the_files_of_a_session_whose_kernel_is_on_its_way_are_waited_for(
    broker: RunningBroker,
) -> None:
    name = new_name()
    async with attached(broker, name) as peer:
        assert files(broker, "PUT", name, "f", "first").status == 201
        assert await peer.value("open('f').read()") == "'first'"


def test_without_a_sandbox_files_are_there_too_even_after_the_broker(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> None:
    directory = short_dir()
    plain = ("--isolation", "none", "--warm", "1")
    with start_broker(directory, *plain) as first:
        execute(first, "s", "1")
        assert files(first, "PUT", "s", "a/b", "one").status == 201
        assert value_of(first, "s", "open('a/b').read()") == "'one'"
        first.process.kill()
        first.process.wait()
    with start_broker(directory, *plain) as second:
        assert files(second, "GET", "s", "a/b").text == "one"
        assert value_of(second, "s", "open('a/b', 'w').write('two')") == "3"
        assert files(second, "GET", "s", "a/b").text == "two"
        assert call(second, "DELETE", "/v1/sessions/s").status == 200
    assert not list(directory.rglob("b"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_users_broker_serves_files_too(short_dir: Callable[[], Path]) -> None:
    directory, uid = short_dir(), uid_of_worker(os.environ.get("PYTEST_XDIST_WORKER", ""))
    os.chown(directory, uid, uid)
    ready = directory / "ready.json"
    serve = [str(BROKER), "serve", "--isolation", "standard", "--port", "0", "--warm", "1"]
    serve += ["--state-dir", str(directory / "state"), "--ready-file", str(ready)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    with subprocess.Popen(
        command_as(uid, serve), stdout=subprocess.PIPE, text=True, env=clean
    ) as process:
        try:
            assert process.stdout is not None
            assert any("http://" in line for line in process.stdout), "it did not start"
            told = json.loads(ready.read_text())
            mine = Holder(told["url"], told["token"])
            execute(mine, "s", "1")
            assert files(mine, "PUT", "s", "d/f", "x").status == 201
            assert value_of(mine, "s", "open('d/f', 'a').write('y'), open('d/g', 'w')") is not None
            assert files(mine, "GET", "s", "d/f").text == "xy"
            where = "/v1/sessions/s/files/d?recursive=true"
            assert call(mine, "DELETE", where).body["removed"] is True
            assert value_of(mine, "s", "import os; os.path.exists('d')") == "False"
        finally:
            process.terminate()
            process.wait(20)


def test_a_half_upload_leaves_nothing(broker: RunningBroker, session: str) -> None:
    parts = urlsplit(broker.url)
    with socket.create_connection((parts.hostname, parts.port)) as raw:
        head = (
            f"PUT /v1/sessions/{session}/files/half HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {broker.token}\r\nContent-Length: 100000\r\n\r\n"
        )
        raw.sendall(head.encode() + b"x" * 50_000)
        listing = "sorted(n for n in __import__('os').listdir() if 'half' in n or 'part' in n)"
        while (seen := value_of(broker, session, listing)) == "[]":
            pass
        assert seen is not None
        assert "'half'" not in seen
        assert files(broker, "GET", session, "half").status == 404
        shown = call(broker, "GET", f"/v1/sessions/{session}/files").text
        assert "part" not in shown
    while value_of(broker, session, listing) != "[]":
        pass


def test_a_file_that_shrinks_meanwhile_is_not_sent_as_whole(
    broker: RunningBroker, session: str
) -> None:
    execute(broker, session, "f = open('f', 'wb'); f.truncate(64 << 20)")
    parts = urlsplit(broker.url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)
    headers = {"Authorization": f"Bearer {broker.token}"}
    connection.request("GET", f"/v1/sessions/{session}/files/f", headers=headers)
    response = connection.getresponse()
    assert response.length == 64 << 20
    execute(broker, session, "f.truncate(10)")
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        response.read()
    connection.close()
    execute(broker, session, "f.truncate(0); f.write(b'x' * 100); f.flush()")
    assert files(broker, "GET", session, "f").text == "x" * 100


async def test_a_file_is_sent_and_taken_while_a_cell_runs(
    broker: RunningBroker, session: str
) -> None:
    async with attached(broker, session) as peer:
        await peer.send({"type": "execute", "id": "x", "code": gate()})
        await peer.until("stream")
        assert files(broker, "PUT", session, "f", "meanwhile").status == 201
        assert files(broker, "GET", session, "f").text == "meanwhile"
        open_gate(row_of(broker, session)["pid"])
        assert (await peer.until("done"))["status"] == "ok"


def test_hundreds_of_megabytes_pass_through_in_little_memory(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> None:
    with start_broker(short_dir(), "--warm", "1", BROKER_PROFILES_PYTHON_WORKSPACE="1G") as broker:
        execute(broker, "big", "1")
        block, count = os.urandom(MIB), 300
        whole = hashlib.sha256(block * count).hexdigest()
        parts = urlsplit(broker.url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
        headers = {"Authorization": f"Bearer {broker.token}", "Content-Length": str(count * MIB)}
        with PeakMemory(broker.pid) as memory:
            blocks: Iterator[bytes] = (block for _ in range(count))
            connection.request("PUT", "/v1/sessions/big/files/f", blocks, headers)
            assert json.loads(connection.getresponse().read())["size"] == count * MIB
            connection.request(
                "GET", "/v1/sessions/big/files/f", headers=headers | {"Content-Length": "0"}
            )
            response, digest = connection.getresponse(), hashlib.sha256()
            while data := response.read(MIB):
                digest.update(data)
        connection.close()
        assert digest.hexdigest() == whole
        assert memory.grown < 64
