"""What a kernel says that it is, heard before it is anybody's."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from kernels.introductions import MOST, MOST_TEXTS, Introductions, heard, written
from kernels.launch import Launcher
from kernels.messages import Message
from tests.kernels.talk import launching, talking

REPLY = "kernel_info_reply"


def message(content: bytes, kind: str = REPLY) -> Message:
    return Message({"msg_type": kind}, {}, {}, content, ())


def test_what_is_no_answer_is_not_heard() -> None:
    good = b'{"status": "ok", "banner": "x"}'
    assert heard(message(good)) == good
    for bad in (b"", b"[]", b"{", b'{"status": "error"}', b"{}", good + b" " * MOST):
        assert heard(message(bad)) == b""
    assert heard(message(good, "execute_reply")) == b""


def test_what_costs_more_to_decode_than_its_bytes_suggest_is_not_heard() -> None:
    assert heard(message(b'{"status": "ok", "a": ' + b"[" * 2000 + b"]" * 2000 + b"}")) == b""


def test_equal_words_are_kept_once_and_long_ones_are_not() -> None:
    said = Introductions()
    one, same = said.keep(bytes(b"x" * 2000)), said.keep(b"".join([b"x" * 1000] * 2))
    assert one is same
    assert said.keep(b"x" * (MOST + 1)) == b""


def test_of_many_words_few_are_kept() -> None:
    said = Introductions()
    for number in range(10 * MOST_TEXTS):
        assert said.keep(str(number).encode()) == str(number).encode()
    assert repr(said) == f"<Introductions: {MOST_TEXTS} texts>"


def test_what_a_kernel_of_ours_tells_is_written_as_its_answer_would_be() -> None:
    assert orjson.loads(written({"banner": "é"})) == {"status": "ok", "banner": "é"}
    assert written(None) == written("x") == b""


@pytest.fixture
async def launcher(directory: Path, isolation: str) -> AsyncIterator[Launcher]:
    async with launching(directory, isolation) as it:
        yield it


async def test_a_kernel_is_known_before_it_is_asked(launcher: Launcher) -> None:
    async with talking(launcher) as one:
        said = json.loads(one.kernel.info)
        assert (said["status"], said["language_info"]["version"]) == (
            "ok",
            ".".join(map(str, sys.version_info[:3])),
        )
        reply = (await one.end(one.ask("kernel_info_request", {}, "control"))).reply
        assert reply is not None
        # Each time, another tip ends the banner.
        tips = [of.pop("banner").partition("Tip: ")[2] for of in (reply.content, said)]
        assert all(tips)
        assert reply.content == said
