"""What is kept of a session's cells, from the events that its clients get."""

from __future__ import annotations

import copy
import gc
import json
import re
import time
from typing import Any
from weakref import ref

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.batches import Order
from broker.excerpt import HEAD, MOST_RICH, MOST_TEXT, TAIL, Outputs, joined
from broker.execution import Execution
from broker.notebook import REPEATED, notebook
from broker.orders import executions_of
from broker.requests import VISITOR, Call, Execute, marked
from broker.roles import SessionLimits
from broker.surroundings import NONE
from broker.transcript import Cell, Kept, Transcript

Event = dict[str, Any]


def execution(code: str = "x", execution_id: str = "e", **fields: Any) -> Execution:
    return Execution(Execute(id=execution_id, code=code, **fields), object(), 0.0)


def run(transcript: Transcript, *events: Event, code: str = "x", **fields: Any) -> None:
    one = execution(code, **fields)
    done = {"type": "done", "status": "ok", "execution_count": 1, "generation": 1}
    done["duration"] = 0.5
    for event in ({"type": "started"}, *events, done):
        transcript.note(one, {"id": one.id, **event})


def cells(transcript: Transcript) -> list[Cell]:
    return [kept.cell for kept in transcript.unwritten]


def kept(*events: Event, code: str = "x") -> Cell:
    transcript = Transcript(10, 1 << 20)
    run(transcript, *events, code=code)
    [cell] = cells(transcript)
    return cell


def text(words: str, name: str = "stdout") -> Event:
    return {"type": "stream", "name": name, "text": words}


def display(data: Event, **fields: Any) -> Event:
    return {"type": "display", "data": data, "metadata": {}, **fields}


def error(message: str = "no", lines: int = 1) -> Event:
    return {"type": "error", "name": "E", "message": message, "traceback": ["line"] * lines}


def book(*cells: Cell) -> Any:
    made = notebook(cells, session="s", kernelspec="python3", language="python")
    nbformat.validate(nbformat.from_dict(made))
    return made


def test_a_cell_is_kept_with_its_outputs_in_order() -> None:
    cell = kept(text("a"), text("b"), text("c", "stderr"), display({"text/plain": "d"}))
    assert [output["type"] for output in cell["outputs"]] == ["stream", "stream", "display"]
    assert cell["outputs"][0]["text"] == "ab"
    assert (cell["code"], cell["status"], cell["count"], cell["generation"]) == ("x", "ok", 1, 1)
    assert "left_out" not in cell


@pytest.mark.parametrize("fields", [{"silent": True}, {"store_history": False}])
def test_what_is_not_for_the_history_is_not_kept(fields: Event) -> None:
    transcript = Transcript(10, 1 << 20)
    run(transcript, text("a"), **fields)
    assert cells(transcript) == []


def visited(request: Execute | Call) -> Cell:
    [one] = executions_of(request, object(), 0.0, SessionLimits(), NONE)
    one.request = marked(one.request, VISITOR)
    transcript = Transcript(10, 1 << 20)
    done = {"type": "done", "status": "ok", "execution_count": None}
    for event in ({"type": "started", "origin": VISITOR}, text("a"), done):
        transcript.note(one, {"id": one.id, **event})
    [cell] = cells(transcript)
    return cell


@pytest.mark.parametrize("fields", [{"silent": True}, {"store_history": False}])
def test_a_visitor_keeps_nothing_out_of_the_history(fields: Event) -> None:
    cell = visited(Execute(id="e", code="peek()", **fields))
    assert (cell["code"], cell["origin"]) == ("peek()", "operator")
    assert cell["outputs"] == [text("a")]


def test_a_visitors_call_is_in_the_history_with_its_function() -> None:
    cell = visited(Call(id="c", function="lambda x: peek(x)", args=["private"]))
    assert cell["origin"] == "operator"
    assert cell["code"].startswith("# called as a function")
    assert cell["code"].endswith("\nlambda x: peek(x)")
    assert "private" not in str(cell)
    book(cell)


def test_what_never_started_is_not_kept() -> None:
    transcript = Transcript(10, 1 << 20)
    transcript.note(execution(), {"type": "done", "id": "e", "status": "cancelled"})
    assert cells(transcript) == []


