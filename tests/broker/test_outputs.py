"""What a kernel shows, as clients get it: short errors, files by name, bytes as bytes."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.outputs import BINARY, error_event, rich, truncation
from kernels.inside import publish


@pytest.mark.parametrize(
    ("content", "short"),
    [
        (
            {"ename": "ZeroDivisionError", "evalue": "division by zero", "line": 3},
            "ZeroDivisionError: division by zero, cell line 3",
        ),
        ({"ename": "E", "evalue": "e"}, "E: e"),  # of another language's kernel
        ({"ename": "E", "evalue": "", "line": 1}, "E, cell line 1"),
        ({"ename": "E", "evalue": "\n\n  one\ntwo", "line": 1}, "E: one, cell line 1"),
        ({"ename": "E", "evalue": "x" * 500}, f"E: {'x' * 200}…"),
        ({"ename": "E", "evalue": "\x1b[31mred\x1b[0m", "line": 2}, "E: red, cell line 2"),
        *(
            ({"ename": "E", "evalue": "e", "line": line}, "E: e")
            for line in (None, 0, -1, True, "3", 1.5, 10**9, [3])
        ),
        ({}, ""),
    ],
)
def test_an_error_has_a_short_form(content: dict[str, Any], short: str) -> None:
    assert error_event("e", content)["short"] == short


@given(st.text(), st.text(), st.integers() | st.text() | st.none())
def test_the_short_form_is_one_bounded_line(name: str, message: str, line: object) -> None:
    short = error_event("e", {"ename": name, "evalue": message, "line": line})["short"]
    assert len(short.splitlines()) <= 1
    assert len(short) < 500


@pytest.mark.parametrize(
    "file", [".outputs/1.txt", ".outputs/1-2.txt", "a", "a/b/c.txt", "..a", "a..", "é" * 255, "..."]
)
def test_the_file_of_what_was_left_out_is_told(file: str) -> None:
    assert truncation({"total": 9, "file": file}, 5, 5) == {"shown": 5, "total": 9, "file": file}


@pytest.mark.parametrize(
    "file",
    ["", "/etc/passwd", "..", "../a", "a/../b", "a/..", ".", "./a", "a/./b", "a//b", "a/",
     "x" * 256, "a\0b", "a\nb", "a\\b", "a\n", None, 3, ["a"], {"a": 1}, True],
)  # fmt: skip
def test_what_is_no_plain_relative_path_is_not_told(file: object) -> None:
    assert truncation({"total": 9, "file": file}, 5, 5) == {"shown": 5, "total": 9}


def test_a_file_of_text_that_was_all_shown_is_not_told() -> None:
    assert truncation({"total": 5, "file": "a"}, 5, 5) is None


BYTES = ["image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "audio/wav",
         "audio/mpeg", "video/mp4", "application/pdf", "application/octet-stream"]  # fmt: skip
TEXTS = ["image/svg+xml", "text/plain", "text/html", "application/json", "application/javascript",
         "application/vnd.plotly.v1+json", "application/vnd.vegalite.v5+json", "application/pdfs",
         "audio", "x-audio/wav", "image/", ""]  # fmt: skip


@pytest.mark.parametrize("mime", BYTES)
def test_a_binary_mime_types_values_become_bytes(mime: str) -> None:
    assert rich({mime: base64.b64encode(b"\0\xff").decode()}) == {mime: b"\0\xff"}
    assert publish.is_binary_type(mime)
    assert publish.is_binary([b"{}", f'{{"data":{{"{mime}":"AP8="}}}}'.encode()])


@pytest.mark.parametrize("mime", TEXTS)
def test_any_other_stays_as_it_is(mime: str) -> None:
    for value in ("AP8=", {"a": [1]}, [1, None], 3):
        assert rich({mime: value}) == {mime: value}
    assert not publish.is_binary_type(mime)
    assert not publish.is_binary([b"{}", f'{{"data":{{"{mime}":"AP8="}}}}'.encode()])


def test_a_kernel_and_the_broker_agree_on_what_is_binary() -> None:
    assert BINARY == publish.BINARY
