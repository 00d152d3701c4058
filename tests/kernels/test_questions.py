"""Questions that a kernel answers beside whatever it runs, however its objects behave."""

from __future__ import annotations

import time
from typing import Any

import pytest

from kernels.launch import Launcher
from tests.kernels.talk import Talk, overheard, talking

pytestmark = pytest.mark.asyncio(loop_scope="module")

BUSY = "import time\nprint('in', flush=True)\nwhile True: time.sleep(0.01)"
DEFINE = """
import os, sys, time, math
class Loud:
    def __repr__(self):
        print('loud'); os.write(2, b''); display('shown'); return 'a\\nb'
class Slow:
    def __repr__(self):
        while True: pass
class Stuck:
    def __repr__(self):
        time.sleep(3); return 'late'
class Failing:
    def __repr__(self): raise SystemExit('no')
class Changing:
    def __repr__(self):
        for name in list(globals()):
            if name.startswith('junk'): del globals()[name]
        globals()['fresh'] = 1; return 'changed'
class Lying:
    __class__ = int
    def __repr__(self): return 5
class Meta(type):
    def __getattribute__(cls, name): raise RuntimeError('never')
class Odd(metaclass=Meta): pass
class Hangs:
    def __dir__(self):
        while True: pass
    def __getattr__(self, name):
        while True: pass
class Fails:
    def __dir__(self): raise ValueError('no')
    def __getattr__(self, name): raise SystemExit('no')
"""


async def ask(talk: Talk, kind: str, **fields: Any) -> dict[str, Any]:
    said = talk.ask("question_request", {"kind": kind, **fields}, "control")
    await talk.until(lambda: said.reply is not None)
    assert said.reply is not None
    return said.reply.content


async def rows(talk: Talk, **fields: Any) -> dict[str, dict[str, Any]]:
    answer = await ask(talk, "variables", **fields)
    assert answer["status"] == "ok"
    return {row["name"]: row for row in answer["variables"]}


async def fresh(talk: Talk, code: str) -> None:
    """Run code that starts without variables."""
    said = await talk.run("%reset -f\n" + DEFINE + code)
    assert said.status == "ok", said.value


async def test_variables_are_told_with_type_length_and_a_line(talk: Talk) -> None:
    await fresh(
        talk, "n = 7\nwords = ['a', 'b']\nd = {'k': (1, None)}\nt = (1,)\ns = set()\n_h = 1"
    )
    found = await rows(talk)
    assert set(found) == {"n", "words", "d", "t", "s"}
    assert found["n"]["type"] == "int"
    assert found["n"]["preview"] == "7"
    assert "module" not in found["n"]
    assert found["words"]["length"] == 2
    assert found["words"]["preview"] == "['a', 'b']"
    assert found["d"]["preview"] == "{'k': (1, None)}"
    assert found["t"]["preview"] == "(1,)"
    assert found["s"]["preview"] == "set()"


async def test_large_and_nested_values_are_cheap(talk: Talk) -> None:
    await fresh(
        talk,
        "big = list(range(10**7))\ntext = 'x' * (1 << 28)\nnumber = 1 << 10**6\n"
        "deep = [[[[[[1]]]]]]\nmixed = [Slow(), {'k': Slow()}]\nself = []; self.append(self)",
    )
    began = time.monotonic()
    found = await rows(talk)
    assert time.monotonic() - began < 0.5
    assert found["big"]["length"] == 10**7
    assert found["big"]["preview"] == "[0, 1, 2, 3, 4, 5, …]"
    assert found["text"]["length"] == 1 << 28
    assert len(found["text"]["preview"]) <= 200
    assert found["number"]["preview"] == "<int of 1,000,001 bits>"
    assert found["deep"]["preview"] == "[[[[…]]]]"
    assert found["mixed"]["preview"] == "[<__main__.Slow object>, {'k': <__main__.Slow object>}]"
    assert found["self"]["preview"] == "[[[[…]]]]"


async def test_what_a_user_has_an_object_say_has_a_limit_and_no_voice(talk: Talk) -> None:
    await fresh(
        talk,
        "loud, slow, failing, lying, odd = Loud(), Slow(), Failing(), Lying(), Odd()\n"
        "junk1 = junk2 = 1\nchanging = Changing()\nafter = 'there'",
    )
    said = talk.ask("question_request", {"kind": "variables"}, "control")
    await talk.until(lambda: said.reply is not None)
    assert said.reply is not None
    found = {row["name"]: row for row in said.reply.content["variables"]}
    assert found["loud"]["preview"] == "a b"
    for name, kind in (("slow", "Slow"), ("failing", "Failing"), ("lying", "Lying")):
        assert found[name]["preview"] == f"<__main__.{kind} object>"
        assert found[name]["type"] == kind
    assert found["odd"]["type"] == "Odd"
    assert found["changing"]["preview"] == "changed"
    assert found["after"]["preview"] == "'there'"
    assert not said.messages  # nothing was published
    assert (await talk.run("1")).text() == ""  # and nothing waits to be