def test_zero_keeps_nothing() -> None:
    for transcript in (Transcript(0, 1 << 20), Transcript(10, 0)):
        run(transcript, text("a"))
        assert cells(transcript) == []
        assert not transcript.unwritten


def test_inputs_environment_and_answers_are_never_kept() -> None:
    transcript = Transcript(10, 1 << 20)
    request = {"type": "input_request", "prompt": "Password:", "password": True}
    run(transcript, request, inputs={"a": "secret"}, env={"B": "secret"})
    assert "secret" not in str(cells(transcript))
    assert cells(transcript)[0]["outputs"] == []


@pytest.mark.parametrize(
    ("metadata", "origin"),
    [
        ({"origin": "attach"}, "attach"),
        ({"origin": "a-1"}, "a-1"),
        ({}, None),
        ({"origin": ""}, None),
        ({"origin": "Attach"}, None),
        ({"origin": "a\n"}, None),
        ({"origin": "a" * 33}, None),
        ({"origin": ["attach"]}, None),
        ({"other": "attach"}, None),
    ],
)
def test_a_cell_says_where_it_comes_from(metadata: Event, origin: str | None) -> None:
    one = execution(metadata=metadata)
    one.started = 1.0
    started = one.late_start()
    assert started is not None
    assert started.get("origin") == origin
    transcript = Transcript(10, 1 << 20)
    done = {"status": "ok", "execution_count": 1, "generation": 1, "duration": 0.5}
    for event in (started, {"type": "done", "id": "e", **done}):
        transcript.note(one, event)
    [cell] = cells(transcript)
    assert cell.get("origin") == origin
    assert book(cell)["cells"][0]["metadata"]["broker"].get("origin") == origin


def test_a_notebook_tells_when_its_cells_ran_as_jupyterlab_does() -> None:
    cell = {**kept(text("a")), "started": 1.5, "duration": 0.25}
    made = book(cell)["cells"][0]["metadata"]["execution"]
    assert made == {
        "iopub.execute_input": "1970-01-01T00:00:01.500000Z",
        "shell.execute_reply": "1970-01-01T00:00:01.750000Z",
    }
    for odd in ({"started": None}, {"duration": "x"}, {"started": 1e300}, {"duration": 1e300}):
        assert "execution" not in book({**cell, **odd})["cells"][0]["metadata"]


LINES = [f"line {number:06}\n" for number in range(20_000)]  # 240,000 characters


def flood(pieces: int, name: str = "stdout") -> list[Event]:
    """Return the lines in so many events."""
    size = len(LINES) // pieces
    return [text("".join(LINES[at : at + size]), name) for at in range(0, len(LINES), size)]


@pytest.mark.row("text of a cell in its transcript")
@pytest.mark.parametrize("pieces", [1, 4, 200, 20_000])
def test_of_text_over_the_bound_the_first_and_the_last_lines_are_kept(pieces: int) -> None:
    cell = kept(*flood(pieces), error())
    first, gap, last, failed = cell["outputs"]
    assert first["text"].startswith("line 000000\nline 000001\n")
    assert last["text"].endswith("line 019998\nline 019999\n")
    assert failed["type"] == "error"
    for part in (first, last):  # whole lines
        assert re.fullmatch(r"(line \d{6}\n)+", part["text"])
        assert MOST_TEXT // 8 < len(part["text"]) <= MOST_TEXT // 2
    missing = 240_000 - len(first["text"]) - len(last["text"])
    assert gap == {"type": "left_out", "size": missing}
    assert cell["left_out"] == missing


