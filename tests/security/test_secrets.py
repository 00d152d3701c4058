"""The access token and the kernels' keys are nowhere but where they must be."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import redis

from tests.system.conftest import RunningBroker, broker_process, short_dir
from tests.system.peer import ask_until, attached, call, execute, new_name, row_of

__all__ = ["short_dir"]

TOKEN = "token-of-this-test-0123456789abcdef"


@pytest.fixture(scope="module")
def guarded(short_dir: Callable[[], Path]) -> Iterator[RunningBroker]:
    """One broker whose token came by its environment, with everything logged."""
    directory = short_dir()
    flags = ["--log-level", "debug", "--warm", "1", "--preload", "json"]
    running: AbstractContextManager[RunningBroker] = broker_process(
        directory, *flags, BROKER_TOKEN=TOKEN
    )
    with running as broker:
        yield broker


def secrets_of(broker: RunningBroker, *kernels: str) -> list[str]:
    """Return everything that must not be seen: the token, the root secret, the kernels' keys."""
    root = (broker.state_dir / "secret").read_bytes()
    keys = [hmac.digest(root, kernel.encode(), hashlib.sha256).hex() for kernel in kernels]
    assert broker.token == TOKEN
    return [TOKEN, root.hex(), *keys]


def assert_none_in(text: str, secrets: list[str], where: str) -> None:
    for secret in secrets:
        assert secret not in text, f"a secret is in {where}"


