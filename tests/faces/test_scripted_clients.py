"""Programs that talk to a Jupyter server with code of their own, word for word as they talk."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from tests.faces.places import broker, in_path, place, short_dir
from tests.jupyter.messages import V1, from_v1_frame, v1_frame
from tests.jupyter.rest import TIMEOUT, Answer, Place, asked

__all__ = ["broker", "place", "short_dir"]

pytestmark = [pytest.mark.faces, pytest.mark.timeout(300)]

NOTHING: dict[str, str] = {}


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[ClientConnection]:
    async with (
        asyncio.timeout(TIMEOUT),
        connect(url.replace("http", "ws", 1), proxy=None, **options) as socket,
    ):
        yield socket


async def open_webui(place: Place, code: str) -> dict[str, str]:
    """Run code as Open WebUI's interpreter does: a kernel for each, an empty date, `?token=`."""
    query = f"?token={place.token}"
    made = await asked(place, "POST", f"/api/kernels{query}", headers=NOTHING)
    made.raise_for_status()
    kernel = made.body["id"]
    told = {"stdout": "", "stderr": "", "result": ""}
    try:
        url = f"{place.url}/api/kernels/{kernel}/channels{query}"
        async with connected(url) as socket:
            message_id = uuid.uuid4().hex
            header = {
                "msg_id": message_id,
                "msg_type": "execute_request",
                "username": "user",
                "session": uuid.uuid4().hex,
                "date": "",
                "version": "5.3",
            }
            content = {
                "code": code,
                "silent": False,
                "store_history": True,
                "user_expressions": {},
                "allow_stdin": False,
                "stop_on_error": True,
            }
            message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
            await socket.send(json.dumps(message | {"channel": "shell"}))
            while True:
                came = json.loads(await socket.recv())
                if came.get("parent_header", {}).get("msg_id") != message_id:
                    continue
                content = came["content"]
                match came.get("msg_type"):
                    case "stream":
                        told[content["name"]] += content["text"]
                    case "execute_result" | "display_data":
                        data = content["data"]
                        told["result"] += data.get("image/png", data.get("text/plain", ""))
                    case "error":
                        told["stderr"] += "\n".join(content["traceback"])
                    case "status" if content["execution_state"] == "idle":
                        return told
    finally:
        gone = await asked(place, "DELETE", f"/api/kernels/{kernel}{query}", headers=NOTHING)
        gone.raise_for_status()


async def test_open_webui_runs_each_snippet_in_a_kernel_of_its_own(place: Place) -> None:
    told = await open_webui(place, "import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7")
    assert told == {"stdout": "out\n", "stderr": "err\n", "result": "42"}
    assert "NameError" in (await open_webui(place, "sys"))["stderr"]
    drawn = await open_webui(place, "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()")
    assert drawn["result"].startswith("iVBOR"), drawn


class OpenHands:
    """OpenHands' execute server: no token, no session, no date, and buffers that are a mapping."""

    def __init__(self, place: Place, kernel: str, socket: ClientConnection) -> None:
        self.place = place
        self.kernel = kernel
        self.socket = socket

    async def execute(self, code: str) -> str:
        """Return all that was shown until the reply: what came behind it would be lost."""
        message_id = uuid.uuid4().hex
        header = {"username": "", "version": "5.0", "session": ""}
        header |= {"msg_id": message_id, "msg_type": "execute_request"}
        content = {"code": code, "silent": False, "store_history": False}
        content |= {"user_expressions": {}, "allow_stdin": False}
        message = {"header": header, "parent_header": {}, "channel": "shell", "content": content}
        await self.socket.send(json.dumps(message | {"metadata": {}, "buffers": {}}))
        shown = ""
        while True:
            came = json.loads(await self.socket.recv())
            if came["parent_header"].get("msg_id", None) != message_id:
                continue
            kind, content = came["msg_type"], came["content"]
            if kind == "error":
                return shown + "\n".join(content["traceback"])
            if kind == "stream":
                shown += content["text"]
            elif kind in ("execute_result", "display_data"):
                shown += content["data"]["text/plain"]
            elif kind == "execute_reply":
                return shown

    async def interrupt(self) -> None:
        path = f"/api/kernels/{self.kernel}/interrupt"
        body = {"kernel_id": self.kernel}
        (await asked(self.place, "POST", path, body, headers=NOTHING)).raise_for_status()


