"""`--tenant`: the operator debugs another tenant's session from anywhere, by command and client."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from broker.client import AsyncBroker, Broker, Forbidden, UnknownSession
from tests.system.conftest import BROKER, RunningBroker
from tests.system.peer import attached, call, execute, new_name, row_of
from tests.system.test_tokens import Holder, made
from tests.terminal import CTRL_C, CTRL_D, ENTER, broker_on_terminal

SESSION, FILE, BACK, NOTEBOOK = "SESSION", "FILE", "BACK", "NOTEBOOK"  # put in by the test
# What is asked about a session of acme's, and a word of what comes.
LINES = [
    (["run", "-s", SESSION, "x * 2"], "40"),
    (["run", "-s", SESSION, "--json", "x * 2"], "40"),
    (["vars", SESSION], "x"),
    (["logs", SESSION, "--full"], "the chat's own"),
    (["export", SESSION], "nbformat"),
    (["inspect", SESSION], "of tenant acme"),
    (["files", SESSION, "put", FILE, "sent.txt"], "sent.txt"),
    (["files", SESSION, "ls"], "sent.txt"),
    (["files", SESSION, "mv", "sent.txt", "there.txt"], ""),
    (["files", SESSION, "get", "there.txt", BACK], "there.txt"),
    (["files", SESSION, "rm", "there.txt"], ""),
    (["replay", NOTEBOOK, "-s", SESSION, "--into"], "1 same"),
    (["ls"], SESSION),
    (["interrupt", SESSION], "nothing is running"),
    (["kill", SESSION], "generation 1 ended"),
    (["logs", SESSION], "operator"),
]


@pytest.fixture
def name() -> str:
    return new_name()


@pytest.fixture
def acme(broker: RunningBroker, name: str) -> Holder:
    """The tenant whose chat went wrong; the operator has a session of the same name."""
    execute(broker, name, "x = 1")
    holder = made(broker, tenant="acme")
    execute(holder, name, 'x = 20; print("the chat\'s own")')
    return holder


def asked(
    place: RunningBroker | Holder, directory: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a command from a directory that knows of no broker."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("BROKER_")}
    return subprocess.run(
        [str(BROKER), *arguments, "--url", place.url, "--token", place.token],
        capture_output=True,
        text=True,
        timeout=60,
        env={**kept, "HOME": str(directory)},
        cwd=directory,
        check=False,
    )


def origins(holder: Holder, name: str) -> list[str | None]:
    made = call(holder, "GET", f"/v1/sessions/{name}/notebook").body
    return [cell["metadata"]["broker"].get("origin") for cell in made["cells"]]


def test_each_command_takes_the_tenant(
    broker: RunningBroker, tmp_path: Path, acme: Holder, name: str
) -> None:
    empty, file, back = tmp_path / "empty", tmp_path / "file", tmp_path / "back"
    empty.mkdir()
    file.write_text("sent")
    saved = tmp_path / "chat.ipynb"
    exported = asked(broker, empty, "export", name, "--tenant", "acme", "-o", str(saved))
    assert exported.returncode == 0, exported
    put = {SESSION: name, FILE: str(file), BACK: str(back), NOTEBOOK: str(saved)}
    for line, word in LINES:
        told = asked(broker, empty, *(put.get(one, one) for one in line), "--tenant", "acme")
        assert put.get(word, word) in told.stdout + told.stderr, told
        assert told.returncode == int(line[0] == "interrupt"), told
    assert back.read_text() == "sent"
    assert [*empty.iterdir()] == []
    assert execute(broker, name, "x")["result"]["text/plain"] == "1"
    assert call(broker, "GET", f"/v1/sessions/{name}/files").body["files"] == []
    assert origins(acme, name) == [None, *["operator"] * 3]


def test_the_tenant_may_stand_before_the_session_whose_files_are_meant(
    broker: RunningBroker, tmp_path: Path, acme: Holder, name: str
) -> None:
    execute(acme, name, "open('theirs.txt', 'w').close()")
    assert "theirs.txt" in asked(broker, tmp_path, "files", "--tenant", "acme", name, "ls").stdout


@pytest.mark.parametrize(
    "line",
    [
        ["run", "-s", "nobody", "1"],
        ["attach", "nobody", "--watch"],
        ["logs", "nobody", "-f"],
        ["export", "nobody"],
        ["vars", "nobody"],
        ["files", "nobody", "ls"],
    ],
)
def test_no_command_makes_anothers_session(
    broker: RunningBroker, tmp_path: Path, line: list[str]
) -> None:
    told = asked(broker, tmp_path, *line, "--tenant", "acme")
    assert (told.returncode, "no session 'nobody'" in told.stderr) == (1, True), told
    assert call(broker, "GET", "/v1/sessions/nobody?tenant=acme").status == 404


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["attach", "s", "--create"], "--create is for your own"),
        (["replay", "chat.ipynb", "-s", "s"], "--tenant needs --into"),
    ],
)
def test_what_would_make_it_is_refused_before_anything_is_asked(
    broker: RunningBroker, tmp_path: Path, line: list[str], words: str
) -> None:
    told = asked(broker, tmp_path, *line, "--tenant", "acme")
    assert (told.returncode, words in told.stderr) == (2, True), told


def test_whoever_is_not_the_operator_is_told_so(
    broker: RunningBroker, tmp_path: Path, acme: Holder, name: str
) -> None:
    beta = made(broker, "run", "admin", tenant="beta")
    for line in (["logs", name], ["run", "-s", name, "1"], ["files", name, "ls"]):
        told = asked(beta, tmp_path, *line, "--tenant", "acme")
        assert (told.returncode, "for the operator" in told.stderr) == (1, True), told
    assert asked(acme, tmp_path, "vars", name, "--tenant", "acme").returncode == 0


def test_who_ended_a_session_is_told_as_who_that_was(
    broker: RunningBroker, tmp_path: Path, acme: Holder, name: str
) -> None:
    whole = made(broker, "run", "admin", tenant="acme")
    for place, line, words in (
        (whole, ["kill", name], "killed by its owner"),
        (broker, ["kill", name, "--tenant", "acme"], "killed by operator"),
    ):
        execute(acme, name, "1")
        told = asked(place, tmp_path, *line)
        assert told.returncode == 0, told
        assert row_of(acme, name)["reason"] == words


def test_one_attaches_to_it_and_what_one_runs_is_marked(
    broker: RunningBroker, acme: Holder, name: str
) -> None:
    with broker_on_terminal(broker, "attach", name, "--tenant", "acme") as person:
        assert "the chat's own" in person.until("In [2]:")
        person.press(f"x + 1{ENTER}")
        person.until("\n21")
        execute(acme, name, "print('some', 'more')")
        person.until("some more")
        person.until("In [4]:")
        person.press(CTRL_D)
        assert person.end() == 0
    assert origins(acme, name) == [None, "operator", None]


@pytest.mark.parametrize("command", [["attach", "--watch"], ["logs", "-f"]])
def test_one_only_looks_on(
    broker: RunningBroker, acme: Holder, name: str, command: list[str]
) -> None:
    with broker_on_terminal(broker, *command, name, "--tenant", "acme") as person:
        person.until("the chat's own")
        execute(acme, name, "print('some', 'more')")
        person.until("some more")
        person.press(CTRL_C)
        person.end()
    assert origins(acme, name) == [None, None]


@pytest.mark.parametrize(
    ("line", "whole"),
    [
        (["broker", "attach", "--tenant", "acme", ""], "of-acme"),
        (["broker", "run", "--tenant", "acme", "-s", ""], "of-acme"),
        (["broker", "files", "--tenant", "acme", ""], "of-acme"),
        (["broker", "files", "--tenant", "acme", "of-acme", "get", ""], "theirs.txt"),
        (["broker", "files", "of-acme", "get", "--tenant", "acme", ""], "theirs.txt"),
        (["broker", "attach", ""], "of-default"),
    ],
)
def test_names_are_completed_from_the_tenant(
    broker: RunningBroker, line: list[str], whole: str
) -> None:
    execute(broker, "of-default", "1")
    execute(made(broker, tenant="acme"), "of-acme", "open('theirs.txt', 'w').close()")
    told = {
        "_BROKER_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(line),
        "COMP_CWORD": str(len(line) - 1),
        "BROKER_URL": broker.url,
        "BROKER_TOKEN": broker.token,
    }
    shown = subprocess.run(
        [str(BROKER)], capture_output=True, text=True, timeout=60, env=os.environ | told, check=True
    )
    names = {text.partition(",")[2] for text in shown.stdout.split("\n")}
    assert whole in names
    assert names & {"of-acme", "of-default"} <= {whole}


def test_the_client_takes_the_tenant(broker: RunningBroker, acme: Holder, name: str) -> None:
    client = Broker(broker.url, broker.token)
    with client.session(name, tenant="acme") as session:
        assert session.execute("x").value == "20"
        assert session.call(lambda: x) == 20  # type: ignore[name-defined]  # noqa: F821
        session.files.upload(b"sent", "a b.txt")
        assert session.files.read("a b.txt") == b"sent"
        assert [one.path for one in client.files(name, tenant="acme").list()] == ["a b.txt"]
        watch = session.watch()
        next(watch)
        execute(acme, name, "print('seen')")
        assert any(event.get("text") == "seen\n" for event in watch)
        watch.close()
        session.tools.serve(double)
        assert execute(acme, name, "double(n=21)")["result"]["text/plain"] == "42"
        assert session.notebook() == client.notebook(name, tenant="acme")
        assert session.restart()["generation"] == 2
    assert client.variables(name, tenant="acme")["variables"] == []
    assert client.describe(name)["generation"] == 1
    with pytest.raises(UnknownSession), client.session("nobody", tenant="acme"):
        pass
    other = Broker(broker.url, made(broker, tenant="beta").token)
    with pytest.raises(Forbidden), other.session(name, tenant="acme"):
        pass


async def test_so_does_its_twin(broker: RunningBroker, acme: Holder, name: str) -> None:
    client = AsyncBroker(broker.url, broker.token)
    async with client.session(name, tenant="acme") as session:
        assert (await session.execute("x")).value == "20"
        await session.files.upload(b"sent", "a.txt")
        assert [one.path for one in await client.files(name, tenant="acme").list()] == ["a.txt"]
        assert await session.notebook() == await client.notebook(name, tenant="acme")
    told = await client.variables(name, ["x"], tenant="acme")
    assert told["variables"][0]["preview"] == "20"


async def test_a_lost_connection_comes_back_to_the_same_tenants_session(
    broker: RunningBroker, acme: Holder, name: str
) -> None:
    async with AsyncBroker(broker.url, broker.token).session(name, tenant="acme") as session:
        assert (await session.execute("x")).value == "20"
        socket = session._line._socket
        assert socket is not None
        await socket.close()
        assert (await session.execute("x")).value == "20"


def double(n: int) -> int:
    """Twice."""
    return 2 * n


async def test_the_chat_sees_who_ran_it(broker: RunningBroker, acme: Holder, name: str) -> None:
    async with attached(acme, name) as chat:
        client = AsyncBroker(broker.url, broker.token)
        async with client.session(name, tenant="acme") as session:
            await session.execute("x", metadata={"origin": "attach"})
        assert (await chat.until("started"))["origin"] == "operator"
    assert (
        json.dumps(call(acme, "GET", f"/v1/sessions/{name}/notebook").body).count("operator") == 1
    )
