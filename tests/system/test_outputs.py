"""What code puts out, from the cell to the client: in order, bounded, and fit for a model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from broker.client import Broker, Result, Session
from tests.system.conftest import RunningBroker
from tests.system.peer import JSON, MSGPACK, Peer, attached, execute, new_name

PNG = b"\x89PNG\r\n\x1a\n"
DATAFRAME = "application/vnd.broker.dataframe+json"
CHART = "application/vnd.broker.chart+json"


@pytest.fixture
def session(broker: RunningBroker) -> Iterator[Session]:
    with Broker(broker.url, broker.token).session(new_name()) as session:
        yield session


@pytest_asyncio.fixture
async def peer(broker: RunningBroker) -> AsyncIterator[Peer]:
    async with attached(broker, new_name(), subprotocols=[MSGPACK]) as peer:
        yield peer


def assert_few(result: Result) -> None:
    """Assert that text came no more often than somebody looks at it."""
    events = [event for event in result.events if event["type"] == "stream"]
    assert len(events) < 10 + 12 * result.duration


# Text


@pytest.mark.row("text of one execution")
def test_a_long_text_is_cut_and_all_of_it_is_in_a_file_of_the_session(session: Session) -> None:
    session.execute("first = 1")
    result = session.execute("for i in range(100_000): print(f'line {i:06}')")
    assert result.truncated is not None
    assert result.truncated["total"] == 12 * 100_000
    assert result.truncated["file"] == ".outputs/2.txt"
    assert "; all are in .outputs/2.txt …" in result.text
    read = "lines = open('.outputs/2.txt').read().splitlines()\nlen(lines), lines[0], lines[-1]"
    assert session.execute(read).value == "(100000, 'line 000000', 'line 099999')"


def test_a_flood_that_fills_the_workspace_ends_and_leaves_room(session: Session) -> None:
    session.execute("open('most', 'wb').write(b'x' * (240 << 20))")
    result = session.execute("for _ in range(40_000): print('x' * 999)")
    assert result.status == "ok"
    assert "; the first " in result.text
    assert session.execute("open('more', 'w').write('x' * 1_000_000)").value == "1000000"


# As tqdm writes it: https://github.com/tqdm/tqdm, `std.status_printer`
BAR = """import sys
last = 0
for n in range(1, 50_001):
    text = f'{100 * n // 50_000:3}%|{"█" * (10 * n // 50_000):10}| {n}/50000'
    sys.stderr.write('\\r' + text + ' ' * max(0, last - len(text)))
    sys.stderr.flush()
    last = len(text)
