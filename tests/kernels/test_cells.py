"""Cells made ready: whatever is left out to save time, IPython would have found nothing by it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from ipykernel.compiler import get_file_name, murmur2_x86
from IPython.core.async_helpers import _should_be_async
from IPython.core.displayhook import DisplayHook as TheirHook
from IPython.core.inputtransformer2 import TransformerManager, leading_empty_lines

from kernels.inside.cells import Compiler, DisplayHook, Transformer, may_await, murmur2
from tests.kernels.talk import Talk

# What cells are made of, special and plain, in any order; much of it is no Python.
PIECES = [
    *("x", "=", " ", "  ", "\n", "\t", "\\\n", "\x0c", "\r", "\u2028", "\x85", ";", ",", "/"),
    *("%", "!", "?", "??", "%%", "!!", "%time 1", "!ls", "%%bash\n", "%magic", "==", "!=", ":="),
    *("'", '"', '"""', "# a;", "#", "(", ")", "[", "]", "{x=!r}", "f'{x=!r}'", "f'{x!r}'", "1"),
    *("await ", "async ", "for i in y:\n    ", "async with a as b:\n  c\n", "def f():\n  ", "pass"),
    *("if x:\n    !ls\n", "a = %pwd", "a = !ls", "a =\\\n %pwd", "a= # b\n!ls", "$", "lambda: x"),
    *(
        ">>> x\n",
        "In [1]: x\n",
        "x % y",
        "x?",
        "?x",
        "[i async for i in x]",
        "return",
        "é",
        "\uff41",
    ),
]
Test = TypeVar("Test", bound=Callable[..., None])
CELLS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=30)


def _transformed(manager: TransformerManager, cell: str) -> str:
    try:
        with warnings.catch_warnings(action="ignore"):  # of strange line ends, to IPython's makers
            return str(manager.transform_cell(cell))
    except Exception as error:
        return type(error).__name__


def examples(*cells: str) -> Callable[[Test], Test]:
    """Have a property tried with these cells, whatever chance finds."""

    def decorate(test: Test) -> Test:
        for cell in cells:
            test = example(cell)(test)
        return test

    return decorate


@examples(
    "a =\\\n %pwd",
    "if x:\n    !ls\n",
    "x\u2028%pwd",
    "x\x0c%pwd",
    "# a\x0c%pwd",
    "# a\u2028!ls",
    "x?",
    "a = !ls",
    ";f x",
    "%%bash\n",
)
@given(CELLS)
def test_cells_are_transformed_as_ipython_does(cell: str) -> None:
    theirs = _transformed(TransformerManager(), cell)
    if theirs in ("IndentationError", "SyntaxError"):
        return  # compiling it tells as well, and in fewer words
    ours = _transformed(Transformer(), cell)
    assert re.sub(r"\n+", "\n", f"\n{ours}") == re.sub(r"\n+", "\n", f"\n{theirs}")


@examples(
    "\n\nx",
    "\n \n!ls \\\n -l\nx",
    "if x:\n    y = !ls \\\n -l\n    x?\nz",
    "%pwd\nx =\\\n %pwd\\\n\nx",
)
@given(CELLS)
def test_each_line_of_a_cell_stays_where_it_is(cell: str) -> None:
    cell = "\n".join(cell.splitlines())  # IPython makes a line of its own of each strange one
    assume(not cell.lstrip().startswith("%%") and not cell.isspace())
    code = _transformed(Transformer(), cell)
    assume(code not in ("IndentationError", "SyntaxError", "RuntimeError"))
    lines = cell if cell.endswith("\n") else f"{cell}\n"
    assert code.count("\n") == lines.count("\n")


def test_a_transformer_of_the_users_own_is_asked() -> None:
    class Shouting:
        """Transforms nothing, and is known by having been asked."""

        asked = 0

        @classmethod
        def find(cls, tokens_by_line: object) -> None:
            cls.asked += 1

    transformer = Transformer()
    transformer.token_transformers.append(Shouting)
    transformer.transform_cell("x = 1")
    assert Shouting.asked == 1


@examples(
    *("await x", "async for i in y: pass", "async with a as b: c", "[i async for i in x]"),
    *("[await i for i in x]", "f'{await x}'", "def f():\n  pass\nawait f()"),
)
@given(CELLS)
def test_a_cell_that_awaits_is_found(cell: str) -> None:
    assert may_await(cell) or not _should_be_async(cell)


@examples("1;", "1; # a", "1 # a;", "';'", "x\x0c\r;", "1;\n\n", "1; \\\n")
@given(CELLS)
def test_a_last_semicolon_is_found(cell: str) -> None:
    try:
        theirs = bool(TheirHook.semicolon_at_end_of_expression(cell))
    except Exception:  # no Python: then nothing was shown, and nobody asks
        return
    assert DisplayHook.semicolon_at_end_of_expression(cell) == theirs


@given(st.text(), st.integers(0, 2**32 - 1))
def test_a_cells_hash_is_the_debuggers(text: str, seed: int) -> None:
    assert murmur2(text, seed) == murmur2_x86(text, seed)


