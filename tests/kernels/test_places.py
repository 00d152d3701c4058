"""Where a cell's code is, as people are told it: by its number and line, and by no file of ours."""

from __future__ import annotations

import re

import pytest

from tests.kernels.talk import Said, Talk

pytestmark = pytest.mark.asyncio(loop_scope="module")

INTERNAL = re.compile(r"ipykernel_|\d{6,}\.py|/kernels/inside|site-packages/IPython|codeop")
CAUSED = """
def f():
    raise ValueError('x')
try:
    f()
except ValueError as error:
    raise ExceptionGroup('both', [error, KeyError('k')]) from error"""
RAISED = {  # a cell that fails; lines of what is told
    "syntax": ("x = 1\ny = = 2", ["Cell In[1], line 2", "SyntaxError: invalid syntax"]),
    "indentation": ("if 1:\n  x = 1\n y = 2", ["Cell In[1], line 3"]),
    "no function": ("x = 1\nreturn x", ["SyntaxError: 'return' outside function"]),
    "executed text": ("x = 1\nexec('y = =')", ["Cell In[1], line 2", "File <string>:1"]),
    "a timed body": ("%%time\nx = 1\ny = = 2", ["Cell In[1], line 3"]),
    "a timed body, no function": ("%%time\nx = 1\nreturn x", ["Cell In[1], line 3"]),
    "group": (CAUSED, ["Cell In[1], line 7, in <module>", "|   Cell In[1], line 3, in f"]),
}
PRINTED = {  # one that prints, or has something printed; what is printed then
    "warning": (
        "import warnings\nwarnings.warn('w')",
        "Cell In[1], line 2: UserWarning: w\n  warnings.warn('w')\n",
    ),
    "warning of the compiler's": ("x = 1\nx is 1", "Cell In[1], line 2: SyntaxWarning: "),
    "warning of the interpreter's": (
        "async def f(): pass\nf()\nx = 1",
        "Cell In[1], line 2: RuntimeWarning: coroutine 'f' was never awaited\n",
    ),
    "warning in a timed body": (
        "%%time\nimport warnings\nwarnings.warn('w')",
        "Cell In[1], line 3: UserWarning: w\n",
    ),
    "warning that is logged": (
        "import logging, warnings\nlogging.basicConfig() or logging.captureWarnings(True)\n"
        "warnings.warn('w')",
        "Cell In[1], line 3: UserWarning: w\n",
    ),
    "traceback": (
        "import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()",
        "Traceback (most recent call last):\n  Cell In[1], line 3, in <module>\n    1 / 0\n",
    ),
    "log": (
        "import logging\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    logging.exception('l')",
        "  Cell In[1], line 3, in <module>\n    1 / 0\n",
    ),
    "thread": (
        "import threading\ndef f():\n    1 / 0\nt = threading.Thread(target=f, name='mine')\n"
        "t.start()\nt.join()",
        "Exception in thread mine:\nTraceback (most recent call last):\n",
    ),
    "thread's line": (
        "from threading import Thread\ndef f():\n    1 / 0\nt = Thread(target=f)\nt.start()\n"
        "t.join()",
        "  Cell In[1], line 3, in f\n    1 / 0\n",
    ),
    "finalizer": (
        "class A:\n    def __del__(self):\n        1 / 0\na = A()\ndel a",
        "  Cell In[1], line 3, in __del__\n    1 / 0\n",
    ),
    "finalizer's name": (
        "class A:\n    def __del__(self):\n        1 / 0\na = A()\ndel a",
        "Exception ignored in: <function A.__del__ at ",
    ),
}


def everything(said: Said) -> str:
    """Return all that was said of a cell, but for its own text."""
    assert said.reply is not None
    told = [str(content) for content in said.contents("error", "stream")]
    return "\n".join([*told, str(said.reply.content)])


@pytest.mark.parametrize("name", RAISED)
async def test_an_error_names_the_cell_and_no_file(talk: Talk, name: str) -> None:
    code, lines = RAISED[name]
    said = await talk.run(code)
    [content] = said.contents("error")
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(content["traceback"]))
    for line in lines:
        assert line in text
    assert not INTERNAL.search(everything(said)), everything(said)


@pytest.mark.parametrize("name", PRINTED)
async def test_what_is_printed_names_the_cell_and_no_file(talk: Talk, name: str) -> None:
    code, printed = PRINTED[name]
    said = await talk.run(code)
    assert printed in said.text("stderr")
    assert not INTERNAL.search(everything(said)), everything(said)
    assert await talk.value("6 * 7") == "42"


async def test_a_syntax_error_is_told_in_its_own_words_alone(talk: Talk) -> None:
    said = await talk.run("y = = 2")
    assert [content["evalue"] for content in said.contents("error")] == ["invalid syntax"]
    assert said.reply is not None
    assert said.reply.content["evalue"] == "invalid syntax"


async def test_files_keep_their_names(talk: Talk) -> None:
    await talk.run("import pathlib\npathlib.Path('mine.py').write_text('def f():\\n    1 / 0')")
    said = await talk.run(
        "import mine, traceback\ntry:\n    mine.f()\nexcept ZeroDivisionError:\n"
        "    traceback.print_exc()"
    )
    assert 'mine.py", line 2, in f\n' in said.text("stderr")
    said = await talk.run(
        "import warnings\nwarnings.warn_explicit('w', UserWarning, '/my/file.py', 7)"
    )
    assert said.text("stderr") == "/my/file.py:7: UserWarning: w\n"


async def test_an_error_may_name_any_thing_as_its_file(talk: Talk) -> None:
    said = await talk.run("raise SyntaxError('odd', ([], 1, 1, 'text'))")
    assert [content["ename"] for content in said.contents("error")] == ["SyntaxError"]
    assert await talk.value("6 * 7") == "42"
