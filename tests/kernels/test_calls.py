"""Calls, variables and surroundings that a request brings: what the kernel does with each."""

from __future__ import annotations

from typing import Any

import pytest

from kernels.inside.tagged import packed, unpacked
from kernels.spec import KernelSpec, Limits
from tests.kernels.talk import Said, Talk

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOUND = 100_000  # bytes of a message


@pytest.fixture(scope="module")
def spec() -> KernelSpec:
    return KernelSpec(preload=(), limits=Limits(message_bytes=BOUND))


def ask(talk: Talk, function: str, *args: Any, **kwargs: Any) -> Said:
    parts = {"function": function, "args": packed([*args]), "kwargs": packed(kwargs)}
    return talk.start(function, silent=True, store_history=False, broker={"call": parts})


async def call(talk: Talk, function: str, *args: Any, **kwargs: Any) -> Said:
    return await talk.end(ask(talk, function, *args, **kwargs))


def value(said: Said) -> Any:
    assert said.contents("error") == []
    assert said.status == "ok"
    (content,) = said.contents("broker_value")
    return unpacked(content["value"])


def error(said: Said) -> str:
    assert said.contents("broker_value") == []
    assert said.status == "error"
    (content,) = said.contents("error")
    return f"{content['ename']}: {content['evalue']}"


RECURSIVE = "def f(n):\n    return n * f(n - 1) if n else 1"
AWAITING = "async def f(x):\n    import asyncio\n    await asyncio.sleep(0)\n    return [x]"


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "returned"),
    [
        ("lambda x: x * 2", [21], {}, 42),
        ("  lambda x: x * 2\n", [21], {}, 42),
        ("lambda x: (\n    x +\n    1)", [1], {}, 2),
        ("lambda x,\\\n  y=2: x\n", [1], {}, 1),
        ("lambda **names: names", [], {"not a name": b"\xff"}, {"not a name": b"\xff"}),
        (RECURSIVE, [5], {}, 120),
        (f"\n\n    {RECURSIVE.replace(chr(10), chr(10) + '    ')}\n", [5], {}, 120),
        (AWAITING, [1.5], {}, [1.5]),
        ("@staticmethod\ndef f(x):\n    return x", [None], {}, None),
        ("def f(x: Nowhere, *, y: 'Else' = 1) -> Never:\n    return x", [1], {}, 1),
        ("len", ["abc"], {}, 3),
        ("print", [], {}, None),
        ("twice", [2], {}, 4),
        (" twice ", [], {"x": 3}, 6),
        ("holder.method", [1], {}, [7, 1]),
        ("math.sqrt", [16], {}, 4.0),
        ("lambda: base", [], {}, 7),
        ("lambda x: x", [2**70], {}, 2**70),
    ],
)
async def test_a_function_is_called(
    talk: Talk, function: str, args: list[Any], kwargs: dict[str, Any], returned: object
) -> None:
    await talk.run(
        "import math\nbase = 7\ndef twice(x): return x * 2\n"
        "class Holder:\n    def method(self, x): return [base, x]\nholder = Holder()"
    )
    assert value(await call(talk, function, *args, **kwargs)) == returned


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("nothing", "NameError: function: name 'nothing' is not defined"),
        ("math.nothing", "AttributeError: module 'math' has no attribute 'nothing'"),
        ("base", "TypeError: function: 'base' is a int, and cannot be called"),
        ("1 + 1", "ValueError: function: expected the source of one lambda or one def"),
        ("base = 2", "ValueError: function: expected the source of one lambda or one def"),
        ("def f(): pass\ndef g(): pass", "ValueError: function: expected the source of one"),
        ("import os\ndef f(): pass", "ValueError: function: expected the source of one"),
        ("(lambda: 1)()", "ValueError: function: expected the source of one lambda or one def"),
        ("class A: pass", "ValueError: function: expected the source of one lambda or one def"),
        ("# nothing", "ValueError: function: expected the source of one lambda or one def"),
        ("!ls", "SyntaxError: "),
        ("def f(:", "SyntaxError: "),
        ("lambda", "SyntaxError: "),
        ("lambda: 1) + (1", "ValueError: function: expected the source of one lambda or one def"),
        ("None", "ValueError: function: expected the source of one lambda or one def"),
        ("def f(x): pass", "TypeError: f() missing 1 required positional argument: 'x'"),
        ("lambda x: x", "TypeError: <lambda>() missing 1 required positional argument: 'x'"),
        ("lambda: 1 / 0", "ZeroDivisionError: division by zero"),
        ("lambda: exec('raise SystemExit(3)')", "SystemExit: 3"),
    ],
)
async def test_what_cannot_be_called_or_fails_is_one_error(
    talk: Talk, function: str, told: str
) -> None:
    await talk.run("import math\nbase = 7")
    assert error(await call(talk, function)).startswith(told)
    assert await talk.value("base, sorted(n for n in globals() if n in 'fgA')") == "(7, [])"


