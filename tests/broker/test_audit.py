"""The audit: a line for each event, bounded, on a file of its owner's, never in anybody's way."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import audit as module
from broker.audit import LINE_MOST, REFUSALS, Audit, AuditFile, audit_of
from broker.config import load
from broker.errors import StateDirError
from broker.principal import Principal

WHO = Principal("acme", token_id="0123456789abcdef")


class Lines:
    """What would be in the file."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def add(self, line: bytes) -> None:
        self.lines.append(line)

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def made(**options: Any) -> tuple[Audit, Lines, Clock]:
    lines, clock = Lines(), Clock()
    return Audit(lines, clock=clock, **options), lines, clock  # type: ignore[arg-type]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_says_who_did_what_from_where_and_when() -> None:
    audit, lines, _ = made()
    audit.record("killed", WHO, "10.0.0.9", session="s1", reason=None)
    assert lines.told == [
        {
            "at": 1000.0,
            "event": "killed",
            "tenant": "acme",
            "token": "0123456789abcdef",
            "ip": "10.0.0.9",
            "session": "s1",
        }
    ]


def test_code_is_told_by_its_digest_unless_it_is_wanted() -> None:
    text = "password = 'x'"
    told = made()[0].code(text)
    assert told == {"sha256": hashlib.sha256(text.encode()).hexdigest(), "size": len(text)}
    assert made(code=True)[0].code(text)["code"] == text
    assert made()[0].code("\ud800")["size"] == 3


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.text(max_size=3000)), st.text())
@settings(max_examples=150)
def test_a_line_is_one_line_and_has_a_bound_whatever_is_in_it(
    more: dict[str, str], text: str
) -> None:
    audit, lines, _ = made(code=True)
    audit.record("executed", WHO, "10.0.0.9", session="s1", **more, **audit.code(text * 3000))
    [line] = lines.lines
    assert len(line) <= LINE_MOST + 1
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert lines.told[0]["session"] == "s1"


def test_refusals_have_a_bound_in_each_second_and_the_rest_are_counted() -> None:
    audit, lines, clock = made()
    for _ in range(REFUSALS + 7):
        audit.refused(None, "10.0.0.9", status=401)
    assert len(lines.lines) == REFUSALS
    clock.now += 1
    audit.refused(None, "10.0.0.9", status=401)
    assert lines.told[-1]["untold"] == 7
    audit.refused(None, "10.0.0.9", status=401)
    assert "untold" not in lines.told[-1]


def test_the_same_look_is_noted_once_in_a_while_and_another_at_once() -> None:
    audit, lines, clock = made()
    for path in ("/a", "/a", "/b", "/a"):
        audit.looked("read", WHO, "10.0.0.9", path=path)
    audit.looked("read", Principal("acme", token_id="another"), "10.0.0.9", path="/a")
    assert [line["path"] for line in lines.told] == ["/a", "/b", "/a"]
    clock.now += module.LOOK_AGAIN
    audit.looked("read", WHO, "10.0.0.9", path="/a")
    assert len(lines.lines) == 4


def test_so_many_looks_are_remembered_and_what_is_forgotten_is_noted_again() -> None:
    audit, lines, _ = made()
    for path in (*range(module.LOOKS + 1), module.LOOKS, 0):
        audit.looked("read", WHO, "10.0.0.9", path=str(path))
    assert len(lines.lines) == module.LOOKS + 2
    assert lines.told[-1]["path"] == "0"


def test_without_a_place_to_go_nothing_is_noted() -> None:
    audit = audit_of(load().config.audit)
    assert not audit.on
    audit.record("killed", WHO)


def test_the_log_has_the_line_where_it_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "broker.audit"):
        audit_of(load("[audit]\nlog = true").config.audit).record("killed", WHO)
        audit_of(load().config.audit).record("closed", WHO)
    [line] = [record.getMessage() for record in caplog.records]
    assert json.loads(line)["event"] == "killed"


async def test_the_file_is_appended_to_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_text('{"event": "earlier"}\n')
    path.chmod(0o644)
    file = AuditFile(path)
    for at in range(3):
        file.add(b'{"event": "%d"}\n' % at)
    await file.aclose()
    file.add(b"late\n")
    assert [line["event"] for line in read(path)] == ["earlier", "0", "1", "2"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_lines_come_without_being_waited_for(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit.log")
    file.add(b'{"event": "one"}\n')
    begun = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(module.GATHER, begun.set_result, None)
    await begun  # after the timer of the file's own, which has as long
    if file._writing is not None:
        await file._writing
    assert [line["event"] for line in read(tmp_path / "audit.log")] == ["one"]
    await file.aclose()


@pytest.mark.parametrize("how", ["rename", "unlink"])
async def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path, how: str) -> None:
    path, old = tmp_path / "audit.log", tmp_path / "audit.log.1"
    file = AuditFile(path)
    file._write_now(b'{"event": "one"}\n')
    path.rename(old) if how == "rename" else path.unlink()
    file._write_now(b'{"event": "two"}\n')
    await file.aclose()
    assert [line["event"] for line in read(path)] == ["two"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    if how == "rename":
        assert [line["event"] for line in read(old)] == ["one"]


async def test_a_file_that_cannot_be_begun_anew_costs_lines_and_nobody_elses_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "audit.log"
    file = AuditFile(path)
    path.unlink()
    path.mkdir()
    others = []
    for _ in range(2):
        file._write_now(b'{"event": "one"}\n')
        others.append(os.open(tmp_path, os.O_RDONLY))  # gets the lowest number that is free
    for other in others:
        os.fstat(other)
        os.close(other)
    path.rmdir()
    file.add(b'{"event": "two"}\n')
    await file.aclose()
    await file.aclose()
    assert [line["event"] for line in read(path)] == ["two", "lost"]


async def test_what_cannot_be_written_is_lost_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PENDING_MOST", 40)
    path = tmp_path / "audit.log"
    file = AuditFile(path)
    for _ in range(5):
        file.add(b'{"event": "one"}\n')
    await file.aclose()
    told = read(path)
    assert [line["event"] for line in told] == ["one", "one", "lost"]
    assert told[-1]["lines"] == 3


@pytest.mark.parametrize("kind", ["directory", "link", "nowhere"])
def test_a_place_that_cannot_be_written_is_named_at_the_start(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "audit.log"
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path = tmp_path / "none" / "audit.log"
    with pytest.raises(StateDirError, match=r"audit\.file: .* name another file"):
        AuditFile(path)
