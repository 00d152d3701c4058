"""What Jupyter's clients are told of what has run, beside what IPython's database tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.history import HistoryAccessor

from broker.errors import BadMessage
from broker.jupyter.history import MOST, history
from broker.transcript import Kept

RUN = [  # generation, count, code, result
    (1, 1, "import math", None),
    (1, 2, "math.pi", "3.14"),
    (1, 3, "print(1)", None),
    (2, 1, "import math", None),
    (2, 2, "tau = math.tau\ntau", "6.28"),
    (4, 1, "x = [1]", None),
    (4, 2, "x", "[1]"),
    (4, 3, "math.pi", None),
    (4, 4, "", None),
]
NOW = 4


def cell(generation: int, count: int | None, code: str, result: str | None) -> Kept:
    outputs: list[dict[str, Any]] = [{"type": "stream", "name": "stdout", "text": "said\n"}]
    if result is not None:
        outputs.append({"type": "result", "data": {"text/plain": result}, "metadata": {}})
    told = {"id": "e", "code": code, "started": 1.0, "count": count, "generation": generation}
    packed = json.dumps(told | {"outputs": outputs}, separators=(",", ":"))
    return Kept(None, len(packed), packed.encode())


KEPT = [cell(*one) for one in RUN]


def entries(asked: dict[str, Any], kept: list[Kept] = KEPT, now: int = NOW) -> list[Any]:
    content = history(kept, asked, now)
    assert content["status"] == "ok"
    return list(content["history"])


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> HistoryAccessor:
    """Return the database of an IPython that has run the same."""
    path: Path = tmp_path_factory.mktemp("history") / "history.sqlite"
    accessor = HistoryAccessor(hist_file=str(path))
    for session in sorted({generation for generation, *_ in RUN}):
        accessor.db.execute("INSERT INTO sessions VALUES (?, NULL, NULL, NULL, '')", (session,))
    for generation, count, code, result in RUN:
        row = (generation, count, code, code)
        accessor.db.execute("INSERT INTO history VALUES (?, ?, ?, ?)", row)
        if result is not None:
            out = (generation, count, result)
            accessor.db.execute("INSERT INTO output_history VALUES (?, ?, ?)", out)
    return accessor


@pytest.mark.parametrize("output", [False, True])
@pytest.mark.parametrize("n", [None, 0, 1, 3, 9, 500])
def test_a_tail_is_that_of_ipython(database: HistoryAccessor, n: int | None, output: bool) -> None:
    theirs = [*database.get_tail(n, output=output, include_latest=True)]
    asked = {"hist_access_type": "tail", "n": n, "output": output, "raw": True}
    assert entries(asked) == theirs
    assert len(theirs) == min(len(RUN), 9 if n is None else n)


@pytest.mark.parametrize("output", [False, True])
@pytest.mark.parametrize("session", [1, 2, 3])
@pytest.mark.parametrize(("start", "stop"), [(0, None), (1, 3), (2, None), (2, 2), (3, 9), (9, 1)])
def test_a_range_of_an_earlier_generation_is_that_of_ipython(
    database: HistoryAccessor, session: int, start: int, stop: int | None, output: bool
) -> None:
    theirs = [*database.get_range(session, start, stop, output=output)]
    asked = {"hist_access_type": "range", "output": output, "start": start, "stop": stop}
    assert entries({**asked, "session": session}) == theirs
    assert entries({**asked, "session": session - NOW}) == theirs


@pytest.mark.parametrize(
    ("asked", "counts"),
    [
        ({}, [1, 2, 3, 4]),
        ({"session": 0, "start": 1, "stop": 2}, [1]),
        ({"session": None, "start": 3, "stop": None}, [3, 4]),
        ({"session": NOW, "start": -2}, [3, 4]),
        ({"start": 1, "stop": -1}, [1, 2, 3]),
        ({"start": -99, "stop": -99}, []),
    ],
)
def test_a_range_of_now_counts_from_zero(asked: dict[str, Any], counts: list[int]) -> None:
    came = entries({"hist_access_type": "range", **asked})
    assert [(session, count) for session, count, _ in came] == [(0, count) for count in counts]


@pytest.mark.parametrize("unique", [False, True])
@pytest.mark.parametrize("n", [None, 1, 2, 500])
@pytest.mark.parametrize("pattern", ["*", "*math*", "x", "x*", "?", "*[1]*", "[t]au*", "no such"])
def test_a_search_is_that_of_ipython(
    database: HistoryAccessor, pattern: str, n: int | None, unique: bool
) -> None:
    theirs = [*database.search(pattern, n=n, unique=unique)]
    asked = {"hist_access_type": "search", "pattern": pattern, "n": n, "unique": unique}
    assert entries(asked) == theirs


@pytest.mark.parametrize("access", [None, "", "all", 5, ["tail"], {}])
def test_another_kind_of_access_has_no_entries(access: object) -> None:
    assert entries({"hist_access_type": access, "n": 5}) == []


@pytest.mark.parametrize(
    "asked",
    [
        {"hist_access_type": "tail", "n": "5"},
        {"hist_access_type": "tail", "n": 1.5},
        {"hist_access_type": "tail", "n": True},
        {"hist_access_type": "tail", "n": 1 << 60},
        {"hist_access_type": "range", "session": "0"},
        {"hist_access_type": "range", "start": []},
        {"hist_access_type": "search", "pattern": 7},
        {"hist_access_type": "search", "pattern": "x" * 129},
    ],
)
def test_what_is_no_number_or_pattern_is_refused_by_its_name(asked: dict[str, Any]) -> None:
    with pytest.raises(BadMessage) as refused:
        history(KEPT, asked, NOW)
    assert refused.value.field == [*asked][-1]


def test_a_cell_that_never_began_has_no_count() -> None:
    kept = [cell(4, None, "x", None)]
    assert entries({"hist_access_type": "tail", "output": True}, kept) == [(4, 0, ("x", None))]
    assert entries({"hist_access_type": "range"}, kept) == [(0, 0, "x")]


def test_one_reply_carries_so_much_code_and_no_more() -> None:
    kept = [cell(1, count, "x" * (MOST // 4), None) for count in range(1, 10)]
    came = entries({"hist_access_type": "tail", "n": 500}, kept)
    assert [count for _, count, _ in came] == [6, 7, 8, 9]


anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text())


@given(
    st.sampled_from(["tail", "range", "search"]),
    st.dictionaries(
        st.sampled_from(["n", "session", "start", "stop", "pattern", "unique", "output", "raw"]),
        anything,
    ),
)
def test_whatever_is_asked_is_answered_or_refused(access: str, asked: dict[str, Any]) -> None:
    try:
        came = entries({"hist_access_type": access, **asked})
    except BadMessage:
        return
    assert len(came) <= len(RUN)
    assert json.loads(json.dumps(came)) is not None