async def test_a_call_leaves_nothing_behind(talk: Talk) -> None:
    await talk.run("x = 1")
    before = await talk.run("sorted(globals()), len(In)", store_history=False)
    assert value(await call(talk, RECURSIVE, 3)) == 6
    after = await talk.run("sorted(globals()), len(In)", store_history=False)
    assert after.value == before.value
    assert await talk.value("'f' in globals()") == "False"
    assert (await talk.run("1")).contents("execute_input")[0]["execution_count"] == 3


async def test_a_traceback_shows_the_functions_lines_and_none_of_ours(talk: Talk) -> None:
    await talk.run("def thrower(x):\n    raise KeyError(x)")
    source = "def f(x):\n    y = x\n    return thrower(y)"
    for function in (source, f"async {source}"):
        said = await call(talk, function, "a")
        (content,) = said.contents("error")
        text = "\n".join(content["traceback"])
        assert "thrower" in text
        assert "3" in text
        assert "<call" in text
        for ours in ("calls.py", "parcels.py", "kernel.py", "_drive", "_called"):
            assert ours not in text
    only = (await call(talk, "len")).contents("error")[0]
    assert "calls.py" not in "\n".join(only["traceback"])


async def test_what_a_function_writes_and_shows_comes_before_its_value(talk: Talk) -> None:
    said = await call(talk, "lambda: (print('a'), display({1}))[0]")
    kinds = dict.fromkeys(m.type for m in said.messages if m.type != "status")
    assert [*kinds] == ["stream", "display_data", "broker_value"]


async def test_what_has_no_plain_form_is_shown(talk: Talk) -> None:
    await talk.run(
        "class Shown:\n    def __repr__(self): return 'as text'\n"
        "    def _repr_html_(self): return '<b>'\n"
        "class Broken:\n    def __repr__(self): raise ValueError('no')"
    )
    (shown,) = (await call(talk, "Shown")).contents("broker_value")
    assert shown["data"] == {"text/plain": "as text", "text/html": "<b>"}
    (broken,) = (await call(talk, "Broken")).contents("broker_value")
    assert broken["data"] == {"text/plain": "<Broken>"}
    told = "TypeError: value['a'][1]: a Shown has no plain form"
    assert error(await call(talk, "lambda: {'a': [1, Shown()]}")).startswith(told)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("lambda: 'a' * 100_000_000", "ValueError: value: more than 95,904 bytes as data"),
        ("lambda: ['\\x00' * 50_000]", "ValueError: value: 300,"),
        ("lambda: range(10**9)", "ValueError: value: more than 95,904 bytes as data"),
        ("def f():\n a = []\n a.append(a)\n return a", "ValueError: value[0]: it contains itself"),
        (
            "def f():\n a = 1\n for _ in range(10_000): a = [a]\n return a",
            "ValueError: value[0][0]",
        ),
        ("lambda: type('A', (dict,), {'items': lambda s: 1 / 0})()", "ZeroDivisionError: "),
        ("lambda: type('A', (), {'__repr__': lambda s: 'a' * 10**6})()", "ValueError: value: 1,0"),
    ],
)
async def test_what_is_too_large_or_broken_is_an_error(
    talk: Talk, function: str, told: str
) -> None:
    assert error(await call(talk, function)).startswith(told)
    assert await talk.value("1 + 1") == "2"


@pytest.mark.parametrize(
    "function",
    [
        "def f():\n    print('up', flush=True)\n    while True: pass",
        "async def f():\n    print('up', flush=True)\n    while True: pass",
        "async def f():\n    import asyncio\n    print('up', flush=True)\n"
        "    await asyncio.sleep(600)",
        "def f():\n    print('up', flush=True)\n    import time\n    time.sleep(600)",
    ],
)
async def test_a_call_can_be_interrupted(talk: Talk, function: str) -> None:
    said = ask(talk, function)
    await talk.until(lambda: said.text() == "up\n")
    await talk.interrupt()
    await talk.end(said)
    assert error(said).partition(":")[0] in ("KeyboardInterrupt", "CancelledError")
    assert await talk.value("1 + 1") == "2"


async def test_sources_are_forgotten_after_some(talk: Talk) -> None:
    for number in range(70):
        assert value(await call(talk, f"lambda: {number}")) == number
    lines = "sum(name.startswith('<call') for name in __import__('linecache').cache)"
    assert await talk.value(lines) == "64"


# Variables, environment, directory


async def bring(talk: Talk, code: str, **parcel: Any) -> Said:
    return await talk.run(code, broker=parcel)


async def test_inputs_are_variables_and_nothing_else(talk: Talk) -> None:
    source = "__import__('os')._exit(1)"
    given = {"a": source, "b": b"\xff", "c": {"$int": [2**80]}, "d": float("inf")}
    said = await bring(talk, "print(a, b, c, d)", inputs=packed(given))
    assert said.text() == f"{source} {given['b']!r} {given['c']} inf\n"
    assert await talk.value("d") == "inf"
    assert "'a'" in await talk.value("get_ipython().run_line_magic('who_ls', '')")