sys.stderr.write('\\n'); sys.stderr.flush()
print('done')
"""


def test_a_progress_bar_is_a_few_events_and_shows_its_end(session: Session) -> None:
    result = session.execute(BAR)
    assert result.text == "100%|██████████| 50000/50000\ndone\n"
    assert_few(result)
    assert result.truncated is None


def test_tqdm_itself_shows_its_end(session: Session) -> None:
    pytest.importorskip("tqdm")
    result = session.execute(
        "from tqdm import tqdm\nfor _ in tqdm(range(10_000), mininterval=0): pass\nprint('done')"
    )
    assert result.status == "ok", result.error
    bar, last, rest = result.text.split("\n")
    assert bar.startswith("100%|██████████| 10000/10000 [")
    assert (last, rest) == ("done", "")
    assert_few(result)


# Displays


def test_a_display_updated_a_thousand_times_is_a_few_events_and_the_last_state(
    session: Session,
) -> None:
    result = session.execute(
        "handle = display(0, display_id=True)\nfor n in range(1, 1001): handle.update(n)"
    )
    assert result.displays == ({"text/plain": "1000"},)
    assert len(result.events) < 100


@pytest.mark.row("clear")
def test_a_loop_that_clears_and_shows_is_told_in_order(session: Session) -> None:
    result = session.execute(
        "from IPython.display import clear_output\n"
        "for n in range(20): clear_output(wait=True); display(n)"
    )
    shown = [e for e in result.events if e["type"] in ("clear", "display")]
    assert [event["type"] for event in shown] == ["clear", "display"] * 20
    assert [event["data"]["text/plain"] for event in shown[1::2]] == [str(n) for n in range(20)]


def test_a_frame_is_html_text_and_a_table(broker: RunningBroker, session: Session) -> None:
    code = (
        "import pandas as pd\n"
        "pd.DataFrame({'n': range(1000), 'd': pd.date_range('2020', periods=1000)})"
    )
    result = session.execute(code)
    [table] = result.dataframes
    assert table["shape"] == [1000, 2]
    assert table["rows"][:2] == [[0, "2020-01-01T00:00:00"], [1, "2020-01-02T00:00:00"]]
    assert (len(table["rows"]), table["truncated"]) == (20, True)
    assert result.html is not None
    assert result.value is not None
    # Over HTTP it is the same.
    assert execute(broker, new_name(), code)["result"][DATAFRAME] == table


def test_a_figure_is_a_picture_and_a_chart_shown_or_left_open(session: Session) -> None:
    draw = "import matplotlib.pyplot as plt\nfigure, axes = plt.subplots()\n"
    draw += "axes.bar(['a', 'b'], [1, 2], label='l'); axes.set_title('T')\n"
    for last in ("plt.show()", "None", "display(figure); plt.close()", "plt.close(); figure"):
        result = session.execute(draw + last)
        assert [image[:8] for image in result.images] == [PNG], last
        [chart] = result.charts
        [axes] = chart["axes"]
        assert (axes["kind"], axes["title"]) == ("bar", "T")
        assert axes["series"] == [
            {"kind": "bar", "label": "l", "x": ["a", "b"], "y": [1, 2], "points": 2}
        ]


BUNDLES = {
    "application/vnd.plotly.v1+json": {"data": [{"type": "bar", "x": [1, None]}], "layout": {}},
    "application/vnd.vegalite.v5+json": {"mark": "bar", "data": {"values": [{"a": 1.5}]}},
    "application/json": [1, {"a": [None, True]}],
}


@pytest.mark.parametrize("subprotocol", [JSON, MSGPACK])
@pytest.mark.parametrize("mime", BUNDLES)
async def test_what_a_library_shows_in_json_arrives_as_what_it_is(
    broker: RunningBroker, mime: str, subprotocol: str
) -> None:
    async with attached(broker, new_name(), subprotocols=[subprotocol]) as peer:
        events = await peer.run(
            "class Chart:\n    def _repr_mimebundle_(self, include=None, exclude=None):\n"
            f"        return {{{mime!r}: {BUNDLES[mime]!r}, 'text/plain': 'c'}}\nChart()"
        )
    [result] = [event for event in events if event["type"] == "result"]
    assert result["data"] == {mime: BUNDLES[mime], "text/plain": "c"}


@pytest.mark.parametrize("mime", ["audio/wav", "video/mp4", "application/octet-stream"])
async def test_sound_and_other_bytes_arrive_as_bytes(peer: Peer, mime: str) -> None:
    events = await peer.run(f"display({{{mime!r}: b'\\0\\xff' * 1000}}, raw=True)")
    [shown] = [event for event in events if event["type"] == "display"]
    assert shown["data"] == {mime: b"\0\xff" * 1000}


@pytest.mark.row("one rich output")
def test_an_output_over_the_bound_is_in_a_file_of_the_session(session: Session) -> None:
    result = session.execute("display({'text/html': 'x' * 20_000_000}, raw=True)")
    [shown] = [event for event in result.events if event["type"] == "display"]
    assert shown["metadata"] == {"file": ".outputs/1.html"}
    assert ".outputs/1.html" in shown["data"]["text/plain"]
    size = "import os; os.path.getsize('.outputs/1.html')"
    assert session.execute(size).value == "20000000"


@pytest.mark.parametrize("method", ["_repr_html_", "__repr__"])
def test_a_form_that_never_comes_ends_with_the_time_of_its_execution(
    session: Session, method: str
) -> None:
    code = (
        f"import time\nclass Slow:\n    def {method}(self):\n"
        "        while True: time.sleep(0.01)\nkept = 42\nSlow()"
    )
    assert session.execute(code, timeout=0.5).status == "timeout"
    assert session.execute("kept").value == "42"


# Errors


@pytest.mark.parametrize(
    ("code", "short"),
    [
        ("x = 1\n\n1 / 0", "ZeroDivisionError: division by zero, cell line 3"),
        ("import json\njson.loads('{')", "JSONDecodeError: Expecting property name"),
        ("x = = 1", "SyntaxError: "),
        ("raise ExceptionGroup('g', [ValueError('a')])", "ExceptionGroup: g (1 sub-exception), "),
        ("import asyncio\nawait asyncio.sleep(0)\n[][0]", "IndexError: list index out of range, "),
    ],
)
@pytest.mark.row("error")
def test_an_error_has_one_line_for_a_model(session: Session, code: str, short: str) -> None:
    error = session.execute(code).error
    assert error is not None
    assert error.short.startswith(short)
    assert error.short.endswith(f", cell line {1 + code.count(chr(10))}")
    assert not any("\x1b" in line or "kernels/inside" in line for line in error.traceback)