def test_text_within_the_bound_is_one_piece() -> None:
    half = "x" * (MOST_TEXT // 2 - 1000)
    cell = kept(text(half), text(half), error())
    assert [output["type"] for output in cell["outputs"]] == ["stream", "error"]
    assert cell["outputs"][0]["text"] == half * 2
    assert "left_out" not in cell


def test_neighbouring_pieces_of_one_stream_are_one() -> None:
    shown = display({"text/plain": "d"})
    pieces = [text("a"), text("b"), text("c", "stderr"), shown, text("d"), text("e"), error()]
    before = copy.deepcopy(pieces)
    told = [text("ab"), text("c", "stderr"), shown, text("de"), error()]
    assert joined(pieces) == told
    assert joined([]) == []
    assert pieces == before


def test_what_is_shown_amid_a_flood_is_kept_in_its_order() -> None:
    events = flood(100)
    cell = kept(*events[:70], display({"text/plain": "amid"}), *events[70:], error())
    kinds = [output["type"] for output in cell["outputs"]]
    assert kinds == ["stream", "display", "left_out", "stream", "error"]
    cell = kept(*events, display({"text/plain": "last"}), text("end", "stderr"))
    kinds = [output["type"] for output in cell["outputs"]]
    assert kinds == ["stream", "left_out", "stream", "display", "stream"]


def test_a_line_without_an_end_is_bounded_too() -> None:
    cell = kept(*[text("x" * 1000)] * 1000, text("the end"))
    first, gap, last = cell["outputs"]
    assert last["text"].endswith("xxthe end")
    assert len(first["text"]) + gap["size"] + len(last["text"]) == 1_000_007
    assert len(first["text"]) + len(last["text"]) <= MOST_TEXT


def test_two_streams_by_turns_are_bounded_and_end_with_the_last() -> None:
    events = (text(f"{n}\n", "stdout" if n % 2 else "stderr") for n in range(10_000))
    cell = kept(*events)
    assert len(cell["outputs"]) < 1000
    assert [output["text"] for output in cell["outputs"][-2:]] == ["9998\n", "9999\n"]


def test_what_was_cleared_is_nothing_that_is_missing() -> None:
    cell = kept(*flood(10), {"type": "clear", "wait": False}, text("new"))
    assert cell["outputs"] == [text("new")]
    assert "left_out" not in cell


def test_a_flood_takes_no_memory_while_the_cell_runs() -> None:
    outputs = Outputs()
    for event in flood(10) * 20:
        outputs.take("stream", event)
        assert outputs.size <= MOST_TEXT + TAIL + 1000
    assert outputs.size > HEAD


def test_what_the_kernel_has_left_out_counts_and_its_file_is_named() -> None:
    transcript, one = Transcript(10, 1 << 20), execution()
    for event in ({"type": "started"}, *flood(10)):
        transcript.note(one, {"id": "e", **event})
    cut = {"shown": 240_000, "total": 1_240_000, "file": ".outputs/1.txt"}
    done = {"type": "done", "id": "e", "status": "ok", "execution_count": 1, "files": []}
    transcript.note(one, {**done, "truncated": cut})
    [cell] = cells(transcript)
    first, gap, last = cell["outputs"]
    assert gap["size"] == 1_240_000 - len(first["text"]) - len(last["text"])
    assert gap["file"] == ".outputs/1.txt"
    made = book(cell)["cells"][0]["outputs"]
    assert [output["name"] for output in made] == ["stdout", "stderr", "stdout"]
    note = f"[{gap['size']:,} characters of text left out here; while the session lives,"
    assert made[1]["text"] == f"\n{note} .outputs/1.txt has it]\n"


def test_no_half_of_a_secret_stands_at_a_cut() -> None:
    secret = "0123456789abcdefghijklmnopqrstuvwxyz"
    for shift in range(0, 40, 3):
        transcript, one = Transcript(10, 1 << 20), execution()
        one.order = Order({"env": {"API_KEY": secret}})
        flood = "-" * shift + secret * 5000
        done = {"type": "done", "status": "ok", "execution_count": 1}
        for event in ({"type": "started"}, text(flood[:1000]), text(flood[1000:]), done):
            transcript.note(one, {"id": "e", **event})
        [cell] = cells(transcript)
        first, gap, last = cell["outputs"]
        assert gap["size"] > 0
        assert not set("0123456789xyz") & set(first["text"] + last["text"])


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PEM = "-----BEGIN PRIVATE KEY-----\n{}-----END PRIVATE KEY-----\n".format(
    "".join(f"{n:04}{LETTERS * 2}{LETTERS[:8]}\n" for n in range(24))
)


def secret_kept(secret: str, *events: Event) -> Cell:
    transcript, one = Transcript(10, 1 << 20), execution()
    one.order = Order({"env": {"PRIVATE_KEY": secret}})
    done = {"type": "done", "status": "ok", "execution_count": 1}
    for event in ({"type": "started"}, *events, done):
        transcript.note(one, {"id": "e", **event})
    [cell] = cells(transcript)
    return cell


@pytest.mark.parametrize("secret", [PEM, PEM.replace("\n", ""), PEM * 10], ids=len)
@pytest.mark.parametrize("shift", [0, 5, 27, 28, 100, 700, 1500, 1590, 1620])
def test_no_part_of_a_long_secret_stands_at_a_cut(secret: str, shift: int) -> None:
    around = "little by little\n"
    before = (around * HEAD)[: HEAD - shift]
    after = (around * TAIL)[: TAIL - len(secret) + shift]
    cell = secret_kept(
        secret, text(before), text(secret), text(around * HEAD), text(secret + after)
    )
    first, gap, last = cell["outputs"]
    assert gap["type"] == "left_out"
    for part in (first, last):
        assert not set(LETTERS) & set(part["text"].replace("[redacted PRIVATE_KEY]", ""))
        assert len(part["text"]) > 10_000 or len(secret) > 10_000


@pytest.mark.parametrize("at", [1, 40, 300, 1600])
def test_no_part_of_a_secret_stands_beside_a_kernels_note(at: int) -> None:
    for note in ("", "; all are in .outputs/1.txt"):
        cut = f"a {PEM[:at]}\n… 12345 characters left out{note} …\n{PEM[at:]} b"
        [shown] = secret_kept(PEM, text(cut))["outputs"]
        told = shown["text"].replace("[redacted PRIVATE_KEY]", "")
        assert (told[:2], told[-2:]) == ("a ", " b")
        assert not set(LETTERS) & set(told)


def test_a_secret_of_many_lines_is_found_in_a_traceback() -> None:
    lines = ["Traceback", *f"ValueError: {PEM}".split("\n"), "the end"]
    [failed] = secret_kept(PEM, error() | {"traceback": lines})["outputs"]
    assert failed["traceback"][0] == "Traceback"
    assert failed["traceback"][1] == "ValueError: [redacted PRIVATE_KEY]"
    assert failed["traceback"][-1] == "the end"


@pytest.mark.parametrize("rest", ["…", "…, cell line 3", " [1,200 characters left out]", ""])
def test_no_beginning_of_a_secret_stands_where_words_were_clipped(rest: str) -> None:
    told = {"message": f"no {PEM[:60]}{rest}", "short": f"E: {PEM[:60]}{rest}"}
    [failed] = secret_kept(PEM, error() | told)["outputs"]
    assert failed["message"] == f"no [redacted PRIVATE_KEY]{rest}"
    assert failed["short"] == f"E: [redacted PRIVATE_KEY]{rest}"


def test_what_is_shown_amid_a_flood_keeps_no_half_of_a_secret_before_it() -> None:
    secret = "0123456789abcdefghijklmnopqrstuvwxyz"
    flood = [display({"text/plain": "amid"}), *[text(".\n" * 1000)] * 100]
    for there in range(1, 36, 2):
        before = text("-" * (HEAD - 1 - there) + "\n" + secret)
        first, amid, *_ = secret_kept(secret, before, *flood)["outputs"]
        assert amid["type"] == "display"
        assert "0" not in first["text"], there


class Told(dict[str, Any]):
    """An event whose end can be seen."""


@pytest.mark.parametrize("flood", [text("x" * 1000), display({"a": "b" * 1000}), display({})])
def test_the_events_of_a_flood_are_not_kept(flood: Event) -> None:
    transcript, one = Transcript(10, 1 << 20), execution()
    transcript.note(one, {"type": "started", "id": "e"})
    events = [Told(flood, id="e") for _ in range(1000)]
    for event in events:
        transcript.note(one, event)
    known = [ref(event) for event in events]
    del event, events
    gc.collect()
    assert [each() for each in known if each() is not None] == []


def test_of_a_cell_that_wrote_many_files_their_names_are_not_kept() -> None:
    transcript, one = Transcript(10, 1 << 20), execution()
    done = Told(type="done", id="e", status="ok", execution_count=1, files={"created": ["a"]})
    transcript.note(one, {"type": "started", "id": "e"})
    transcript.note(one, done)
    kept = ref(done)
    del done
    gc.collect()
    assert kept() is None
    [cell] = cells(transcript)
    assert (cell["status"], cell["count"], "files" in cell) == ("ok", 1, False)


def test_of_a_display_the_forms_that_fit_are_kept() -> None:
    cell = kept(display({"image/png": bytes(MOST_RICH + 1), "text/plain": "<Figure>"}))
    assert cell["outputs"][0]["data"] == {"text/plain": "<Figure>"}
    assert cell["left_out"] > MOST_RICH
    cell = kept(display({"image/png": bytes(MOST_RICH + 1)}))
    assert "not kept" in cell["outputs"][0]["data"]["text/plain"]
    cell = kept(display({"image/png": bytes(100_000)}))
    assert cell["outputs"][0]["data"] == {"image/png": bytes(100_000)}


def test_a_display_that_changes_is_kept_as_it_is_last_and_pays_once() -> None:
    updates = [
        display({"text/html": "y" * 1000 + str(n)}, display_id="d", update=True)
        for n in range(1000)
    ]
    cell = kept(display({"text/html": "x"}, display_id="d"), *updates)
    [output] = cell["outputs"]
    assert output["data"]["text/html"].endswith("999")
    assert "left_out" not in cell


@pytest.mark.parametrize("wait", [True, False])
def test_what_is_cleared_is_not_kept(wait: bool) -> None:
    cell = kept(text("old" * 1000), {"type": "clear", "wait": wait}, text("new"))
    assert [output["text"] for output in cell["outputs"]] == ["new"]


def test_a_clear_that_waits_for_nothing_clears_nothing() -> None:
    cell = kept(text("old"), {"type": "clear", "wait": True})
    assert [output["text"] for output in cell["outputs"]] == ["old"]


@pytest.mark.row("transcript of a session")
def test_the_oldest_cells_go() -> None:
    transcript = Transcript(3, 1 << 20)
    for number in range(5):
        run(transcript, code=str(number))
    assert [cell["code"] for cell in cells(transcript)] == ["2", "3", "4"]
    assert len(transcript.unwritten) == 3
    transcript = Transcript(100, 10_000)
    for number in range(50):
        run(transcript, text("x" * 1000), code=str(number))
    assert 1 <= len(cells(transcript)) < 10
    assert cells(transcript)[-1]["code"] == "49"
    run(transcript, text("x" * 20_000), code="no room for it")
    assert cells(transcript)[-1]["code"] == "49"


def test_what_is_written_is_forgotten_but_for_what_had_to_go_meanwhile() -> None:
    transcript = Transcript(3, 1 << 20)
    for number in range(3):
        run(transcript, code=str(number))
    writing = list(transcript.unwritten)[:2]
    assert not transcript.is_stored
    run(transcript, code="3")
    transcript.written(writing)
    assert [cell["code"] for cell in cells(transcript)] == ["2", "3"]
    transcript.written(list(transcript.unwritten))
    assert (cells(transcript), transcript.is_stored) == ([], True)
    assert repr(transcript) == "<Transcript: 0 cells to write, 0 bytes>"


def test_a_cell_from_the_store_is_what_it_was() -> None:
    transcript = Transcript(10, 1 << 20)
    run(transcript, display({"image/png": b"\x89"}), code="first")
    made = book(Kept(None, 0, transcript.unwritten[0].packed).cell)
    assert made["cells"][0]["outputs"][0]["data"]["image/png"] == "iQ=="


def test_what_a_cell_was_is_told_without_its_outputs_being_read() -> None:
    transcript = Transcript(10, 1 << 20)
    code = 'a = {"b": 1,"outputs":[]}'
    run(transcript, display({"text/plain": "x" * 10_000}), code=code)
    [one] = transcript.unwritten
    told = {"execution_count": 1, "code": code, "status": "ok", "generation": 1}
    assert one.told == told
    cut = one.packed[: one.packed.rindex(b"xxx")]  # no JSON any more: it would be refused
    assert one.told == told
    assert Kept(None, 0, cut).told == told


def test_a_cell_in_another_order_is_told_as_well() -> None:
    packed = b'{"id":"e","outputs":[],"code":"x","count":1,"status":"ok","generation":1}'
    told = Kept(None, 0, packed).told
    assert told == {"execution_count": 1, "code": "x", "status": "ok", "generation": 1}


def test_a_display_in_many_places_changes_at_the_price_of_one() -> None:
    updates = [
        display({"text/plain": str(number)}, display_id="d", update=True) for number in range(2000)
    ]

    def took(places: int) -> float:
        first = [display({"text/plain": "0"}, display_id="d")] * places
        transcript, one = Transcript(10, 1 << 20), execution()
        for event in ({"type": "started"}, *first):
            transcript.note(one, {"id": "e", **event})
        before = time.thread_time()
        for event in updates:
            transcript.note(one, {"id": "e", **event})
        spent = time.thread_time() - before
        run(transcript, *first, *updates, display({"text/plain": "own"}, display_id="d"))
        shown = [output["data"]["text/plain"] for output in cells(transcript)[-1]["outputs"]]
        assert shown == ["1999"] * places + ["own"]
        return spent

    assert took(900) < 10 * took(1) + 0.05


def test_what_later_cells_change_costs_a_notebook_no_more_for_many_places() -> None:
    changes = [kept(display({"text/plain": "1"}, display_id="d", update=True))] * 2000

    def took(places: int) -> float:
        first = kept(*[display({"text/plain": "0"}, display_id="d")] * places)
        before = time.thread_time()
        made = notebook([first, *changes], session="s", kernelspec="python3", language="python")
        spent = time.thread_time() - before
        shown = [output["data"]["text/plain"] for output in made["cells"][0]["outputs"]]
        assert shown == ["1"] * places
        return spent

    assert took(900) < 10 * took(1) + 0.05


def test_a_display_changed_in_many_places_takes_no_room_of_other_cells() -> None:
    transcript = Transcript(10, 1 << 20)
    for number in range(5):
        run(transcript, code=str(number))
    places = [display({"text/plain": "0"}, display_id="d")] * 50
    form = {"image/png": bytes(100_000), "text/plain": "<Figure>"}
    run(transcript, *places, display(form, display_id="d", update=True), code="5")
    assert [cell["code"] for cell in cells(transcript)] == ["0", "1", "2", "3", "4", "5"]
    last = cells(transcript)[-1]
    assert [output["data"] for output in last["outputs"]] == [{"text/plain": "<Figure>"}] * 50
    assert last["left_out"] >= 100_000
    assert transcript.unwritten[-1].size <= MOST_RICH + MOST_TEXT


def test_the_names_of_displays_count_too() -> None:
    for update in ([], [display({"text/plain": ""}, display_id="1999".zfill(2000), update=True)]):
        names = (str(number).zfill(2000) for number in range(2000))
        shown = [display({"text/plain": ""}, display_id=name) for name in names]
        transcript = Transcript(10, 4 << 20)
        run(transcript, *shown, *update)
        [one] = transcript.unwritten
        assert len(one.packed) <= 2 * MOST_RICH + MOST_TEXT
        assert len(one.packed) <= 2 * one.size


def test_a_display_in_a_few_places_is_kept_as_it_was_changed_to() -> None:
    places = [display({"text/plain": "0"}, display_id="d")] * 2
    cell = kept(*places, display({"image/png": bytes(100_000)}, display_id="d", update=True))
    assert [output["data"] for output in cell["outputs"]] == [{"image/png": bytes(100_000)}] * 2
    assert "left_out" not in cell


def test_what_a_batch_has_waiting_ends_no_record_of_its_cell_that_runs() -> None:
    transcript, first, second = Transcript(10, 1 << 20), execution(), execution()
    transcript.note(first, {"type": "started", "id": "e"})
    transcript.note(second, {"type": "done", "id": "e", "status": "cancelled"})
    transcript.note(first, {"id": "e", **text("later")})
    done = {"type": "done", "id": "e", "status": "ok", "execution_count": 3}
    transcript.note(first, done)
    [cell] = cells(transcript)
    assert (cell["status"], cell["count"]) == ("ok", 3)
    assert cell["outputs"] == [text("later")]


@pytest.mark.row("what a notebook repeats of changed displays")
def test_a_display_changed_in_many_places_takes_a_notebook_no_more_than_its_bound() -> None:
    shown = [kept(*[display({"text/plain": "0"}, display_id="d")] * 850) for _ in range(3)]
    change = kept(display({"text/plain": "é" * 200_000}, display_id="d", update=True))
    made = book(*shown, change)
    assert len(json.dumps(made)) < 3 * REPEATED
    outputs = [output for cell in made["cells"] for output in cell["outputs"]]
    assert len(outputs) == 3 * 850
    assert outputs[-1]["data"] == outputs[-2]["data"] == {"text/plain": "é" * 200_000}
    assert outputs[0]["data"] == {"text/plain": "[1,200,044 bytes that are shown further down]"}
    assert outputs[0]["metadata"] == {}


def test_a_notebook_says_where_variables_were_lost() -> None:
    transcript = Transcript(10, 1 << 20)
    run(transcript, code="a = 1")
    transcript.lose("oom `x`\n# no")
    run(transcript, code="a")
    run(transcript, code="b")
    made = book(*cells(transcript))
    kinds = [cell["cell_type"] for cell in made["cells"]]
    assert kinds == ["code", "markdown", "code", "code"]
    assert "`oom 'x' # no`" in made["cells"][1]["source"]


def test_a_later_cell_changes_what_an_earlier_one_has_shown() -> None:
    transcript = Transcript(10, 1 << 20)
    run(transcript, display({"text/plain": "0 %"}, display_id="d"))
    run(transcript, display({"text/plain": "100 %"}, display_id="d", update=True))
    first, second = book(*cells(transcript))["cells"]
    assert first["outputs"][0]["data"] == {"text/plain": "100 %"}
    assert second["outputs"] == []


def test_a_notebook_has_every_kind_of_output() -> None:
    result = {"type": "result", "data": {"text/plain": "1"}, "metadata": {}, "execution_count": 1}
    odd = display({"application/vnd.x+json": {"a": [1]}, "application/x": {"b": 2}})
    cell = book(kept(text("t"), odd, result, error()))["cells"][0]
    assert [output["output_type"] for output in cell["outputs"]] == [
        "stream",
        "display_data",
        "execute_result",
        "error",
    ]
    assert cell["outputs"][1]["data"]["application/vnd.x+json"] == {"a": [1]}
    assert cell["outputs"][1]["data"]["application/x"] == '{"b": 2}'
    assert cell["outputs"][2]["execution_count"] == 1
    assert cell["metadata"]["broker"]["status"] == "ok"


WORDS = st.sampled_from(["", "a", "\ud800", "\x00", "text/plain", "é" * 50, "x" * 5000])
DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
FORMS = st.sampled_from(
    ["text/plain", "text/html", "application/json", "a/b+json", "", "image/png"]
)
BUNDLES = st.dictionaries(FORMS, DATA | st.binary(max_size=50), max_size=3)
IDS = st.sampled_from([None, "d", "e", ""])
EVENTS = st.one_of(
    st.builds(text, WORDS, st.sampled_from(["stdout", "stderr"])),
    st.builds(error, WORDS, st.integers(0, 100)),
    st.builds(lambda wait: {"type": "clear", "wait": wait}, st.booleans()),
    st.builds(
        lambda data, metadata, display_id, update: {
            **display(data, update=update),
            "metadata": metadata,
            **({} if display_id is None else {"display_id": display_id}),
        },
        BUNDLES,
        st.dictionaries(WORDS, DATA, max_size=2),
        IDS,
        st.booleans(),
    ),
    st.builds(
        lambda data: {"type": "result", "data": data, "metadata": {}, "execution_count": 1}, BUNDLES
    ),
)


@given(st.lists(EVENTS, max_size=8))
def test_what_is_made_of_a_cell_later_is_what_would_have_been_made_at_once(
    events: list[Event],
) -> None:
    outputs = Outputs()
    for event in events:
        outputs.take(event["type"], event)
    cell = kept(*events)
    assert repr(cell["outputs"]) == repr(outputs.end())
    assert cell.get("left_out", 0) == outputs.left_out


@settings(max_examples=150)
@given(runs=st.lists(st.lists(EVENTS, max_size=8), max_size=4), packed=st.booleans())
def test_whatever_was_sent_the_notebook_validates(runs: list[list[Event]], packed: bool) -> None:
    transcript = Transcript(3, 1 << 20)
    for events in runs:
        run(transcript, *events)
        transcript.lose("lost")
    found = cells(transcript)
    if packed:
        assert all(one.packed for one in transcript.unwritten)
        found = cells(transcript)
    made = book(*found)
    code = [cell for cell in made["cells"] if cell["cell_type"] == "code"]
    assert len(code) == min(3, len(runs))