async def test_an_environment_and_a_directory_are_lent(talk: Talk) -> None:
    await talk.run(
        "import os, subprocess\nos.makedirs('deep/er')\nopen('kept', 'w').close()\n"
        "os.environ['OLD'] = 'old'"
    )
    home = await talk.value("os.getcwd()")
    look = "print(os.getcwd(), os.environ.get('OLD'), os.environ.get('NEW'))"
    with_child = f"{look}\nsubprocess.run(['sh', '-c', 'echo $OLD $PWD'], check=True)"
    lent = {"env": {"OLD": "new", "NEW": "1"}, "cwd": "deep/er"}
    inner = f"{home[1:-1]}/deep/er"
    assert (await bring(talk, with_child, **lent)).text() == f"{inner} new 1\nnew {inner}\n"
    assert (await talk.run(look)).text() == f"{home[1:-1]} old None\n"
    assert (await bring(talk, look + "; 1/0", **lent)).status == "error"
    assert (await talk.run(look)).text() == f"{home[1:-1]} old None\n"
    gone = f"os.chdir({home}); os.environ.clear(); os.removedirs('deep/er')"
    assert (await bring(talk, gone, **lent)).status == "ok"
    assert (await talk.run("print(os.getcwd(), os.environ['OLD'])")).text() == (
        f"{home[1:-1]} old\n"
    )


async def test_what_was_lent_comes_back_after_an_interrupt(talk: Talk) -> None:
    said = talk.start(
        "import os\nprint(os.environ['A'], os.getcwd(), flush=True)\nwhile True: pass",
        broker={"env": {"A": "lent"}, "cwd": "/"},
    )
    await talk.until(lambda: said.text() == "lent /\n")
    await talk.interrupt()
    assert (await talk.end(said)).status == "error"
    assert await talk.value("os.environ.get('A'), os.getcwd() == '/'") == "(None, False)"


async def test_what_is_configured_stays(talk: Talk) -> None:
    await talk.run("import os\nos.mkdir('sub')")
    lasting = {"env": {"A": "1", "HOME": None}, "cwd": "sub"}
    said = await bring(talk, "os.environ.get('A')", configure=lasting)
    assert said.reply is not None
    assert said.reply.content["broker"] == {"configured": True}
    look = "os.environ.get('A'), 'HOME' in os.environ, os.path.basename(os.getcwd())"
    assert await talk.value(look) == "('1', False, 'sub')"
    assert (await bring(talk, look, cwd="/", env={"A": "2"})).value == "('2', False, '')"
    assert await talk.value(look) == "('1', False, 'sub')"


async def test_without_its_directory_nothing_runs(talk: Talk) -> None:
    said = await bring(talk, "print('ran')", cwd="nowhere", env={"A": "1"})
    assert said.value == "FileNotFoundError: [Errno 2] cwd: No such file or directory: 'nowhere'"
    assert said.text() == ""
    assert said.reply is not None
    assert said.reply.content["broker"] == {}
    assert await talk.value("import os; os.environ.get('A')") == ""


async def test_a_directory_that_cannot_be_configured_is_told_once(talk: Talk) -> None:
    await talk.run("import os\nos.mkdir('sub')\nopen('file', 'w').close()")
    await bring(talk, "", configure={"env": {}, "cwd": "sub"})
    for where, name, why in (
        ("nowhere", "FileNotFoundError", "[Errno 2] cwd: No such file or directory"),
        ("../file", "NotADirectoryError", "[Errno 20] cwd: Not a directory"),
    ):
        lasting = {"env": {"A": where}, "cwd": where.replace("..", "/proc/self/cwd/..")}
        said = await bring(talk, "print('ran')", configure=lasting)
        assert said.value == f"{name}: {why}; the former one stays: {lasting['cwd']!r}"
        assert said.text() == ""
        assert said.reply is not None
        assert said.reply.content["broker"] == {"configured": True, "refused": "cwd"}
        look = "os.environ['A'], os.path.basename(os.getcwd())"
        assert await talk.value(look) == str((where, "sub"))


async def test_a_parcel_that_nobody_packed_is_an_error(talk: Talk) -> None:
    for parcel in ({"inputs": {"a": {"$int": 1}}}, {"call": {}}, {"env": 3}, {"inputs": [1]}):
        assert (await talk.run("print('ran')", broker=parcel)).status == "error"
    assert (await talk.run("print('ran')", broker="no parcel")).text() == "ran\n"
    assert await talk.value("1 + 1") == "2"


async def test_a_cell_comes_over_the_control_channel_too_with_what_it_brings(talk: Talk) -> None:
    async def told(**more: Any) -> str:
        asked = {"code": "", "silent": False, "user_expressions": {"it": "given"}, **more}
        said = await talk.end(talk.ask("execute_request", asked, "control"))
        assert said.reply is not None
        return str(said.reply.content["user_expressions"]["it"]["data"]["text/plain"])

    await talk.run("given = 1")
    assert await told() == "1"
    await talk.run("given = 1", broker={"inputs": {"given": 2}})
    assert await told() == "1"
    assert await told(broker={"inputs": {"given": 3}}) == "3"
