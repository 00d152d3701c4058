"""Notebooks from anywhere, and whether what a cell shows is what it showed."""

from __future__ import annotations

import base64
import json
import time
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.cli.cells import Cell, NotANotebook, Recording, read, read_file
from broker.cli.compare import DIFF, Verdict, judge, steady
from broker.cli.markup import plain_of, text_of
from broker.cli.screen import calm
from broker.client.result import image_bytes
from broker.notebook import notebook

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x02\0\0\0\x03rest"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)


def mostly(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(value, value, value, JSON)


OUTPUT = st.fixed_dictionaries(
    {"output_type": mostly(st.sampled_from(["stream", "error", "execute_result", "display_data"]))},
    optional={
        "name": mostly(st.sampled_from(["stdout", "stderr"])),
        "text": mostly(st.text() | st.lists(st.text(), max_size=3)),
        "ename": JSON,
        "evalue": JSON,
        "traceback": mostly(st.lists(st.text(), max_size=3)),
        "data": mostly(
            st.dictionaries(
                st.sampled_from(["text/plain", "text/html", "image/png", "image/gif", "a/b+json"]),
                JSON,
            )
        ),
        "metadata": JSON,
    },
)
CELL = st.fixed_dictionaries(
    {"cell_type": mostly(st.sampled_from(["code", "markdown"])), "source": mostly(st.text())},
    optional={
        "outputs": mostly(st.lists(mostly(OUTPUT), max_size=3)),
        "execution_count": JSON,
        "metadata": mostly(st.fixed_dictionaries({"broker": JSON})),
    },
)
NOTEBOOK = st.fixed_dictionaries(
    {"nbformat": mostly(st.just(4))}, optional={"cells": mostly(st.lists(mostly(CELL), max_size=4))}
)


@given(mostly(NOTEBOOK))
@settings(max_examples=300)
def test_of_whatever_a_file_holds_there_are_cells_or_one_error(made: Any) -> None:
    cells: list[Cell] = []
    with suppress(NotANotebook):
        cells = read(made)
    for cell in cells:
        json.dumps(cell.told())
        assert judge(cell, cell.outputs, "ok").kind in ("same", "new")
        judge(cell, [], "error", "why")
        judge(Cell(""), cell.outputs, "ok")


@given(st.binary(max_size=200))
def test_bytes_that_are_no_notebook_are_one_error(content: bytes) -> None:
    with NamedTemporaryFile(suffix=".ipynb") as file:
        file.write(content)
        file.flush()
        with pytest.raises(NotANotebook):
            read_file(Path(file.name))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"[" * 200_000, "deep"),
        (b"1" * 10_000, "no JSON"),
        (b'{"nbformat": 3, "worksheets": []}', "nbconvert"),
        (b'{"nbformat": 4}', "cells"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code"}]}', "cell 1: source"),
        (
            b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": "", "outputs": [{}]}]}',
            "cell 1: no output",
        ),
        (b'{"nbformat": 4, "cells": [' + b",".join([b"1"] * 10_001) + b"]}", "at most 10,000"),
    ],
    ids=["deep", "digits", "version", "empty", "source", "output", "many"],
)
def test_what_is_wrong_with_a_file_is_told(content: bytes, word: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    path.write_bytes(content)
    with pytest.raises(NotANotebook, match=word):
        read_file(path)


def test_a_file_over_the_bound_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(NotANotebook, match="over 64 MB"):
        read_file(path)


def text(words: str, name: str = "stdout") -> dict[str, Any]:
    return {"type": "stream", "name": name, "text": words}


def result(**forms: Any) -> dict[str, Any]:
    return {"type": "result", "data": {form.replace("_", "/"): v for form, v in forms.items()}}


WARNING = text("e", "stderr")
AS_TEXT, WIDER = base64.b64encode(PNG + b"x").decode(), PNG.replace(b"\x02", b"\x04")
ERROR = {"type": "error", "name": "E", "message": "no", "traceback": []}


@pytest.mark.parametrize(
    ("before", "now", "status", "kind"),
    [
        ([text("a")], [text("a")], "ok", "same"),
        ([text("a\n"), text("b\n")], [text("a\nb\n")], "ok", "same"),
        ([text("a"), WARNING, text("b")], [text("ab"), WARNING], "ok", "same"),
        ([text("a")], [text("b")], "ok", "different"),
        ([text("a")], [], "ok", "different"),
        ([text("a")], [text("a", "stderr")], "ok", "different"),
        ([result(text_plain="<f at 0x7fab>")], [result(text_plain="<f at 0x7fcd>")], "ok", "same"),
        ([text("Wall time: 1.2 s")], [text("Wall time: 340 ms")], "ok", "same"),
        ([text("1min 3s in all")], [text("59.1 s in all")], "ok", "same"),
        ([text("5 sheep")], [text("6 sheep")], "ok", "different"),
        ([text("\x1b[31mred\x1b[0m")], [text("red")], "ok", "same"),
        ([text("0%\r50%\r100%\n")], [text("100%\n")], "ok", "same"),
        ([ERROR], [ERROR], "error", "same"),
        ([ERROR], [{**ERROR, "message": "yes"}], "error", "different"),
        ([ERROR], [], "ok", "different"),
        ([text("a")], [text("a"), ERROR], "error", "error"),
        ([ERROR], [], "timeout", "error"),
        ([ERROR], [], "lost", "error"),
        ([result(image_png=PNG)], [result(image_png=AS_TEXT)], "ok", "same"),
        ([result(image_png=PNG)], [result(image_png=WIDER)], "ok", "different"),
        ([result(image_png=PNG)], [result(text_plain="Figure")], "ok", "different"),
        ([result(image_png="ünreadable")], [result(image_png="")], "ok", "same"),
        ([result(text_html="<b>")], [result(text_html="<b>")], "ok", "same"),
        ([result(text_html="<b>")], [result(text_html="<i>")], "ok", "different"),
    ],
)  # fmt: skip
def test_a_cell_is_the_same_different_or_an_error(
    before: list[Any], now: list[Any], status: str, kind: str
) -> None:
    assert judge(Cell("x", tuple(before), count=1), now, status).kind == kind


def test_what_was_never_run_is_new() -> None:
    assert judge(Cell("x"), [text("a")], "ok").kind == "new"
    assert judge(Cell("x", count=1), [text("a")], "ok").kind == "different"
    assert judge(Cell("x"), [ERROR], "error").kind == "new"


def test_of_a_cell_that_never_ran_its_failure_is_told_and_no_difference() -> None:
    never = Cell("1 / 0")
    assert judge(never, [], "ok") == Verdict("new")
    for status in ("error", "timeout", "lost"):
        assert judge(never, [], status, "why") == Verdict("new", ("why",))
        assert judge(Cell("1 / 0", count=1), [], status, "why") == Verdict("error", ("why",))


def gapped(head: str, tail: str, *more: dict[str, Any]) -> Cell:
    """Return a cell whose text is as a transcript keeps a long one."""
    done = {"type": "done", "status": "ok", "execution_count": 1}
    outputs = [text(head), {"type": "left_out", "size": 900, "file": ".outputs/1.txt"}, text(tail)]
    cell = {"code": "x", "count": 1, "left_out": 900, "outputs": [*outputs, *more], **done}
    made = notebook([cell], session="s", kernelspec="python3", language="python")
    return read(made)[0]


def test_of_a_long_text_the_first_and_the_last_lines_are_compared() -> None:
    lines = "".join(f"line {number}\n" for number in range(1000))
    cell = gapped(lines[:900], lines[-900:])
    assert judge(cell, [text(lines)], "ok").kind == "same"
    for odd in (lines.replace("line 3\n", "line X\n"), lines.replace("line 998\n", "line X\n")):
        verdict = judge(cell, [text(odd)], "ok")
        assert verdict.kind == "different"
        assert "+line X" in verdict.diff
    assert judge(cell, [text(lines.replace("line 500\n", "line X\n"))], "ok").kind == "same"
    assert judge(cell, [text("line 0\n")], "ok").kind == "different"
    assert judge(cell, [], "ok").kind == "different"
    whole = "x" * 5000
    assert judge(gapped(whole[:900], whole[:900]), [text(whole)], "ok").kind == "same"


def test_behind_a_long_text_an_error_is_compared_as_well() -> None:
    lines = "".join(f"line {number}\n" for number in range(1000))
    error = {"type": "error", "name": "E", "message": "no", "traceback": []}
    cell = gapped(lines[:900], lines[-900:], error)
    assert judge(cell, [text(lines), error], "error").kind == "same"
    assert judge(cell, [text(lines)], "ok").kind == "different"
    other = error | {"message": "another"}
    assert judge(cell, [text(lines), other], "error").kind == "different"


def test_of_a_cell_that_was_cut_the_beginning_is_compared() -> None:
    note = "\n[900 more of this cell's output and code were not kept]\n"
    cut = Cell("x", (text("a" * 100), text(note, "stderr")), count=1, left_out=900)
    assert judge(cut, [text("a" * 1000)], "ok").kind == "same"
    assert judge(cut, [text("b" * 1000)], "ok").kind == "different"


def test_a_difference_is_told_from_where_it_begins_and_is_bounded() -> None:
    before = "\n".join(map(str, range(100_000)))
    now = "\n".join(str(n + (n > 50_000)) for n in range(100_000))
    begun = time.monotonic()
    verdict = judge(Cell("x", (text(before),), count=1), [text(now + "x" * 10**6)], "ok")
    assert time.monotonic() - begun < 10
    assert [line for line in verdict.diff[2:] if line[0] in "+-…"] == ["-50001", "…"]
    assert len(verdict.diff) <= DIFF + 1
    assert max(map(len, verdict.diff)) < 1000


@pytest.mark.parametrize(
    "piece", ["1,", "1", "1 ", "/", "\x1b[", "1min ", "0x1", "[1", "\n[1,", "1e"]
)
def test_no_text_takes_long_to_compare(piece: str) -> None:
    begun = time.process_time()  # of ours: what else the machine does is nothing to it
    steady(piece * (200_000 // len(piece)))
    assert time.process_time() - begun < 5


def test_the_outputs_of_a_cell_that_runs_are_those_that_stay() -> None:
    recording = Recording()
    shown = {"type": "display", "data": {"text/plain": "0%"}, "display_id": "d"}
    for event in (
        text("gone"),
        {"type": "clear", "wait": True},
        text("a"),
        text("b"),
        shown,
        {**shown, "update": True, "data": {"text/plain": "100%", "image/png": b"x"}},
        {**shown, "update": True, "display_id": "other"},
        {"type": "queued", "position": 1},
    ):
        recording.take(event)
    assert list(recording.outputs()) == [
        text("ab"),
        {"type": "display", "data": {"text/plain": "100%", "image/png": "eA=="}},
    ]


@given(st.text())
def test_nothing_that_is_calm_acts_on_a_terminal(words: str) -> None:
    told = calm(words)
    assert calm(told) == told
    assert "\x1b" not in told.replace("\x1b[", "")
    told.encode()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("a\tb\r\nc", "a\tb\r\nc"),
        ("\x1b[1;31mred\x1b[0m\x1b[K", "\x1b[1;31mred\x1b[0m\x1b[K"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x1b[2J\x1b[1;1H", "\\x1b[2J\\x1b[1;1H"),
        ("\x1b]52;c;aGk=\x1b\\", "\\x1b]52;c;aGk=\\x1b\\"),
        ("\x9b31m\u202e", "\\x9b31m\\u202e"),
        ("\x00\x0e", "\\x00\\x0e"),
    ],
)
def test_what_acts_on_a_terminal_is_written_out(words: str, told: str) -> None:
    assert calm(words) == told


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"text/plain": "a", "text/html": "<b>b</b>"}, "a"),
        (
            {
                "text/plain": "<IPython.core.display.HTML object>",
                "text/html": "<h1>A&amp;B</h1><script>no</script>"
                "<table><tr><th>x</th><td>1</td></tr><tr><th>y</th><td>2</td></tr></table>",
            },
            "A&B\nx  1\ny  2",
        ),
        ({"text/plain": "<IPython.core.display.Markdown object>", "text/markdown": "*a*"}, "*a*"),
        ({"text/html": "<p>a<p>b"}, "a\nb"),
        ({"text/html": "<img src=x>", "text/plain": "<IPython.core.display.HTML object>"}, "<IPy"),
        ({"application/x": 1}, None),
    ],
)
def test_a_display_is_shown_as_text(data: dict[str, Any], told: str | None) -> None:
    assert (plain_of(data) or "").startswith(told or "")
    assert (plain_of(data) is None) is (told is None)


@given(st.text(alphabet=st.sampled_from("<>/&;#!-ab td=\"'[]?")))
def test_no_html_is_too_odd_for_text(html: str) -> None:
    text_of(html)


@pytest.mark.parametrize("piece", ["<", "<a ", "<!--", "</", "<script>", "<td", "&#9", "&", " "])
def test_no_html_takes_long_to_read(piece: str) -> None:
    begun = time.monotonic()
    text_of(piece + piece[-1] * 10_000)
    text_of(piece * (1_000_000 // len(piece)))
    assert time.monotonic() - begun < 5


def test_an_image_that_is_no_text_of_base64_is_none() -> None:
    assert image_bytes("ü") is None