@asynccontextmanager
async def open_hands(place: Place) -> AsyncIterator[OpenHands]:
    made = await asked(place, "POST", "/api/kernels", {"name": "python"}, headers=NOTHING)
    made.raise_for_status()
    kernel = made.body["id"]
    try:
        url = f"{place.url}/api/kernels/{quote(kernel)}/channels"
        async with connected(url, ping_interval=10) as socket:
            yield OpenHands(place, kernel, socket)
    finally:
        gone = await asked(place, "DELETE", f"/api/kernels/{kernel}", headers=NOTHING)
        gone.raise_for_status()


async def test_openhands_keeps_state_and_loses_no_output_to_an_early_reply(place: Place) -> None:
    async with open_hands(in_path(place)) as client:
        assert await client.execute("%colors nocolor") == ""
        assert await client.execute("x = 6") == ""
        for _ in range(10):
            shown = await client.execute("for n in range(500): print(n)\nx * 7")
            assert shown == "".join(f"{n}\n" for n in range(500)) + "42"
        assert "ZeroDivisionError" in await client.execute("1 / 0")
        assert await client.execute("x") == "6"  # so the cell that failed has ended
        running = asyncio.create_task(client.execute("while True: pass"))
        await until_busy(place, client.kernel)
        await client.interrupt()
        assert "KeyboardInterrupt" in await running
        assert await client.execute("x") == "6"


async def until_busy(place: Place, kernel: str) -> None:
    """Ask until the model says that a cell runs, as clients see it that have no socket."""
    async with asyncio.timeout(TIMEOUT):
        while (await asked(place, "GET", f"/api/kernels/{kernel}")).body[
            "execution_state"
        ] != "busy":
            pass


WEBVIEW = "vscode-webview://0pbvk2vsgm4q1dq5dbkj1k0n2s9c1j3bmf0e6s5p6q6u4e9o8i7h"


async def vs_code(place: Place, method: str, path: str, body: object = None) -> Answer:
    """Make a request as VS Code does: the token in the header, and a webview's origin."""
    headers = {"Authorization": f"token {place.token}", "Content-Type": "application/json"}
    return await asked(place, method, path, body, headers=headers | {"Origin": WEBVIEW})


async def test_vs_code_finds_its_way_from_the_address_to_a_live_kernel(place: Place) -> None:
    # Whether there is a password: both are missing where there is none.
    assert (await vs_code(place, "GET", "/")).status == 404
    assert (await vs_code(place, "GET", "/tree?")).status == 404
    for listing in ("/api/kernels", "/api/sessions"):
        assert isinstance((await vs_code(place, "GET", listing)).body, list)
    specs = (await vs_code(place, "GET", "/api/kernelspecs")).body
    assert specs["default"] in specs["kernelspecs"]
    async with vs_code_notebook(place, specs["default"]) as (path, live):
        async with in_vs_code(place, live) as notebook:
            assert await notebook.run("x = 41\nx + 1") == "42"
        renamed = await vs_code(place, "PATCH", path, {"path": "work/b.ipynb", "name": "b.ipynb"})
        assert renamed.body["kernel"]["id"] == live
        # Who opens the list of running kernels finds it there, and connects by its id.
        listed = {one["id"] for one in (await vs_code(place, "GET", "/api/kernels")).body}
        assert live in listed
        async with in_vs_code(place, live) as notebook:
            assert await notebook.run("x") == "41"
    assert (await vs_code(place, "GET", f"/api/kernels/{live}")).status == 404


async def test_vs_code_interrupts_and_restarts_a_kernel(place: Place) -> None:
    async with vs_code_notebook(place, "python3") as (_, live):
        client_id = str(uuid.uuid4())
        async with in_vs_code(place, live, client_id) as notebook:
            assert await notebook.run("x = 41") == ""
            running = await notebook.send("execute_request", execution("while True: pass"))
            await notebook.until(running, "execute_input")
            assert (await vs_code(place, "POST", f"/api/kernels/{live}/interrupt")).status == 204
            failed = await notebook.until(running, "execute_reply")
            assert failed["content"]["ename"] == "KeyboardInterrupt"
            assert await notebook.run("x") == "41"
            again = await vs_code(place, "POST", f"/api/kernels/{live}/restart")
            assert (again.status, again.body["id"]) == (200, live)
        # It connects anew after it, with the same session_id.
        async with in_vs_code(place, live, client_id) as notebook:
            assert await notebook.run("'x' in globals()") == "False"