async def test_c_code_that_blocks_costs_a_thread_and_not_the_answer(talk: Talk) -> None:
    await fresh(talk, "stuck = Stuck()\nplain = 5")
    began = time.monotonic()
    found = await rows(talk)
    assert 1 < time.monotonic() - began < 10
    assert found["stuck"]["preview"] == "<__main__.Stuck object>"
    assert found["plain"]["preview"] == "5"
    assert (await rows(talk, names=["plain"]))["plain"]["preview"] == "5"
    assert await talk.value("plain") == "5"


async def test_after_too_many_stuck_threads_it_is_busy_until_one_comes_back(talk: Talk) -> None:
    await fresh(talk, "stuck = Stuck()")
    answers = [await ask(talk, "variables", names=["stuck"]) for _ in range(3)]
    assert all(answer["status"] == "ok" for answer in answers)
    answer = await ask(talk, "variables", names=["stuck"])
    assert answer["status"] in ("ok", "busy")


async def test_where_there_is_no_thread_it_is_busy_until_there_is_one(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        await talk.run(
            "import threading\nstart = threading.Thread.start\ndef none(self):\n"
            "    if self.name == 'questions': raise RuntimeError(\"can't start new thread\")\n"
            "    start(self)\nthreading.Thread.start = none"
        )
        for _ in range(2):
            assert (await ask(talk, "variables"))["status"] == "busy"
        await talk.run("threading.Thread.start = start")
        assert (await ask(talk, "variables"))["status"] == "ok"


async def test_only_the_threads_that_answer_questions_are_silent(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        await talk.run(
            "import threading, time\nclass Stuck:\n    def __repr__(self): time.sleep(1.5)\n"
            "stuck = Stuck()"
        )
        assert (await ask(talk, "variables"))["status"] == "ok"  # without its thread
        code = (
            "[one.join() for one in threading.enumerate() if one.name == 'questions']\n"
            "get_ipython().kernel.iopub_socket.silent"
        )
        assert await talk.value(code) == "set()"


async def test_names_select_and_unknown_ones_are_told(talk: Talk) -> None:
    await fresh(talk, "n = 1\ndef f(): pass")
    answer = await ask(talk, "variables", names=["n", "f", "Loud", "math", "nope"])
    assert [row["name"] for row in answer["variables"]] == ["n", "f", "Loud", "math"]
    assert answer["missing"] == ["nope"]
    assert {"f", "Loud", "math"}.isdisjoint(await rows(talk))


async def test_more_than_were_asked_for_are_counted(talk: Talk) -> None:
    await fresh(talk, "a = b = c = 1")
    answer = await ask(talk, "variables", max=2)
    assert len(answer["variables"]) == 2
    assert answer["more"] == 1


async def test_tables_and_arrays_say_their_shape(talk: Talk) -> None:
    pytest.importorskip("pandas")
    await fresh(
        talk,
        "import numpy as np, pandas as pd\narr = np.arange(12.0).reshape(3, 4)\n"
        "df = pd.DataFrame({'city': ['Oslo', 'Rome'], 't': [4, 19]})\nser = df.t\n"
        "objects = np.array([Slow(), 1], dtype=object)",
    )
    found = await rows(talk)
    assert found["arr"]["shape"] == [3, 4]
    assert found["arr"]["size"] == 96
    assert found["arr"]["preview"] == "float64 [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, …]"
    assert found["df"]["shape"] == [2, 2]
    assert found["df"]["preview"] == "2 rows of 'city', 't'"
    assert found["ser"]["shape"] == [2]
    assert found["ser"]["preview"] == "int64 [4, 19]"
    assert found["objects"]["preview"] == "object [<__main__.Slow object>, 1]"


async def test_a_running_cell_is_neither_waited_for_nor_disturbed(talk: Talk) -> None:
    await fresh(talk, "kept = {}")
    cell = talk.start(
        "print('in', flush=True)\ni = 0\nwhile True:\n    kept[i] = i; i += 1\n"
        "    globals()[f'v{i % 50}'] = i\n    if not i % 7: globals().pop(f'v{(i * 3) % 50}', 0)"
    )
    await talk.until(lambda: "in" in cell.text())
    for _ in range(5):
        assert "kept" in await rows(talk)
    answer = await ask(talk, "complete", code="kept.ke", cursor=7)
    assert ".keys" in answer["matches"][0]
    await talk.interrupt()
    await talk.end(cell)
    assert cell.text() == "in\n"


async def test_completion_names_what_there_is_and_where_it_goes(talk: Talk) -> None:
    await fresh(talk, "chapter_one = chapter_two = 1")
    answer = await ask(talk, "complete", code="1\nprint(chapter_o)", cursor=17)
    assert answer["matches"] == ["chapter_one"]
    assert (answer["cursor_start"], answer["cursor_end"]) == (8, 17)
    assert len(answer["types"]) == 1
    answer = await ask(talk, "complete", code="chapter_", cursor=8)
    assert answer["matches"] == ["chapter_one", "chapter_two"]
    assert (await ask(talk, "complete", code="zzz_no", cursor=99))["matches"] == []


async def test_inspection_finds_a_name(talk: Talk) -> None:
    await fresh(talk, "def area(w, h=2):\n    'Compute it.'\n")
    answer = await ask(talk, "inspect", code="area(3)", cursor=3)
    assert answer["found"]
    assert "Compute it." in answer["data"]["text/plain"]
    assert not (await ask(talk, "inspect", code="nowhere", cursor=3))["found"]


@pytest.mark.parametrize(
    ("kind", "code"), [("complete", "hangs."), ("inspect", "hangs.name"), ("inspect", "slow")]
)
async def test_objects_that_hang_are_stopped(talk: Talk, kind: str, code: str) -> None:
    await fresh(talk, "hangs, slow = Hangs(), Slow()")
    began = time.monotonic()
    await ask(talk, kind, code=code, cursor=len(code))
    assert time.monotonic() - began < 10
    assert await talk.value("1 + 1") == "2"
    assert "slow" in await rows(talk, names=["slow"])


@pytest.mark.parametrize("beside", ["", BUSY])
@pytest.mark.parametrize("code", ["print(hangs.", "print(fails.", "%time hangs."])
async def test_a_completion_that_is_stopped_or_fails_says_nothing(
    talk: Talk, code: str, beside: str
) -> None:
    await fresh(talk, "hangs, fails = Hangs(), Fails()")
    with overheard(talk) as messages:
        cell = talk.start(beside or "print('in')")
        await talk.until(lambda: "in" in cell.text())
        if not beside:
            await talk.end(cell)
        answer = await ask(talk, "complete", code=code, cursor=len(code))
        if beside:
            await talk.interrupt()
            await talk.end(cell)
        await talk.run("print('after')")
    assert (answer["status"], answer["matches"]) == ("ok", [])
    texts = [one.content["text"] for one in messages if one.type == "stream"]
    assert "".join(texts) == "in\nafter\n"
    errors = [one.content["ename"] for one in messages if one.type == "error"]
    assert errors == ["KeyboardInterrupt"] * bool(beside)


async def test_a_completion_of_jupyters_that_is_interrupted_says_nothing(talk: Talk) -> None:
    await fresh(
        talk,
        "class Told:\n    def __dir__(self):\n        display('in')\n        while True: pass\n"
        "hangs = Told()",
    )
    with overheard(talk) as messages:
        asked = talk.ask("complete_request", {"code": "print(hangs.", "cursor_pos": 12})
        await talk.until(lambda: bool(asked.contents("display_data")))
        await talk.interrupt(asked)
        await talk.end(asked)
        await talk.run("print('after')")
    assert asked.reply is not None
    assert (asked.status, asked.reply.content["matches"]) == ("ok", [])
    kinds = [one.type for one in messages if one.type not in ("status", "execute_input")]
    assert kinds == ["display_data", "stream"]


async def test_questions_change_nothing_of_the_session(talk: Talk) -> None:
    await fresh(talk, "x = 41")
    names = "[name for name in sorted(globals()) if name[0] != '_'], x"
    before = await talk.value(names)
    await ask(talk, "complete", code="x.bi", cursor=4)
    await ask(talk, "inspect", code="x", cursor=1)
    await rows(talk)
    assert await talk.value(names) == before
    count = (await talk.run("None")).reply.content["execution_count"]
    await rows(talk)
    again = await talk.run("None")
    assert again.reply is not None
    assert again.reply.content["execution_count"] == count + 1


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"kind": 5},
        {"kind": "nothing"},
        {"kind": "complete"},
        {"kind": "complete", "code": 7, "cursor": "x"},
        {"kind": "complete", "code": "a", "cursor": -5},
        {"kind": "inspect", "code": ["x"], "cursor": None},
        {"kind": "variables", "names": [5, {}], "max": "x"},
    ],
)
async def test_any_question_is_answered(talk: Talk, content: dict[str, Any]) -> None:
    said = talk.ask("question_request", content, "control")
    await talk.until(lambda: said.reply is not None)
    assert said.reply is not None
    assert said.reply.content["status"] in ("ok", "busy", "error")
