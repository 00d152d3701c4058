"""The access token of a state directory: one file, made once, readable by its owner alone."""

from __future__ import annotations

import base64
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.auth import MAX_TOKEN, load_or_make_token, presented_token
from broker.errors import StateDirError, Unauthorized

TOKEN = "a-token-of-more-than-16"


def test_a_token_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = load_or_make_token(path)
    assert re.fullmatch("[0-9a-f]{64}", token)  # some clients write addresses in small letters
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_make_token(path) == token
    assert load_or_make_token(tmp_path / "other") != token
    assert sorted(os.listdir(tmp_path)) == ["other", "token"]


def test_a_wide_umask_does_not_open_the_file(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        load_or_make_token(tmp_path / "token")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


def test_brokers_that_start_at_once_get_the_same_token(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        tokens = set(threads.map(load_or_make_token, [tmp_path / "token"] * 16))
    assert len(tokens) == 1
    assert os.listdir(tmp_path) == ["token"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o644, 0o601])
def test_a_token_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(mode)
    with pytest.raises(StateDirError, match=f"chmod 600 {path}") as caught:
        load_or_make_token(path)
    assert TOKEN not in caught.value.message


@pytest.mark.parametrize("text", ["", "\n", "short", "two words but long", "é" * 20, "x" * 2000])
def test_a_file_that_holds_no_token_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(StateDirError, match="holds no token"):
        load_or_make_token(path)
    assert path.read_text() == text


def test_a_token_written_by_hand_is_taken_without_its_line_end(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\r\n")
    path.chmod(0o400)
    assert load_or_make_token(path) == TOKEN


def test_a_place_that_cannot_hold_the_token_is_named_with_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "none" / "token", tmp_path / "directory", tmp_path / "file" / "token"):
        with pytest.raises(StateDirError, match="--state-dir") as caught:
            load_or_make_token(path)
        assert str(path) in caught.value.message


def test_a_file_system_that_takes_no_file_is_named() -> None:
    with pytest.raises(StateDirError, match="cannot be kept in /proc/token"):
        load_or_make_token(Path("/proc/token"))


@pytest.mark.parametrize(
    ("header", "query", "expected"),
    [
        ("Bearer abc", None, "abc"),
        ("bearer   abc ", None, "abc"),
        ("TOKEN abc", None, "abc"),
        ("token abc", "other", "abc"),
        (None, "abc", "abc"),
    ],
)
def test_a_token_is_presented_in_the_header_or_the_query(
    header: str | None, query: str | None, expected: str
) -> None:
    assert presented_token(header, query) == expected


def offered(token: str) -> list[str]:
    """Return what a browser offers as subprotocols."""
    packed = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    return ["broker.v1.json", f"broker.token.{packed}"]


@pytest.mark.parametrize("token", ["abc", "a-b_c.d~e", "kbt_0123456789?>/+"])
def test_a_token_may_be_offered_as_a_subprotocol(token: str) -> None:
    assert presented_token(None, None, offered(token)) == token
    assert presented_token(None, "query", offered(token)) == token
    assert presented_token("Bearer header", None, offered(token)) == "header"
    assert presented_token(None, "query", ["broker.v1.json"]) == "query"


@pytest.mark.parametrize("name", ["", "YQ==", "Y", "YWI+", "w6k", "YSBi", "é", "YWJj\n"])
def test_a_subprotocol_that_holds_no_token_is_told_so(name: str) -> None:
    with pytest.raises(Unauthorized, match="base64url") as caught:
        presented_token(None, "query", [f"broker.token.{name}"])
    assert not name or name not in caught.value.message


def test_a_token_in_a_subprotocol_has_the_same_bound() -> None:
    assert presented_token(None, None, offered("x" * MAX_TOKEN)) == "x" * MAX_TOKEN
    with pytest.raises(Unauthorized, match="longer than 8192"):
        presented_token(None, None, offered("x" * (MAX_TOKEN + 1)))


@pytest.mark.parametrize(
    ("header", "query"),
    [
        (None, None),
        (None, ""),
        ("", "abc"),
        ("abc", None),
        ("Bearer", "abc"),
        ("Bearer ", None),
        ("Bearer a b", None),
        ("Basic YTpi", "abc"),
        ("Bearer é", None),
    ],
)
def test_anything_else_is_told_how_to_present_one(header: str | None, query: str | None) -> None:
    with pytest.raises(Unauthorized, match="Authorization: Bearer <token>") as caught:
        presented_token(header, query)
    assert "abc" not in caught.value.message


@pytest.mark.parametrize("header", [None, "Bearer {}"])
def test_a_token_has_a_bound(header: str | None) -> None:
    for size in (MAX_TOKEN, MAX_TOKEN + 1):
        given = header.format("x" * size) if header else None
        if size > MAX_TOKEN:
            with pytest.raises(Unauthorized, match="longer than 8192"):
                presented_token(given, "x" * size)
        else:
            assert len(presented_token(given, "x" * size)) == size


@given(st.none() | st.text(max_size=30), st.none() | st.text(max_size=30))
@settings(max_examples=200)
def test_any_header_and_query_give_a_token_or_unauthorized(
    header: str | None, query: str | None
) -> None:
    try:
        token = presented_token(header, query)
    except Unauthorized:
        return
    assert token
    assert token in (header or query or "")