async def test_a_page_of_another_origin_than_vs_codes_is_refused(place: Place) -> None:
    async with vs_code_notebook(place, "python3") as (_, live):
        for origin in ("https://vscode-webview.example", "null", "xvscode-webview://a"):
            with pytest.raises(InvalidStatus) as refused:
                async with in_vs_code(place, live, origin=origin):
                    pass
            assert refused.value.response.status_code == 403
            # What is asked over HTTP, a browser keeps from a page that no header names.
            headers = {"Authorization": f"token {place.token}", "Origin": origin}
            answer = await asked(place, "GET", "/api/kernels", headers=headers)
            assert "Access-Control-Allow-Origin" not in answer.headers
            preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            allowed = await asked(place, "OPTIONS", "/api/kernels", headers=preflight)
            assert allowed.status >= 400
            assert "Access-Control-Allow-Origin" not in allowed.headers


@asynccontextmanager
async def vs_code_notebook(place: Place, kernelspec: str) -> AsyncIterator[tuple[str, str]]:
    """Have a notebook's session; yield its path in the API and its kernel's id, then end it."""
    wanted = {"path": "work/a-jvsc-1.ipynb", "type": "notebook", "name": "a-jvsc-1.ipynb"}
    made = await vs_code(place, "POST", "/api/sessions", wanted | {"kernel": {"name": kernelspec}})
    assert made.status == 201, made.text
    path = f"/api/sessions/{made.body['id']}"
    try:
        yield path, made.body["kernel"]["id"]
    finally:
        assert (await vs_code(place, "DELETE", path)).status == 204


def execution(code: str) -> dict[str, Any]:
    content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}}
    return content | {"allow_stdin": True}


class InVSCode:
    """A kernel's connection in VS Code."""

    def __init__(self, socket: ClientConnection, session: str) -> None:
        self.socket = socket
        self.session = session

    async def send(self, kind: str, content: dict[str, Any]) -> str:
        """Send a request; return its id."""
        message_id = str(uuid.uuid4())
        header = {"msg_id": message_id, "msg_type": kind, "session": self.session}
        header |= {"date": "2020-01-01T00:00:00.000Z", "username": "", "version": "5.2"}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        await self.socket.send(v1_frame("shell", message | {"buffers": []}))
        return message_id

    async def until(self, asked_id: str, kind: str) -> dict[str, Any]:
        """Return the first message of a type that comes about a request."""
        while True:
            came = from_v1_frame(await self.socket.recv(decode=False))
            is_about = came["parent_header"].get("msg_id") == asked_id
            if is_about and came["header"]["msg_type"] == kind:
                return came

    async def done(self, asked_id: str, reply: str) -> str:
        """Wait for the reply and for idle; return the result's text."""
        told, result = set(), ""
        while told != {reply, "idle"}:
            came = from_v1_frame(await self.socket.recv(decode=False))
            if came["parent_header"].get("msg_id") == asked_id:
                told |= {came["header"]["msg_type"], came["content"].get("execution_state")}
                told &= {reply, "idle"}
                result += came["content"].get("data", {}).get("text/plain", "")
        return result

    async def run(self, code: str) -> str:
        """Run code; return the result's text."""
        return await self.done(await self.send("execute_request", execution(code)), "execute_reply")


@asynccontextmanager
async def in_vs_code(
    place: Place, kernel: str, client_id: str = "", origin: str = WEBVIEW
) -> AsyncIterator[InVSCode]:
    """Connect, and wait for `connected` and idle."""
    session = client_id or str(uuid.uuid4())
    url = f"{place.url}/api/kernels/{kernel}/channels?session_id={session}&token={place.token}"
    options: dict[str, Any] = {
        "additional_headers": {"Authorization": f"token {place.token}"},
        "subprotocols": [Subprotocol(V1)],
        "origin": Origin(origin),
    }
    async with connected(url, **options) as socket:
        assert socket.subprotocol == V1
        notebook = InVSCode(socket, session)
        info = await notebook.send("kernel_info_request", {})
        await notebook.done(info, "kernel_info_reply")
        yield notebook