def ask_everything(broker: RunningBroker, session: str) -> list[str]:
    """Make requests that go well and requests that go wrong; return every answer."""
    texts = []
    for method, path in (
        ("GET", "/v1/sessions"),
        ("GET", f"/v1/sessions/{session}"),
        ("GET", "/v1/pools?memory=true"),
        ("GET", "/v1/nodes"),
        ("GET", "/metrics"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/v1/nothing"),
        ("PUT", "/v1/sessions"),
        ("GET", "/v1/sessions/a%20b"),
        ("GET", "/v1/sessions/%ff"),
        ("DELETE", "/v1/sessions/absent"),
        ("POST", f"/v1/sessions/{session}/interrupt"),
        ("POST", f"/v1/sessions/{session}/execute"),
        ("GET", f"/v1/sessions/{session}/ws"),
        ("GET", f"/v1/sessions/{session}/ws?after=x"),
    ):
        separator = "&" if "?" in path else "?"
        for asked in (path, f"{path}{separator}token={TOKEN}"):
            answer = call(broker, method, asked)
            texts.append(f"{answer.headers}{answer.text}")
        wrong = f"{TOKEN[:-1]}x"
        answer = call(broker, method, f"{path}{separator}token={TOKEN}", Authorization=wrong)
        texts.append(f"{answer.headers}{answer.text}")
    return texts


def send_nonsense(broker: RunningBroker) -> str:
    """Send what is no HTTP, with the token in it."""
    parts = urlsplit(broker.url)
    texts = []
    for request in (
        f"GET /?token={TOKEN}\r\n\r\n",
        f"GET / HTTP/1.1\r\nAuthorization Bearer {TOKEN}\r\n\r\n",
        f"GET /v1/sessions?token={TOKEN} HTTP/9\r\n\r\n",
    ):
        with socket.create_connection((str(parts.hostname), parts.port), timeout=10) as peer:
            peer.sendall(request.encode())
            peer.shutdown(socket.SHUT_WR)
            while data := peer.recv(65536):
                texts.append(data.decode(errors="replace"))
    return "".join(texts)


async def test_no_answer_and_no_log_shows_a_secret(guarded: RunningBroker) -> None:
    session = new_name()
    async with attached(guarded, session) as peer:
        await peer.run("1 / 0")
        for frame in ("no", json.dumps({"type": "execute", "id": "a", "token": TOKEN})):
            await peer.send(frame)
            await peer.until("fault")
        secrets = secrets_of(guarded, row_of(guarded, session)["kernel"])
        for text in ask_everything(guarded, session):
            assert_none_in(text, secrets, f"the answer {text[:200]}")
        assert_none_in(json.dumps(peer.events), secrets, "an event")
    send_nonsense(guarded)
    ended = guarded.cli("run", "-s", session, "import os; os._exit(3)")
    assert_none_in(ended.stdout + ended.stderr, secrets, "the command line's words")
    assert_none_in(guarded.log, secrets, "the log")
    logs = [path for path in guarded.state_dir.rglob("*.log") if path.is_file()]
    assert logs
    for path in logs:
        assert_none_in(path.read_text(errors="replace"), secrets, path.name)


def test_no_key_and_no_value_of_the_store_holds_a_secret(guarded: RunningBroker) -> None:
    session = new_name()
    execute(guarded, session, "x = 20")
    secrets = secrets_of(guarded, row_of(guarded, session)["kernel"])
    socket_path = str(guarded.state_dir / "valkey.sock")
    with redis.Redis(unix_socket_path=socket_path, decode_responses=True) as store:
        keys = list(store.scan_iter())
        assert any(session in key for key in keys)
        for key in keys:
            kind = store.type(key)
            value = {
                "hash": store.hgetall,
                "string": store.get,
                "set": store.smembers,
                "list": lambda name: store.lrange(name, 0, -1),
                "zset": lambda name: store.zrange(name, 0, -1, withscores=True),
            }[str(kind)](key)
            assert_none_in(f"{key} {value}", secrets, key)
    for path in (guarded.state_dir / "valkey").rglob("*"):
        if path.is_file():
            assert_none_in(path.read_bytes().decode("latin-1"), secrets, path.name)


def test_a_kernel_sees_no_secret_in_its_environment_or_arguments(guarded: RunningBroker) -> None:
    session = new_name()
    code = (
        "import os, glob\n"
        "print(dict(os.environ))\n"
        "for name in ('environ', 'cmdline'):\n"
        "    print(open(f'/proc/self/{name}', 'rb').read())\n"
        "print(sorted(os.listdir('.')), os.getcwd())"
    )
    told = execute(guarded, session, code)["stdout"]
    secrets = secrets_of(guarded, row_of(guarded, session)["kernel"])
    assert_none_in(told, secrets, "what a kernel sees")
    assert "BROKER_" not in told


def test_no_process_of_the_broker_shows_a_secret_in_its_arguments(guarded: RunningBroker) -> None:
    session = new_name()
    execute(guarded, session, "x = 20")
    row = row_of(guarded, session)
    secrets = secrets_of(guarded, row["kernel"])
    zygote = call(guarded, "GET", "/v1/pools").body["zygotes"][0]["pid"]
    children = [child.pid for child in psutil.Process(guarded.pid).children(recursive=True)]
    for pid in (guarded.pid, zygote, row["pid"], *children):
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        assert_none_in(arguments, secrets, f"the arguments {arguments}")
        if pid != guarded.pid:
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
            assert_none_in(environment, secrets, f"the environment of {arguments}")


def test_files_with_secrets_are_their_owners_alone(guarded: RunningBroker) -> None:
    held = []
    for path in guarded.state_dir.rglob("*"):
        if path.is_file() and any(
            secret in path.read_bytes().decode("latin-1") for secret in secrets_of(guarded)
        ):
            held.append(path.name)
            assert path.stat().st_mode & 0o077 == 0, path
    assert set(held) <= {"server.json", "ready.json", "token"}
    assert (guarded.state_dir / "secret").stat().st_mode & 0o077 == 0
    assert guarded.state_dir.stat().st_mode & 0o077 == 0
    assert os.stat(guarded.state_dir / "server.json").st_uid == os.geteuid()


def test_what_was_given_as_a_secret_is_in_no_transcript(guarded: RunningBroker) -> None:
    session, given = new_name(), {"OPEN_TOKEN": "opened-with-this", "ONE_PASSWORD": "for-one-cell"}
    opened = {"env": {"OPEN_TOKEN": given["OPEN_TOKEN"], "TZ": "Europe/Berlin"}}
    assert call(guarded, "POST", f"/v1/sessions/{session}", opened).status in (200, 201)
    code = (
        "import os\nfrom IPython.display import HTML, display\n"
        f"held = '{given['OPEN_TOKEN']}', os.environ.get('ONE_PASSWORD'), os.environ['TZ']\n"
        "print(held); display(HTML(f'<b>{held}</b>')); held"
    )
    env = {"ONE_PASSWORD": given["ONE_PASSWORD"]}
    path = f"/v1/sessions/{session}/execute"
    live = call(guarded, "POST", path, {"code": code, "env": env}).text
    failed = call(guarded, "POST", path, {"code": "raise ValueError(held)"}).text
    notebook = call(guarded, "GET", f"/v1/sessions/{session}/notebook").text
    for name, secret in given.items():
        assert secret in live
        assert secret in failed
        assert_none_in(notebook, [secret], "the notebook")
        assert f"[redacted {name}]" in notebook
        assert_none_in(guarded.log, [secret], "the log")
        for answer in ask_everything(guarded, session):
            assert_none_in(answer, [secret], "an answer")
    assert "Europe/Berlin" in notebook
    with redis.Redis(unix_socket_path=str(guarded.state_dir / "valkey.sock")) as store:

        def cells() -> list[bytes]:
            [key] = store.scan_iter(f"*:transcript:*{session}*") or [b""]
            return store.lrange(key, 0, -1)

        ask_until(lambda: any(store.scan_iter(f"*:transcript:*{session}*")), "cells written")
        ask_until(lambda: len(cells()) == 2, "both cells written")
        assert_none_in(str(cells()), [*given.values()], "the store")