def test_a_cells_name_is_the_debuggers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Compiler().get_code_name("x = 1", "x = 1\n", 3) == get_file_name("x = 1")
    monkeypatch.setenv("IPYKERNEL_CELL_NAME", "/somewhere/cell.py")
    assert Compiler().get_code_name("x = 1", "x = 1\n", 3) == "/somewhere/cell.py"


SHOWN = [
    ("a = 1\nb = 2\na + b", "3"),
    ("a = 1\nb = 2\na + b;", ""),
    ("a = 1\nb = 2", ""),
    ("5\n6\n7", "7"),
    ("x = 1\nimport asyncio\nawait asyncio.sleep(0)\nx + 1", "2"),
    ("x = 1\nawait_ = 2\nx + await_", "3"),
    ("'text'\ny = 2\n__doc__", "'text'"),
    ("from __future__ import annotations\ndef f(a: no): pass\nf.__annotations__['a']", "'no'"),
    ("a = 1\nb = !echo here\nb[0]", "'here'"),
    ("a = 1\nb = %pwd\nlen(b) > 0", "True"),
    ("if True:\n    c = 3\nc", "3"),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("code", "value"), SHOWN)
async def test_the_last_expression_alone_is_shown(talk: Talk, code: str, value: str) -> None:
    assert await talk.value(code) == value


FAILING = [  # each with what `seen` is after it
    ("seen = 1\nreturn\nseen = 2", "SyntaxError", "1"),
    ("seen = 1\nbreak\nseen = 2", "SyntaxError", "1"),
    ("seen = 1\n1/0\nseen = 2", "ZeroDivisionError", "1"),
    ("seen = 1\nseen = (", "SyntaxError", "0"),
    ("seen = 1\n   seen = 2", "IndentationError", "0"),
    ("if True:\n        seen = 1\n    seen = 2", "IndentationError", "0"),
    ("seen = 1\nraise SystemExit\nseen = 2", "SystemExit", "1"),
    ("seen = 1\ndef f(a, a): pass\nseen = 2", "SyntaxError", "1"),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("code", "error", "seen"), FAILING)
async def test_what_stands_before_the_failing_statement_has_run(
    talk: Talk, code: str, error: str, seen: str
) -> None:
    await talk.run("seen = 0")
    said = await talk.run(code)
    assert [content["ename"] for content in said.contents("error")] == [error]
    assert await talk.value("seen") == seen


@pytest.mark.asyncio(loop_scope="module")
async def test_a_later_statement_may_be_of_the_future(talk: Talk) -> None:
    assert (await talk.run("x = 1\nfrom __future__ import annotations\ny = 2")).status == "ok"
    assert await talk.value("def f(a: no): pass\nf.__annotations__['a']") == "'no'"


@pytest.mark.asyncio(loop_scope="module")
async def test_statements_run_in_one_piece(talk: Talk) -> None:
    assert (
        await talk.value("import sys\na = sys._getframe()\nb = sys._getframe()\na is b") == "True"
    )
    assert await talk.value("c = 257\nd = 257\nc is d") == "True"


@pytest.mark.asyncio(loop_scope="module")
async def test_an_interrupt_while_a_cell_is_compiled_ends_it(talk: Talk) -> None:
    await talk.run(
        "seen = 0\n"
        "kind = type(get_ipython().compile)\n"
        "def interrupted(*args, **options):\n"
        "    del kind.__call__\n"
        "    raise KeyboardInterrupt\n"
        "ended = []\n"
        "get_ipython().events.register('post_run_cell', ended.append)\n"
        "kind.__call__ = interrupted"
    )
    said = await talk.run("seen = 1\nseen = 2")
    assert [content["ename"] for content in said.contents("error")] == ["KeyboardInterrupt"]
    assert said.reply is not None
    assert said.reply.content["ename"] == "KeyboardInterrupt"
    assert (
        await talk.value("seen, type(ended[-1].error_before_exec).__name__")
        == "(0, 'KeyboardInterrupt')"
    )


@pytest.mark.asyncio(loop_scope="module")
async def test_an_error_names_its_line(talk: Talk) -> None:
    said = await talk.run("a = 1\nb = 2\n\n[][a]\nc = 3\nc")
    [content] = said.contents("error")
    assert "[][a]" in "\n".join(content["traceback"])
    assert "line 4" in "\n".join(content["traceback"])


@pytest.mark.asyncio(loop_scope="module")
async def test_every_expression_is_shown_where_that_is_asked_for(talk: Talk) -> None:
    await talk.run("get_ipython().ast_node_interactivity = 'all'")
    said = await talk.run("1\nx = 2\nx")
    shown = [content["data"]["text/plain"] for content in said.contents("execute_result")]
    assert shown == ["1", "2"]


def test_blank_lines_are_not_doubled_where_the_debugger_has_them_kept() -> None:
    transformer = Transformer()
    cell = "\n\ndef f():\n    return 1\n"
    assert transformer.transform_cell(cell) == cell
    transformer.cleanup_transforms.remove(leading_empty_lines)
    assert transformer.transform_cell(cell) == cell
