"""A profile of another Jupyter kernelspec: sessions on its kernels, shut in like our own."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from broker.jupyter.names import kernel_id
from tests.jupyter.messages import V1
from tests.jupyter.rest import face
from tests.jupyter.sockets import socket
from tests.system.conftest import RunningBroker, StartBroker
from tests.system.peer import attached, call, execute, row_of, value_of

SETTINGS = """
[profiles.python]
kernelspec = "stock"
warm = 1
workspace = "8MiB"
"""


@pytest.fixture(scope="module")
def begin(
    start_broker: StartBroker, short_dir: Callable[[], Path]
) -> Callable[[], AbstractContextManager[RunningBroker]]:
    """Return what starts a broker for the kernelspec, always on the same state."""
    directory = short_dir()
    folder = directory / "jupyter" / "kernels" / "stock"
    folder.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "stock", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    state = short_dir()
    (state / "broker.toml").write_text(SETTINGS)
    flags = ("--config", str(state / "broker.toml"))
    return lambda: start_broker(state, *flags, JUPYTER_PATH=str(directory / "jupyter"))


async def test_a_first_notebook_learns_what_a_busy_one_is(
    begin: Callable[[], AbstractContextManager[RunningBroker]],
) -> None:
    with begin() as broker:
        async with attached(broker, "busy") as chat:
            cell = "print('up', flush=True); import time; time.sleep(600)"
            await chat.send({"type": "execute", "id": "c", "code": cell})
            await chat.until("stream")
            async with socket(face(broker), kernel_id("default", "busy"), V1, "me") as notebook:
                info = await notebook.send("shell", "kernel_info_request", {})
                told = (await notebook.done(info))["content"]
                assert (told["status"], told["implementation"]) == ("ok", "ipython")
                assert row_of(broker, "busy")["state"] == "busy"
        assert call(broker, "DELETE", "/v1/sessions/busy").status < 300


def test_its_sessions_are_shut_in_and_outlive_the_broker_and_their_kernels(
    begin: Callable[[], AbstractContextManager[RunningBroker]],
) -> None:
    with begin() as first:
        assert value_of(first, "a", "__import__('os').getuid()") == "1000"
        assert value_of(first, "a", "(x := open('kept', 'w').write('text'))") == "4"
        for action, body, field in (
            ("execute", {"code": "print(1)", "inputs": {"a": 1}}, "inputs"),
            ("execute", {"code": "print(1)", "cwd": "/"}, "cwd"),
            ("call", {"function": "len", "args": [[]]}, "function"),
        ):
            refused = call(first, "POST", f"/v1/sessions/a/{action}", body)
            assert (refused.status, refused.error["field"]) == (400, field)
            assert "of another kernelspec" in refused.error["message"]
        full = execute(first, "a", "open('big', 'wb').write(bytes(64 << 20))")
        assert "No space left" in full["error"]["message"]
        os.kill(first.pid, signal.SIGKILL)
        first.process.wait(20)
    with begin() as second:
        assert value_of(second, "a", "x") == "4"
        lost = execute(second, "a", "import os; os._exit(3)")
        assert (lost["done"]["status"], lost["done"]["reason"]) == ("lost", "exit 3")
        after = execute(second, "a", "open('kept').read()")
        assert (after["result"]["text/plain"], after["generation"]) == ("'text'", 2)
