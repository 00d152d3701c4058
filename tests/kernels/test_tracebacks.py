"""What a kernel tells of an error: the cell's line that it came from, and no frames of its own."""

from __future__ import annotations

import re

import pytest

from tests.kernels.talk import Said, Talk

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = "class E(Exception):\n    def __str__(self): 1 / 0\nraise E"
ERRORS = {
    "plain": ("x = 1\n\n1 / 0", "ZeroDivisionError", 3),
    "in a function of the cell": ("def f():\n    return 1 / 0\n\nf()", "ZeroDivisionError", 2),
    "in a library": ("import json\n\njson.loads('{')\n", "JSONDecodeError", 3),
    "syntax": ("x = 1\ny = = 2", "SyntaxError", 2),
    "indentation": ("if True:\n    x = 1\n  y = 2", "IndentationError", 3),
    "awaited": (
        "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    [][0]\nawait f()",
        "IndexError",
        4,
    ),
    "executed text": ("x = 1\nexec('y = 1\\n\\n1 / 0')", "ZeroDivisionError", 2),
    "syntax of executed text": ("x = 1\nexec('\\n\\n1 +')", "SyntaxError", 2),
    "recursion": ("def f():\n    return f()\nf()", "RecursionError", 2),
    "chained": (
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('k') from e",
        "KeyError",
        4,
    ),
    "while handling": ("try:\n    1 / 0\nexcept ZeroDivisionError:\n    [][0]", "IndexError", 4),
    "group": (
        "errors = [ValueError('a'), TypeError('b')]\nraise ExceptionGroup('both', errors)",
        "ExceptionGroup",
        2,
    ),
    "from a group": (
        "try:\n    raise ExceptionGroup('g', [ValueError('a')])\n"
        "except ExceptionGroup as g:\n    raise KeyError('k') from g",
        "KeyError",
        4,
    ),
    "interrupt": ("x = 1\nraise KeyboardInterrupt", "KeyboardInterrupt", 2),
    "hostile text": (HOSTILE, "E", 3),
    "a result that cannot be shown": (
        "class R:\n    def __repr__(self):\n        1 / 0\nR()",
        "ZeroDivisionError",
        3,
    ),
    "a magic": ("x = 1\n%time 1 / 0", "ZeroDivisionError", 2),
    "a magic of the cell's": ("%%time\nx = 1\n1 / 0", "ZeroDivisionError", 3),
    "an exit": ("x = 1\nraise SystemExit(3)", "SystemExit", 2),
    "no such magic": ("x = 1\n%nosuchmagic", "UsageError", 2),
    "one that shows itself badly": (
        "class E(Exception):\n    def _render_traceback_(self): 1 / 0\nraise E('e')",
        "E",
        3,
    ),
    "a hostile traceback": (
        "class E(Exception):\n    __traceback__ = property(lambda self: 1 / 0)\nraise E",
        "E",
        3,
    ),
}


def error(said: Said) -> dict[str, object]:
    """Return the one error that was told."""
    [content] = said.contents("error")
    return content


@pytest.mark.parametrize("name", ERRORS)
async def test_an_error_is_told_once_with_the_line_it_came_from(talk: Talk, name: str) -> None:
    code, kind, line = ERRORS[name]
    said = await talk.run(code)
    assert said.status == "error"
    assert (error(said)["ename"], error(said).get("line")) == (kind, line)
    assert said.reply is not None
    if "cannot be shown" not in name:  # there ipykernel's reply knows of no error
        assert said.reply.content["ename"] == kind
    assert await talk.value("6 * 7") == "42"


async def test_a_function_of_an_earlier_cell_fails_where_this_one_called_it(talk: Talk) -> None:
    await talk.run("\n\n\n\ndef f():\n    return 1 / 0")
    assert error(await talk.run("x = 1\nf()"))["line"] == 2


async def test_an_interrupted_cell_tells_the_line_it_was_at(talk: Talk) -> None:
    said = talk.start("import time\nprint('up', flush=True)\nwhile True:\n    time.sleep(0.01)")
    await talk.until(said.text)
    await talk.interrupt()
    await talk.end(said)
    assert error(said)["ename"] == "KeyboardInterrupt"
    assert error(said)["line"] in (2, 3, 4)  # it may still be about to return from the flush


@pytest.mark.parametrize("name", ["plain", "in a library", "awaited", "group", "a magic", "chained",
    "a result that cannot be shown"])  # fmt: skip
async def test_no_frame_of_ours_and_none_of_ipythons_is_shown(talk: Talk, name: str) -> None:
    said = await talk.run(ERRORS[name][0])
    text = re.sub(
        r"\x1b\[[0-9;]*m", "", "\n".join(map(str, said.contents("error")[0]["traceback"]))
    )
    assert "kernels/inside" not in text
    assert "IPython" not in text
    assert "ipykernel/" not in re.sub(r"ipykernel_\d+", "", text)
    assert said.text("stderr") == ""


async def test_a_group_of_errors_shows_each_of_them(talk: Talk) -> None:
    said = await talk.run(ERRORS["group"][0])
    text = "".join(said.contents("error")[0]["traceback"])
    assert "ValueError: a" in text
    assert "TypeError: b" in text
    assert error(said)["evalue"] == "both (2 sub-exceptions)"


async def test_no_error_is_left_from_the_cell_before(talk: Talk) -> None:
    await talk.run("1 / 0")
    said = talk.start("import time\nprint('up', flush=True)\ntime.sleep(60)")
    await talk.until(said.text)
    await talk.interrupt()
    assert error(await talk.end(said))["ename"] == "KeyboardInterrupt"
