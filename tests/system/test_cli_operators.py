"""The operators' commands against a running broker: ls, kill, interrupt, inspect and top."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from broker.client import Broker, UnknownSession
from tests.system.conftest import BROKER, RunningBroker
from tests.system.peer import ask_until, attached, call, execute, gate, new_name, row_of
from tests.system.test_tokens import made
from tests.terminal import broker_on_terminal

BURN = "print('up', flush=True)\nwhile True: pass"
LEAN = """
[profiles.python]
preload = []
warm = 1
[profiles.other]
preload = []
warm = 0
"""


@pytest.fixture(scope="module")
def lean(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> Iterator[RunningBroker]:
    directory = short_dir()
    (directory / "broker.toml").write_text(LEAN)
    audit = {"BROKER_AUDIT_FILE": str(directory / "audit.log")}
    with start_broker(directory, "--config", str(directory / "broker.toml"), **audit) as running:
        yield running


@pytest.fixture
def broker(lean: RunningBroker) -> Iterator[RunningBroker]:
    yield lean
    client = Broker(lean.url, lean.token)
    for row in client.sessions(tenant="*"):
        with contextlib.suppress(UnknownSession):
            client.kill(row["session"], tenant=row["tenant"])


def shown(broker: RunningBroker, *flags: str) -> list[str]:
    """Return the first words of what `broker ls` shows."""
    return [line.split()[0] for line in broker.cli("ls", *flags).stdout.splitlines()[1:]]


async def test_ls_shows_the_sessions_that_every_filter_lets_through(
    broker: RunningBroker,
) -> None:
    quiet, other, busy = new_name("quiet"), new_name("other"), new_name("busy")
    acme, theirs = made(broker, tenant="acme"), new_name("theirs")
    execute(broker, quiet, "1")
    call(broker, "POST", f"/v1/sessions/{other}", {"profile": "other"})
    execute(acme, theirs, "1")
    node = row_of(broker, quiet)["node"]
    async with attached(broker, busy) as peer:
        await peer.send({"type": "execute", "id": "b", "code": gate()})
        await peer.until("stream")
        assert shown(broker, "--state", "busy") == [busy]
        assert shown(broker, "--profile", "other") == [other]
        assert shown(broker, "--node", node, "--sort", "name") == sorted([quiet, other, busy])
        assert shown(broker, "--tenant", "acme") == [theirs]
        assert shown(broker, "--sort", "cell")[0] == busy
        table = broker.cli("ls", "--tenant", "*").stdout
        assert "TENANT" in table.splitlines()[0]
        assert re.search(rf"{theirs} +acme +ready", table)
        rows = json.loads(broker.cli("ls", "--json", "--state", "busy").stdout)["sessions"]
        assert [row["cell"]["id"] for row in rows] == ["b"]
        nobody = broker.cli("ls", "--node", "elsewhere", "--state", "busy")
        assert (nobody.stdout, "no sessions with --node --state" in nobody.stderr) == ("", True)
        broker.cli("interrupt", busy)
        await peer.until("done", id="b")


def test_the_reason_of_a_kill_reaches_the_next_client_and_the_audit(
    broker: RunningBroker,
) -> None:
    name = new_name()
    execute(broker, name, "1")
    killed = broker.cli("kill", name, "--reason", "over budget: see ticket 7")
    assert (killed.returncode, killed.stdout) == (0, f"{name}: generation 1 ended\n")
    told = broker.cli("run", "-s", name, "1")
    assert told.stderr == "broker: generation 2, state lost: over budget: see ticket 7\n"

    def noted() -> bool:
        lines = broker.audited
        mine = [one for one in lines if one.get("session") == name and one["event"] == "ended"]
        return [one["reason"] for one in mine] == ["over budget: see ticket 7"]

    ask_until(noted, "the reason in the audit")


def test_kill_ends_what_its_filters_let_through_and_nothing_else(broker: RunningBroker) -> None:
    names = sorted(new_name() for _ in range(3))
    for name in names[:2]:
        execute(broker, name, "1")
    call(broker, "POST", f"/v1/sessions/{names[2]}", {"profile": "other"})
    execute(broker, names[2], "1")
    assert broker.cli("kill", "--state", "ready", "--idle", "1h").stderr == "no session to end\n"
    told = json.loads(broker.cli("kill", "--profile", "other", "--state", "ready", "--json").stdout)
    assert [row["session"] for row in told["killed"]] == [names[2]]
    assert sorted(shown(broker)) == names[:2]
    for wrong in (["--all", "--idle", "1m"], [names[0], "--state", "ready"], []):
        assert broker.cli("kill", *wrong).returncode == 2
    assert broker.cli("kill", "--all", "-y").returncode == 0
    assert shown(broker) == []


def test_the_operator_ends_the_sessions_of_all_tenants(broker: RunningBroker) -> None:
    acme, name = made(broker, tenant="acme"), new_name()
    execute(acme, name, "1")
    execute(broker, name, "1")
    named = broker.cli("kill", name, "--tenant", "*")
    assert (named.returncode, "--tenant" in named.stderr) == (2, True)
    killed = broker.cli("kill", "--all", "--tenant", "*", "-y")
    assert killed.stdout == f"{name}: generation 1 ended\n" * 2


def test_a_kill_by_filter_asks_first_on_a_terminal(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "1")
    with broker_on_terminal(broker, "kill", "--idle", "1ms") as screen:
        screen.until_match(rf"End 1 session: {name}\?")
        screen.press("n\r")
        assert screen.end() == 1
    assert shown(broker) == [name]
    with broker_on_terminal(broker, "kill", "--idle", "1ms") as screen:
        screen.until_match("End 1")
        screen.press("y\r")
        screen.until_match(f"{name}: generation 1 ended")
        assert screen.end() == 0


async def test_interrupt_stops_what_runs_and_keeps_the_variables(broker: RunningBroker) -> None:
    name, idle = new_name(), new_name()
    execute(broker, idle, "1")
    async with attached(broker, name) as peer:
        await peer.run("x = 42", id="first")
        await peer.send({"type": "execute", "id": "long", "code": gate()})
        await peer.until("stream")
        answer = broker.cli("interrupt", idle, name)
        assert (answer.returncode, answer.stdout) == (1, f"{name}: execution long interrupted\n")
        assert answer.stderr == f"broker: {idle}: nothing is running\n"
        assert (await peer.until("done", id="long"))["status"] == "interrupted"
    assert broker.cli("run", "-s", name, "x").stdout == "42\n"
    refused = json.loads(broker.cli("interrupt", name, "--json").stdout)
    assert refused["refused"][0]["code"] == "not_running"
    absent = broker.cli("interrupt", "absent")
    assert (absent.returncode, "absent" in absent.stderr) == (1, True)


async def test_inspect_shows_limits_use_generations_and_errors(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "never_made")
    broker.cli("kill", name, "--reason", "tidied")
    execute(broker, name, "1 / 0")
    async with attached(broker, name, mode="watch"), attached(broker, name) as peer:
        await peer.send({"type": "execute", "id": "cell-9", "code": gate()})
        await peer.until("stream")
        text = broker.cli("inspect", name).stdout
        broker.cli("interrupt", name)
        await peer.until("done", id="cell-9")
    for pattern in (
        rf"session +{name} of tenant default",
        r"state +busy, generation 2 \(before it: tidied\)",
        r"runs +cell-9 for \d+\.\ds",
        r"clients +1 run, 1 watch",
        r"memory +\d[\d.]* MB +1\.0 GB",
        r"workspace_bytes +[\d.]+ \w+ +256 MB",
        r" 1 +\d{4}-\d\d-\d\d [\d:]+ +[\d.]+s +tidied",
        r" 2 +\d{4}-\d\d-\d\d [\d:]+ +[\d.]+s +lives",
        r"NameError: name 'never_made' is not defined, cell line 1 +\S+ +\d+s",
        r"ZeroDivisionError: division by zero, cell line 1 +\S+ +\d+s",
    ):
        assert re.search(pattern, text), f"{pattern}\n{text}"
    assert json.loads(broker.cli("inspect", name, "--json").stdout)["session"] == name
    broker.cli("kill", name)
    ended = broker.cli("inspect", name).stdout
    assert "ZeroDivisionError: division by zero, cell line 1" in ended
    assert re.search(r"state +closed, generation 2: killed by operator", ended)
    assert "LIMIT" not in ended
    absent = broker.cli("inspect", "absent")
    assert (absent.returncode, "`broker ls` shows the sessions" in absent.stderr) == (1, True)


# top


def test_top_says_that_a_node_has_no_sessions(broker: RunningBroker) -> None:
    once = broker.cli("top", "--once")
    assert (once.returncode, once.stdout) == (0, "")
    assert once.stderr.startswith("no sessions on node ")
    assert json.loads(broker.cli("top", "--once", "--json").stdout)["sessions"] == []
    with broker_on_terminal(broker, "top") as screen:
        screen.until_match("no sessions on node ")
        screen.press("kiIcj/x\r\x1b")
        screen.press("q")
        assert screen.end() == 0


def test_top_without_a_terminal_says_what_to_add(broker: RunningBroker) -> None:
    answer = broker.cli("top")
    assert (answer.returncode, "--once" in answer.stderr) == (2, True)


async def test_top_tells_what_each_session_uses_once_and_for_programs(
    broker: RunningBroker,
) -> None:
    quiet, burning = new_name("a"), new_name("b")
    acme, theirs = made(broker, tenant="acme"), new_name("c")
    execute(broker, quiet, "1 / 0")
    execute(acme, theirs, "1")
    async with attached(broker, burning) as peer:
        await peer.send({"type": "execute", "id": "burn", "code": BURN})
        await peer.until("stream")
        text = broker.cli("top", "--once").stdout
        found = json.loads(broker.cli("top", "--once", "--json", "--sort", "name").stdout)
        broker.cli("interrupt", burning)
        await peer.until("done", id="burn")
    titles = text.splitlines()[0]
    assert titles.split("  ")[0] == "SESSION"
    assert all(word in titles for word in ("CPU %", "PSS", "USS", "CELL", "IDLE", "LAST ERROR"))
    first = text.splitlines()[1]
    assert re.match(rf"{burning} +default +busy +[\d.]+ .*\d\.\ds +- ", first), text
    assert re.search(rf"{quiet} .*ZeroDivisionError: division by zero, cell line 1", text)
    assert re.search(rf"{theirs} +acme ", text)
    rows = {row["session"]: row for row in found["sessions"]}
    assert [*rows] == [theirs, quiet, burning]  # by tenant, and then by name
    assert rows[burning]["cpu_percent"] > rows[quiet]["cpu_percent"] + 2
    assert all(row["pss"] >= row["uss"] > 0 for row in rows.values())
    assert rows[burning]["cell"]["id"] == "burn"


def test_top_shows_who_is_no_operator_the_own_sessions(
    broker: RunningBroker,
) -> None:
    acme, mine = made(broker, tenant="acme"), new_name("mine")
    execute(broker, new_name("theirs"), "1")
    execute(acme, mine, "1")
    answer = json.loads(broker.cli("top", "--once", "--json", "--token", acme.token).stdout)
    assert [(row["session"], row["pss"]) for row in answer["sessions"]] == [(mine, None)]


async def test_top_is_a_table_that_lives_and_obeys_its_keys(
    broker: RunningBroker,
) -> None:
    calm, busy = new_name("a-calm"), new_name("b-busy")
    execute(broker, calm, "x = 1")
    async with attached(broker, busy) as peer:
        await peer.send({"type": "execute", "id": "burn", "code": BURN})
        await peer.until("stream")
        with broker_on_terminal(broker, "top", "--interval", "200ms") as screen:
            screen.until_match(rf"2 sessions, 1 busy.*by CPU %[^$]*{busy} +default +busy +[\d.]+ ")
            screen.press("n")
            screen.until_match(rf"by name[^$]*{calm} [^$]*{busy} ")
            screen.press("n")
            screen.until_match(rf"by name, reversed[^$]*{busy} [^$]*{calm} ")
            for key, title in (("m", "memory"), ("u", "USS"), ("I", "idle"), ("t", "cell time")):
                screen.press(key)
                screen.until_match(f"by {title}")
            screen.press("/calm")
            screen.until_match("filter: calm_")
            screen.press("\r")
            screen.until_match(r"1 shown with 'calm'|'calm'")
            screen.until_match("select")
            assert busy not in screen.seen
            screen.press("\x1b")
            screen.until_match(busy)
            screen.press("n")
            screen.until_match(f"by name[^$]*{calm}[^$]*{busy}")
            screen.press("\x1b[H\x1b[B")
            screen.press("i")
            screen.until_match(f"{busy} interrupted")
            assert (await peer.until("done", id="burn"))["status"] == "interrupted"
            screen.press("\x1b[Ak")
            screen.until_match(f"end {calm} of tenant default, .* y/N")
            screen.press("n")
            screen.until_match(f"{calm} lives on")
            screen.press("ky")
            screen.until_match(f"{calm} ended")
            screen.until_match("1 session")
            screen.press("q")
            assert screen.end() == 0
    assert row_of(broker, calm)["reason"] == "killed by operator"
    assert execute(broker, busy, "1")["status"] == "ok"


def test_top_gives_the_terminal_back_as_it_was(broker: RunningBroker) -> None:
    execute(broker, new_name(), "1")
    for end in ("q", "\x03"):
        with broker_on_terminal(broker, "top") as screen:
            before = screen.settings()
            screen.until_match(r"[1-9]\d* sessions?")
            assert screen.settings() != before
            screen.press(end)
            assert screen.end() == 0
            assert screen.settings() == before


def test_top_says_that_the_broker_is_gone_and_goes_on(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> None:
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(start_broker(short_dir(), "--warm", "0", "--preload", ""))
        with broker_on_terminal(running, "top", "--interval", "200ms") as screen:
            screen.until_match("no sessions on node")
            stack.close()
            screen.until_match("no broker answers at .*; trying again")
            screen.press("q")
            assert screen.end() == 0


def test_top_tells_the_use_of_kernels_that_no_group_counts(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> None:
    flags = ("--isolation", "none", "--warm", "0", "--preload", "")
    with start_broker(short_dir(), *flags) as running:
        execute(running, "idle", "1")
        with broker_on_terminal(running, "run", "-s", "burning", BURN) as screen:
            screen.until_match("up")
            found = json.loads(running.cli("top", "--once", "--json").stdout)["sessions"]
            assert [row["session"] for row in found] == ["burning", "idle"]
            assert [row["usage"] for row in found] == [None, None]
            assert found[0]["cpu_percent"] > found[1]["cpu_percent"] + 2
            assert all(row["pss"] >= row["uss"] > 0 for row in found)


def test_an_output_that_cannot_be_written_is_told_in_one_line(broker: RunningBroker) -> None:
    for arguments in (["ls", "--json"], ["status", "--no-memory"], ["--help"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [str(BROKER), *arguments],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=60,
                env=os.environ | {"BROKER_URL": broker.url, "BROKER_TOKEN": broker.token},
                check=False,
            )
        assert (done.returncode, done.stderr) == (
            1,
            "broker: the output: No space left on device\n",
        )


def test_no_words_of_a_kernels_act_on_the_terminal(broker: RunningBroker) -> None:
    name = new_name()
    hostile = "\\x1b]52;c;aGk=\\x07\\x1b[2J"
    execute(broker, name, f"class Odd:\n    __qualname__ = '{hostile}'\na = '{hostile}'\nb = Odd()")
    execute(broker, name, f"raise ValueError('{hostile}')")
    told = {
        command: broker.cli(command, name).stdout for command in ("vars", "inspect", "logs")
    } | {"top": broker.cli("top", "--once").stdout}
    for command, said in told.items():
        assert name in said or command in ("vars", "logs"), said
        assert not {"\x1b", "\x07"} & set(said), command
    broker.cli("kill", name, "--reason", "a \x1b]0;t\x07 reason")
    execute(broker, name, "1")
    assert not {"\x1b", "\x07"} & set(broker.cli("ls").stdout)
