"""A cell that puts something else in the place of what shows things costs later cells nothing."""

from __future__ import annotations

import pytest

from tests.kernels.talk import Said, Talk

pytestmark = pytest.mark.asyncio(loop_scope="module")

BROKEN = {  # what stands for a stream, or does not
    "nothing": "None",
    "a number": "3",
    "a closed file": "closed",
    "one that raises": "type('Raising', (), {'flush': lambda self: 1 / 0})()",
}
CLOSED = "import io, sys\nclosed = io.StringIO()\nclosed.close()\n"
PUBLISHERS = {
    "nothing": "shell.display_pub = None",
    "a number": "shell.display_pub = 3",
    "not even nothing": "del shell.display_pub",
    "no hook": "shell.displayhook = None",
    "not even a hook": "del shell.displayhook",
}


def errors(said: Said) -> list[str]:
    return [content["ename"] for content in said.contents("error")]


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("value", BROKEN)
async def test_later_cells_show_what_they_have_without_a_stream(
    talk: Talk, name: str, value: str
) -> None:
    said = await talk.run(f"{CLOSED}kept, sys.{name} = sys.{name}, {BROKEN[value]}\n'kept'")
    assert (said.status, errors(said), said.value) == ("ok", [], "'kept'")
    for code, kind in (
        ("1 + 1", "execute_result"),
        ("display(2)", "display_data"),
        ("from IPython.display import clear_output\nclear_output()", "clear_output"),
        ("h = display(1, display_id=True)\nh.update(2)", "update_display_data"),
        ("import os\nos.system('echo out')", "stream"),
    ):
        said = await talk.run(code)
        assert (said.status, errors(said), len(said.contents(kind))) == ("ok", [], 1), code
    said = await talk.run("1 / 0")
    assert (said.status, errors(said)) == ("error", ["ZeroDivisionError"])
    completed = await talk.end(talk.ask("complete_request", {"code": "kep", "cursor_pos": 3}))
    assert completed.reply is not None
    assert completed.reply.content["matches"] == ["kept"]
    said = await talk.run(f"sys.{name} = kept\nprint('back', file=sys.{name})")
    assert (said.status, said.text(name)) == ("ok", "back\n")


async def test_what_is_printed_to_nothing_is_lost(talk: Talk) -> None:
    await talk.run("import sys\nkept, sys.stdout = sys.stdout, None")
    said = await talk.run("print('lost')")
    assert (said.status, errors(said), said.text()) == ("ok", [], "")
    assert await talk.value("print('lost'); 5") == "5"


async def test_a_stream_of_the_sessions_own_stays_and_is_flushed_after_each_cell(
    talk: Talk,
) -> None:
    await talk.run(
        "import io, sys\n"
        "class Own(io.StringIO):\n"
        "    flushed = 0\n"
        "    def flush(self): self.flushed += 1\n"
        "kept, sys.stdout = sys.stdout, Own()"
    )
    said = await talk.run("before = sys.stdout.flushed\nprint('to it')")
    assert (said.status, said.text()) == ("ok", "")
    assert await talk.value("sys.stdout.getvalue()") == r"'to it\n'"
    assert await talk.value("sys.stdout.flushed > before") == "True"


@pytest.mark.parametrize("name", PUBLISHERS)
async def test_later_cells_show_what_they_have_without_a_publisher(talk: Talk, name: str) -> None:
    await talk.run(f"shell = get_ipython()\n{PUBLISHERS[name]}")
    for _ in range(2):
        said = await talk.run("display(1)\n1 + 1")
        assert (said.status, errors(said), said.value) == ("ok", [], "2")
        assert len(said.contents("display_data")) == 1
        assert errors(await talk.run("1 / 0")) == ["ZeroDivisionError"]


async def test_a_publisher_of_the_sessions_own_stays(talk: Talk) -> None:
    await talk.run(
        "from IPython.core.displaypub import CapturingDisplayPublisher\nshell = get_ipython()\n"
        "kept, shell.display_pub = shell.display_pub, CapturingDisplayPublisher()"
    )
    said = await talk.run("display(1)\n1 + 1")
    assert (said.status, errors(said), said.value) == ("ok", [], "2")
    assert said.contents("display_data") == []
    assert await talk.value("len(shell.display_pub.outputs)") == "1"
    said = await talk.run("shell.display_pub = kept\ndisplay(2)")
    assert len(said.contents("display_data")) == 1
