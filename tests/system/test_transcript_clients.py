"""Questions and transcripts by the Python clients and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest

from broker.client import AsyncBroker, Broker, KernelBusy, UnknownSession
from tests.system.conftest import RunningBroker
from tests.system.peer import execute, new_name

STUCK = "import time\nclass S:\n    def __repr__(self): time.sleep(30)\ns = [S()]\nt = S()"


def test_a_session_answers_its_client(broker: RunningBroker) -> None:
    client, name = Broker(broker.url, broker.token), new_name()
    with client.session(name) as session:
        session.execute("chapter_one = [1, 2]")
        assert session.complete("chapter_")["matches"] == ["chapter_one"]
        assert session.complete("chapter_ + 1", 8)["cursor_end"] == 8
        assert session.inspect("chapter_one")["found"]
        assert session.variables()["variables"][0]["preview"] == "[1, 2]"
        assert session.variables(["nope"])["missing"] == ["nope"]
        assert session.history(1)["cells"][0]["code"] == "chapter_one = [1, 2]"
        nbformat.validate(nbformat.from_dict(session.notebook()))
    assert client.variables(name)["variables"][0]["name"] == "chapter_one"
    assert client.notebook(name)["cells"][0]["source"] == "chapter_one = [1, 2]"


async def test_a_session_answers_its_asyncio_client(broker: RunningBroker) -> None:
    client, name = AsyncBroker(broker.url, broker.token), new_name()
    async with client.session(name) as session:
        await session.execute("chapter_one = [1, 2]")
        assert (await session.complete("chapter_"))["matches"] == ["chapter_one"]
        assert (await session.inspect("chapter_one"))["found"]
        assert (await session.variables())["variables"][0]["preview"] == "[1, 2]"
        assert len((await session.history())["cells"]) == 1
        nbformat.validate(nbformat.from_dict(await session.notebook()))
    assert (await client.variables(name))["variables"][0]["name"] == "chapter_one"
    assert (await client.notebook(name))["cells"][0]["source"] == "chapter_one = [1, 2]"


def test_a_busy_kernel_is_an_error_of_its_own(broker: RunningBroker) -> None:
    with Broker(broker.url, broker.token).session(new_name()) as session:
        session.execute("import re\nclass S:\n    def __repr__(self):\n"
                        "        re.match('(a+)+$', 'a' * 32 + 'b')\ns = S()")  # fmt: skip
        with pytest.raises(KernelBusy) as refused:
            session.variables()
        assert refused.value.retry_after


def test_export_writes_a_notebook(broker: RunningBroker, tmp_path: Path) -> None:
    name = new_name()
    execute(broker, name, "print('a')")
    told = broker.cli("export", name)
    assert told.returncode == 0, told.stderr
    nbformat.validate(nbformat.reads(told.stdout, as_version=4))
    path = tmp_path / "chat.ipynb"
    assert broker.cli("export", name, "-o", str(path)).returncode == 0
    assert path.read_text() == told.stdout
    assert broker.cli("export", new_name()).returncode == 1


def test_vars_lists_what_a_session_holds(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "n = 5; words = ['a', 'b']")
    told = broker.cli("vars", name)
    assert told.stdout.split() == [
        "NAME",
        "TYPE",
        "SIZE",
        "VALUE",
        "n",
        "int",
        "5",
        *("words", "list", "2", "['a',", "'b']"),
    ]
    told = broker.cli("vars", name, "n", "nope", "--json")
    assert json.loads(told.stdout)["missing"] == ["nope"]
    assert broker.cli("vars", name, "nope").returncode == 1
    assert broker.cli("vars", new_name()).returncode == 1


def test_unknown_sessions_have_neither(broker: RunningBroker) -> None:
    client = Broker(broker.url, broker.token)
    with pytest.raises(UnknownSession):
        client.notebook(new_name())
    with pytest.raises(UnknownSession):
        client.variables(new_name())
