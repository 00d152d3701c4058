"""What is served of the console, and under which policy."""

from __future__ import annotations

import base64
import gzip
import json
import re
from types import SimpleNamespace

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from broker.app import Running, _announce
from broker.web.console import DIRECTORY, FILES, HEADERS, POLICY
from tests.faces.console.conftest import fetched, made_token
from tests.system.conftest import RunningBroker

pytestmark = pytest.mark.timeout(900)  # the browser may have to be installed first


def test_the_table_names_every_file_of_the_console() -> None:
    assert {path.name for path in DIRECTORY.iterdir()} == set(FILES)


def test_no_file_of_the_console_is_large_or_has_script_in_its_markup() -> None:
    for path in DIRECTORY.iterdir():
        lines = path.read_text().splitlines()
        assert len(lines) <= 400, path.name
        if path.suffix == ".js":
            assert [line for line in lines if len(line) > 100] == [], path.name
    page = (DIRECTORY / "index.html").read_text()
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", page)
    for path in DIRECTORY.glob("*.js"):
        found = re.findall(
            r"\b(?:innerHTML|outerHTML|insertAdjacentHTML)\s*[+=(]|eval\(", path.read_text()
        )
        assert not found, path.name


@pytest.mark.row("GET /", "GET /console/{file}")
def test_files_come_under_a_policy_and_from_the_cache(
    broker: RunningBroker,
) -> None:
    for path in ("/console/main.js", "/console/page.css"):
        status, headers, body = fetched(broker, path)
        assert status == 200
        assert "unsafe" not in POLICY
        for name, value in HEADERS.items():
            assert headers[name] == value
        assert headers["X-Content-Type-Options"] == "nosniff"
        packed = fetched(broker, path, Accept_Encoding="gzip")
        assert packed[1]["Content-Encoding"] == "gzip"
        assert gzip.decompress(packed[2]) == body
        assert fetched(broker, path, If_None_Match=headers["ETag"])[0] == 304


@pytest.mark.parametrize("path", ["/", "/console/index.html"])
def test_each_page_has_a_nonce_of_its_own_and_is_kept_nowhere(
    broker: RunningBroker, path: str
) -> None:
    nonces = set()
    for _ in range(2):
        status, headers, body = fetched(broker, path)
        assert status == 200
        [nonce] = re.findall(rb' nonce="([\w-]{22})"', body)
        nonces.add(nonce)
        own = {
            "Content-Security-Policy": POLICY.replace(
                "style-src 'self'", f"style-src 'self' 'nonce-{nonce.decode()}'"
            ),
            "Cache-Control": "no-store",
        }
        for name, value in (HEADERS | own).items():
            assert headers[name] == value
        assert "ETag" not in headers
    assert len(nonces) == 2


@pytest.mark.parametrize("name", ["app.py", "..%2Fapp.py", "..", "index.html%00", "main.js%2F.."])
def test_nothing_else_is_a_file_of_the_console(broker: RunningBroker, name: str) -> None:
    assert fetched(broker, f"/console/{name}")[0] == 404


@pytest.mark.row("GET /v1/me")
def test_a_token_is_told_what_it_opens(broker: RunningBroker) -> None:
    token = made_token(broker, scopes=["watch"], session="one")
    told = json.loads(fetched(broker, "/v1/me", Authorization=f"Bearer {token}")[2])
    assert (told["scopes"], told["session"], told["operator"]) == (["watch"], "one", False)
    assert json.loads(fetched(broker, "/v1/me", Authorization=f"Bearer {broker.token}")[2])[
        "operator"
    ]
    assert fetched(broker, "/v1/me")[0] == 401


def test_a_token_that_is_offered_as_a_subprotocol_opens_and_is_not_said_again(
    broker: RunningBroker,
) -> None:
    address = f"{broker.url.replace('http', 'ws', 1)}/v1/sessions/offered/ws"
    packed = base64.urlsafe_b64encode(broker.token.encode()).decode().rstrip("=")
    with connect(
        address, subprotocols=[Subprotocol("broker.v1.json"), Subprotocol(f"broker.token.{packed}")]
    ) as socket:
        assert socket.subprotocol == "broker.v1.json"
        assert socket.response is not None
        assert packed not in str(socket.response.headers)
        assert json.loads(socket.recv(timeout=10))["type"] == "session"
    for wrong in ("broker.token.d3Jvbmc", "broker.token.!", "broker.v1.msgpack"):
        with pytest.raises(InvalidStatus) as refused:
            connect(address, subprotocols=[Subprotocol("broker.v1.json"), Subprotocol(wrong)])
        assert refused.value.response.status_code == 401


@pytest.mark.parametrize(("token", "told"), [("a+b/c", "/#token=a%2Bb%2Fc"), ("", "/")])
def test_the_address_at_the_start_has_the_token_where_that_is_printed(
    capsys: pytest.CaptureFixture[str], token: str, told: str
) -> None:
    running = Running("http://h:1", "kept", "full", SimpleNamespace(pools={}), None)  # type: ignore[arg-type]
    _announce(running, token)
    printed = capsys.readouterr().out
    assert f"  open   http://h:1{told}\n" in printed
    assert "kept" not in printed
