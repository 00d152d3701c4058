"""Secrets in what is kept of a session: which values are, and where they are found."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.execution import Execution
from broker.orders import executions_of
from broker.redaction import LEAST, MOST, Redaction, secrets_of
from broker.requests import Execute
from broker.roles import SessionLimits
from broker.surroundings import NONE
from broker.transcript import Cell, Transcript

VALUE = "hunter2-hunter2"


def redaction(**env: str) -> Redaction:
    made = Redaction()
    made.learn(env)
    return made


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("API_KEY", VALUE, (VALUE,)),
        ("GITHUB_TOKEN", VALUE, (VALUE,)),
        ("db_password", VALUE, (VALUE,)),
        ("PGPASSWORD", f"{VALUE}\n", (VALUE,)),
        ("AWS_SECRET_ACCESS_KEY", VALUE, (VALUE,)),
        ("apikey", VALUE, (VALUE,)),
        ("API_KEY", "short", ()),
        ("API_KEY", "", ()),
        ("DB", f"postgres://me:{VALUE}@db/x", (f"postgres://me:{VALUE}@db/x", VALUE)),
        ("DB", "postgres://db.internal/x", ()),
        ("STRIPE", "sk_live_4eC39HqLyjWDarjtT1zdp7dc", ("sk_live_4eC39HqLyjWDarjtT1zdp7dc",)),
        ("TZ", "Europe/Berlin", ()),
        ("LANG", "en_US.UTF-8", ()),
        ("MODE", "production", ()),
        ("KEYBOARD", "querty-german", ()),
        ("COMPASS", "north by northwest", ()),
        ("PYTHONPATH", "/opt/lib/python3.11/site-packages", ()),
    ],
)
def test_a_value_is_secret_by_its_name_or_its_look(
    name: str, value: str, found: tuple[str, ...]
) -> None:
    assert secrets_of(name, value) == found


def test_a_note_stands_in_the_place_of_a_secret() -> None:
    text = f"key={VALUE};{VALUE}"
    assert redaction(K_TOKEN=VALUE).redacted(text) == "key=[redacted K_TOKEN];[redacted K_TOKEN]"
    nested = {"a": [{VALUE: f"x{VALUE}"}, b"bytes", 1, None]}
    assert VALUE not in str(redaction(K_TOKEN=VALUE).redacted(nested))


def test_it_is_found_as_python_json_and_urls_write_it() -> None:
    value = 'quote"tab\tslash\\ü/%'
    known = redaction(PASSWORD=value)
    for text in (value, repr(value), json.dumps(value), quote(value, safe="")):
        assert "tab" not in known.redacted(f"<{text}>")


def test_of_a_long_secret_that_was_cut_the_rest_is_no_more_to_be_read() -> None:
    value = "".join(f"{n:04}" for n in range(1000))
    cut = redaction(PRIVATE_KEY=value).redacted(f"a {value[:700]}… b")
    assert cut == "a [redacted PRIVATE_KEY]… b"


def test_of_two_that_begin_alike_the_longer_one_is_meant() -> None:
    known = redaction(A_TOKEN=VALUE, B_TOKEN=VALUE + "-longer")
    assert known.redacted(VALUE + "-longer") == "[redacted B_TOKEN]"


def test_the_oldest_of_too_many_go() -> None:
    known = Redaction()
    for number in range(MOST + 1):
        known.learn({"A_TOKEN": f"secret-{number:06}"})
    assert len(known) == MOST
    assert known.redacted("secret-000000") == "secret-000000"
    assert known.redacted("secret-000001") == "[redacted A_TOKEN]"


@given(
    st.lists(st.text(min_size=LEAST, max_size=200), min_size=1, max_size=5), st.text(), st.data()
)
def test_no_secret_is_left_in_any_text(values: list[str], around: str, data: st.DataObject) -> None:
    known = redaction(**{f"S{n}_TOKEN": value for n, value in enumerate(values)})
    secrets = [value.strip() for value in values if len(value.strip()) >= LEAST]
    parts = data.draw(st.lists(st.sampled_from([*secrets, around, "x"]), max_size=6))
    told = known.redacted("".join(parts))
    for secret in secrets:
        assert secret not in told or secret in "[redacted S0_TOKEN]"


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=20))
def test_what_holds_no_secret_is_as_it_was(value: object) -> None:
    assert redaction(A_TOKEN="\udcff" * LEAST).redacted(value) == value


# In a transcript


def ran(transcript: Transcript, one: Execution, output: str) -> Cell:
    done = {"type": "done", "status": "ok", "execution_count": 1, "generation": 1, "duration": 0.5}
    for event in ({"type": "started"}, {"type": "stream", "name": "stdout", "text": output}, done):
        transcript.note(one, {"id": one.id, **event})
    return transcript.unwritten[-1].cell


def asked(around: object = NONE, **fields: object) -> Execution:
    request = Execute(id="e", code=f"print('{VALUE}')", **fields)  # type: ignore[arg-type]
    [one] = executions_of(request, object(), 0.0, SessionLimits(), around)  # type: ignore[arg-type]
    return one


def test_what_a_session_was_given_never_stands_in_its_transcript() -> None:
    transcript = Transcript(10, 1 << 20)
    assert VALUE in str(ran(transcript, asked(), VALUE))  # nobody has told yet that it is secret
    around = NONE.changed({"MY_TOKEN": VALUE}, None)
    cell = ran(transcript, asked(around), f"a {VALUE} b")
    assert cell["code"] == "print('[redacted MY_TOKEN]')"
    assert cell["outputs"][0]["text"] == "a [redacted MY_TOKEN] b"
    assert VALUE.encode() not in transcript.unwritten[-1].packed


def test_it_stays_out_when_the_variable_is_gone() -> None:
    transcript = Transcript(10, 1 << 20)
    ran(transcript, asked(env={"MY_TOKEN": VALUE}), "")
    assert VALUE not in str(ran(transcript, asked(), VALUE))


def test_a_secret_that_comes_in_pieces_is_found() -> None:
    transcript, one = Transcript(10, 1 << 20), asked(env={"MY_TOKEN": VALUE})
    transcript.note(one, {"type": "started", "id": "e"})
    for letter in VALUE:
        transcript.note(one, {"type": "stream", "id": "e", "name": "stdout", "text": letter})
    done = {"type": "done", "status": "ok", "execution_count": 1, "generation": 1, "duration": 0.5}
    transcript.note(one, {"id": "e", **done})
    assert transcript.unwritten[-1].cell["outputs"][0]["text"] == "[redacted MY_TOKEN]"


def test_events_that_clients_have_are_not_touched() -> None:
    transcript, one = Transcript(10, 1 << 20), asked(env={"MY_TOKEN": VALUE})
    shown = {"type": "display", "id": "e", "data": {"text/plain": VALUE}, "metadata": {}}
    transcript.note(one, {"type": "started", "id": "e"})
    transcript.note(one, shown)
    done = {"type": "done", "status": "ok", "execution_count": 1, "generation": 1, "duration": 0.5}
    transcript.note(one, {"id": "e", **done})
    assert VALUE not in str(transcript.unwritten[-1].cell)
    assert shown["data"] == {"text/plain": VALUE}
