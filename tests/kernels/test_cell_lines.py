"""The line that an error is told to come from is the line of the cell as its client wrote it."""

from __future__ import annotations

import re

import pytest

from tests.kernels.talk import Said, Talk

pytestmark = pytest.mark.asyncio(loop_scope="module")

DIVISION = "ZeroDivisionError"
ERRORS = {
    "blank lines first": ("\n  \n\nx = 1\n1 / 0", DIVISION, 5),
    "blank lines first, syntax": ("\n\nx = 1\ny = = 2", "SyntaxError", 4),
    "blank lines first, indented": ("\r\n\r\n  x = 1\r\n  1 / 0", DIVISION, 4),
    "prompts": ("\n>>> x = 1\n>>> 1 / 0", DIVISION, 3),
    "time": ("%%time\nx = 1\n1 / 0", DIVISION, 3),
    "time of one expression": ("%%time\n1 / 0", DIVISION, 2),
    "time, blank lines everywhere": ("\n\n%%time\n\n\nx = 1\n1 / 0", DIVISION, 7),
    "time, in a function": ("%%time\ndef f():\n    return 1 / 0\n\nf()", DIVISION, 3),
    "time, syntax": ("%%time\nx = 1\ny = = 2", "SyntaxError", 3),
    "time, no function": ("%%time\nx = 1\nreturn x", "SyntaxError", 3),
    "time, with a line of it": ("%%time\nx = 1\n%time 1 / 0", DIVISION, 3),
    "time, indented": ("  %%time\n  x = 1\n  1 / 0", DIVISION, 3),
    "timeit": ("%%timeit\nx = 1\n1 / 0", DIVISION, 3),
    "timeit after a setup": ("%%timeit x = 1\n1 / x\nx / 0", DIVISION, 3),
    "timeit, its setup": ("%%timeit x = 1 / 0\n1 / x", DIVISION, 1),
    "capture": ("%%capture\nx = 1\n1 / 0", DIVISION, 3),
    "capture, syntax": ("\n%%capture\nx = 1\ny = = 2", "SyntaxError", 4),
    "capture of time": ("%%capture out\n\n%%time\n1 / 0", DIVISION, 4),
    "time of time": ("%%time\n%%time\nx = 1\n1 / 0", DIVISION, 4),
    "no Python": ("\n%%bash\nexit 3", "CalledProcessError", 2),
    "a magic called by hand": (
        "x = 1\nget_ipython().run_cell_magic('time', '', '1 / 0')",
        DIVISION,
        2,
    ),
    "after a command of two lines": ("!true \\\n  true\nx = 1\n1 / 0", DIVISION, 4),
    "after assignments of commands": (
        "x = !true \\\n  true\ny = %pwd\nif x == []:\n    !true \\\n      true\n    1 / 0",
        DIVISION,
        7,
    ),
}


def error(said: Said) -> tuple[str, int, str]:
    """Return the name, the line and the traceback of the one error that was told."""
    [content] = said.contents("error")
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(content["traceback"]))
    return content["ename"], content["line"], text


@pytest.mark.parametrize("name", ERRORS)
async def test_the_line_is_that_of_the_cell_as_it_was_written(talk: Talk, name: str) -> None:
    code, kind, line = ERRORS[name]
    ename, told, text = error(await talk.run(code))
    assert (ename, told) == (kind, line)
    assert re.search(rf"Cell In\[\d+\], line {line}\b", text), text
    if not name.startswith(("timeit", "no Python")):  # one is a function that nobody has written
        assert re.search(rf"(?m)^[- >]*{line} .*/ 0|^    (?:y = = 2|return x)$", text), text
    assert await talk.value("6 * 7") == "42"


async def test_a_function_of_an_earlier_magic_fails_where_this_one_called_it(talk: Talk) -> None:
    await talk.run("%%time\n\n\n\ndef f():\n    return 1 / 0")
    assert error(await talk.run("%%time\nx = 1\nf()"))[:2] == (DIVISION, 3)
    assert error(await talk.run("x = 1\nf()"))[:2] == (DIVISION, 2)


async def test_a_magic_of_ones_own_that_runs_its_body_counts_as_well(talk: Talk) -> None:
    await talk.run(
        "def run(line, cell):\n    get_ipython().run_cell(cell)\n"
        "get_ipython().register_magic_function(run, 'cell')"
    )
    said = await talk.run("%%run\nx = 1\n1 / 0")
    assert [content["line"] for content in said.contents("error")] == [3]


async def test_the_source_of_what_a_magic_ran_can_be_asked_for(talk: Talk) -> None:
    await talk.run("%%time\ndef f():\n    return 'of f'\nx = 1")
    said = await talk.run("import inspect\nprint(inspect.getsource(f), end='')")
    assert said.text() == "def f():\n    return 'of f'\n"
