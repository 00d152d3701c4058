"""What is shown, and shown anew: the newest state arrives, in time, and all of it at the end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kernels.talk import Said, Talk

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHOWN = ("display_data", "update_display_data", "clear_output", "stream", "execute_result", "error")


def told(said: Said) -> list[str]:
    """Return what was shown, in order: the text, or the type of the message."""
    return [_told(m.type, m.content) for m in said.messages if m.type in SHOWN]


def _told(kind: str, content: dict[str, Any]) -> str:
    mark = "+" if kind == "update_display_data" else ""
    text = content.get("data", {}).get("text/plain")
    return str(content.get("text") or (kind if text is None else f"{mark}{text}"))


async def test_a_display_updated_without_a_pause_is_told_some_states_and_the_last(
    talk: Talk,
) -> None:
    said = await talk.run(
        "handle = display(0, display_id='d')\nfor i in range(1, 5001): handle.update(i)\nprint('e')"
    )
    updates = said.contents("update_display_data")
    assert len(updates) < 200
    assert updates[-1]["data"]["text/plain"] == "5000"
    assert {update["transient"]["display_id"] for update in updates} == {"d"}
    assert said.late == []


async def test_the_newest_state_comes_while_the_cell_still_runs(talk: Talk) -> None:
    said = talk.start(
        "import time\nhandle = display(0, display_id=True)\n"
        "for i in range(1, 101): handle.update(i)\nwhile True: time.sleep(0.05)"
    )
    await talk.until(lambda: "+100" in told(said))
    assert said.reply is None
    talk.kernel.interrupt()
    await talk.end(said)


async def test_updates_that_take_their_time_are_all_told(talk: Talk) -> None:
    said = await talk.run(
        "import time\nhandle = display(0, display_id=True)\n"
        "for i in range(1, 6): time.sleep(0.06); handle.update(i)"
    )
    assert told(said) == ["0", "+1", "+2", "+3", "+4", "+5"]


async def test_the_last_states_of_many_displays_come_before_the_end(talk: Talk) -> None:
    said = await talk.run(
        "handles = [display(0, display_id=str(n)) for n in range(300)]\n"
        "for i in range(20):\n    for n, handle in enumerate(handles): handle.update(f'{n} {i}')"
    )
    last = {u["transient"]["display_id"]: u["data"]["text/plain"]
            for u in said.contents("update_display_data")}  # fmt: skip
    assert last == {str(n): f"'{n} 19'" for n in range(300)}
    assert said.late == []


async def test_what_is_shown_or_cleared_after_an_update_comes_after_it(talk: Talk) -> None:
    said = await talk.run(
        "from IPython.display import clear_output\n"
        "handle = display(0, display_id=True)\n"
        "handle.update(1); handle.update(2); display('next')\n"
        "handle.update(3); clear_output(wait=True); display('then')\n"
        "handle.update(4)\n'value'"
    )
    text = [each for each in told(said) if each != "+1"]
    assert text[:6] == ["0", "+2", "'next'", "+3", "clear_output", "'then'"]
    assert sorted(text[6:]) == ["'value'", "+4"]


async def test_an_update_is_as_its_data_was_then(talk: Talk) -> None:
    said = await talk.run(
        "data = {'application/json': {'n': [0]}}\n"
        "handle = display(data, raw=True, display_id=True)\n"
        "for i in (1, 2):\n"
        "    data['application/json']['n'][0] = i\n    handle.update(data, raw=True)\n"
        "data['application/json']['n'][0] = 99"
    )
    updates = said.contents("update_display_data")
    assert updates[-1]["data"] == {"application/json": {"n": [2]}}


async def test_a_loop_that_clears_and_shows_is_told_in_order(talk: Talk) -> None:
    said = await talk.run(
        "from IPython.display import clear_output\n"
        "for i in range(3): clear_output(wait=True); display(i); print(i)"
    )
    assert told(said) == [
        part for i in range(3) for part in ("clear_output", str(i), f"{i}\n")
    ]  # fmt: skip
    assert [content["wait"] for content in said.contents("clear_output")] == [True] * 3


@pytest.mark.parametrize(
    "mime", ["application/vnd.plotly.v1+json", "application/vnd.vegalite.v5+json",
             "application/vnd.bokehjs_exec.v0+json", "application/geo+json", "text/latex"]
)  # fmt: skip
async def test_a_form_of_a_librarys_own_passes_unchanged(talk: Talk, mime: str) -> None:
    value = {"data": [{"x": [1, 2.5, None], "type": "bar"}], "é": {"deep": [[1], {}]}}
    said = await talk.run(
        "class Chart:\n    def _repr_mimebundle_(self, include=None, exclude=None):\n"
        f"        return {{{mime!r}: {value!r}, 'text/plain': 'chart'}}\nChart()"
    )
    assert said.contents("execute_result")[0]["data"] == {mime: value, "text/plain": "chart"}


@pytest.mark.parametrize("method", ["_repr_html_", "_repr_png_", "_repr_mimebundle_", "__repr__"])
async def test_a_form_that_never_comes_is_interrupted_like_other_code(
    talk: Talk, method: str
) -> None:
    said = talk.start(
        f"import time\nclass Slow:\n    def {method}(self, *args, **options):\n"
        "        print('up', flush=True)\n        while True: time.sleep(0.05)\nSlow()"
    )
    await talk.until(said.text)
    await talk.interrupt()
    await talk.end(said)
    assert await talk.value("6 * 7") == "42"


async def test_without_a_preload_plots_are_shown_and_nothing_is_imported_before_them(
    talk: Talk,
) -> None:
    loaded = "[name for name in ('matplotlib', 'numpy') if name in __import__('sys').modules]"
    assert await talk.value(loaded) == "[]"
    said = await talk.run("import matplotlib.pyplot as plt\n_ = plt.plot([1, 2])")
    [shown] = said.contents("display_data")
    assert "image/png" in shown["data"]
