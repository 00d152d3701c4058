"""What a client knows after its connection was made anew: tables of events and their outcomes."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.client.backoff import Backoff, is_passing, next_url
from broker.client.errors import (
    BadRequest,
    BrokerError,
    ConnectionLost,
    NoServer,
    OutputLost,
    SessionElsewhere,
    SessionMoved,
    StateLost,
    from_close,
    from_fault,
)
from broker.client.place import Following, Gap, Place
from broker.client.resume import Link

Told = list[Any]


def frame(**event: Any) -> str:
    return json.dumps(event)


def attach(seq: int, **fields: Any) -> str:
    return frame(type="session", seq=seq, **{"generation": 1, "state": "warm", **fields})


def joined(seq: int = 3) -> Link:
    """A link that has seen the events of a session up to a number."""
    link = Link()
    link.connected("first", None, again=False)
    link.receive(attach(seq))
    link.forget(link.request("execute", lambda _: None).id)  # which is told of the session
    return link


def asked(link: Link, kind: str = "execute") -> tuple[str, Told]:
    told: Told = []
    return link.request(kind, told.append, code="1").id, told


def again(link: Link) -> None:
    link.dropped(ConnectionLost("cut"))
    link.connected("second", None, again=True)


def names(told: Told) -> list[str]:
    return [one.get("type") if isinstance(one, dict) else type(one).__name__ for one in told]


# What the broker says at the reconnection of a client that has seen 4, and what becomes of its
# request, which had been sent: delivered, and whether it is sent again.
OUTCOMES = [
    ("it is open: it goes on", {"seq": 4, "open": ["ID"]}, [], [], False),
    ("it is done", {"seq": 5, "open": []}, [{"type": "done", "seq": 5}], ["done"], False),
    (
        "its events and its done come before anything is settled",
        {"seq": 6, "open": []},
        [{"type": "stream", "seq": 5}, {"type": "done", "seq": 6}],
        ["stream", "done"],
        False,
    ),
    ("it never arrived", {"seq": 4, "open": []}, [], [], True),
    ("something is missed", {"seq": 9, "open": [], "missed": [5, 9]}, [], ["OutputLost"], False),
    ("it is open, with a loss", {"seq": 9, "open": ["ID"], "missed": [5, 9]}, [], [], False),
    ("numbers of another broker", {"seq": 2, "open": []}, [], ["OutputLost"], False),
    (
        "another generation, and all that told of it is gone",
        {"seq": 9, "open": [], "missed": [5, 9], "generation": 2, "state": "lost", "reason": "oom"},
        [],
        ["session", "StateLost"],
        False,
    ),
    ("a broker that does not tell", {"seq": 4}, [], ["ConnectionLost"], False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("welcome", "kept", "outcome", "resent"),
    [row[1:] for row in OUTCOMES],
    ids=[row[0] for row in OUTCOMES],
)
def test_what_became_of_a_request_follows_from_what_the_broker_tells(
    welcome: dict[str, Any], kept: list[dict[str, Any]], outcome: list[str], resent: bool
) -> None:
    link = joined(3)
    request_id, told = asked(link)
    link.receive(frame(type="queued", seq=4, id=request_id))
    told.clear()
    again(link)
    if "open" in welcome:
        welcome = {**welcome, "open": [request_id for _ in welcome["open"]]}
    sent = link.receive(attach(**welcome))
    for event in kept:
        sent += link.receive(frame(id=request_id, **event))
    assert names(told) == outcome
    assert [json.loads(each)["id"] for each in sent] == ([request_id] if resent else [])


def test_what_has_begun_is_not_run_a_second_time() -> None:
    link = joined(3)
    request_id, told = asked(link)
    link.receive(frame(type="started", seq=4, id=request_id))
    told.clear()
    again(link)
    assert link.receive(attach(seq=4, open=[], state="lost")) == []
    assert names(told) == ["StateLost"]


def sent(frames: list[bytes | str]) -> list[tuple[str, str]]:
    return [(json.loads(each)["type"], json.loads(each)["id"]) for each in frames]


def test_what_never_arrived_is_sent_again_once_its_surroundings_are_set() -> None:
    link = joined(3)
    link.surround({"A": "1"}, None)
    first, _ = asked(link)
    for _ in range(2):  # the second connection is lost before they are
        again(link)
        [(kind, configure)] = sent(link.receive(attach(3, open=[])))
        assert kind == "configure"
        link.forget(asked(link)[0])
        assert not link.receive(frame(type="pong", id="another's"))
    third, _ = asked(link)
    answers = link.receive(frame(type="reply", id=configure))
    assert sent(answers) == [("execute", first), ("execute", third)]
    assert not link.receive(frame(type="pong", id="another's"))


@pytest.mark.parametrize("named", [True, False])
def test_surroundings_that_are_refused_end_the_connection(named: bool) -> None:
    link = joined(3)
    link.surround({"A": "1"}, None)
    asked(link)
    again(link)
    [(_, configure)] = sent(link.receive(attach(3, open=[])))
    fault = {"code": "bad_message", "message": "not that", "field": "env"}
    with pytest.raises(BadRequest):
        link.receive(frame(type="fault", **fault, **({"id": configure} if named else {})))


def test_a_connection_is_known_to_have_its_surroundings() -> None:
    link = joined(3)
    assert not link.lacks_surroundings
    link.surround({"A": "1"}, None)  # that was answered
    assert not link.lacks_surroundings
    again(link)
    assert not link.lacks_surroundings  # it sets them itself
    [(_, configure)] = sent(link.receive(attach(3, open=[])))
    link.receive(frame(type="reply", id=configure))
    assert not link.lacks_surroundings
    fresh = Link()
    fresh.surround({"A": "1"}, None)
    fresh.connected("first", None, again=False)
    assert fresh.lacks_surroundings
    fresh.surrounded("another")
    assert fresh.lacks_surroundings
    fresh.surrounded("first")
    assert not fresh.lacks_surroundings


def test_a_lost_range_is_told_with_its_numbers() -> None:
    link = joined(3)
    _, told = asked(link)
    again(link)
    link.receive(attach(9, open=[], missed=[4, 9]))
    (error,) = told
    assert isinstance(error, OutputLost)
    assert (error.missed, error.result) == ((4, 9), None)


def test_a_lost_range_of_what_goes_on_is_told_behind_its_done() -> None:
    link = joined(3)
    told: Told = []
    request = link.request("execute", told.append, code="1")
    again(link)
    link.receive(attach(9, open=[request.id], missed=[4, 7]))
    link.receive(frame(type="stream", seq=8, id=request.id))
    link.receive(frame(type="done", seq=9, id=request.id))
    assert names(told) == ["stream", "done"]
    with pytest.raises(OutputLost) as lost:
        request.check()
    assert lost.value.missed == (4, 7)


def test_a_lost_kernel_is_told_with_its_generation_reason_and_names() -> None:
    link = joined(3)
    _, told = asked(link)
    again(link)
    fields = {"generation": 2, "state": "lost", "reason": "node_lost", "lost": ["x", "y"]}
    link.receive(attach(9, open=[], missed=[4, 9], **fields))
    error = told[-1]
    assert isinstance(error, StateLost)
    assert (error.generation, error.reason, error.lost) == (2, "node_lost", ("x", "y"))


def test_only_executions_are_followed_to_another_connection() -> None:
    link = joined(3)
    _, told = asked(link, "interrupt")
    again(link)
    assert names(told) == ["ConnectionLost"]
    assert link.receive(attach(3, open=[])) == []


def test_what_is_asked_meanwhile_is_sent_once_the_place_is_known() -> None:
    link = joined(3)
    link.dropped(ConnectionLost("cut"))
    request_id, told = asked(link)
    ping = link.request("ping", told.append)
    assert ping.socket is None
    link.connected("second", None, again=True)
    assert link.receive(attach(5, open=[])) == []
    assert link.receive(frame(type="stream", seq=4, id="x")) == []
    sent = link.receive(frame(type="done", seq=5, id="x"))
    assert [json.loads(each)["id"] for each in sent] == [request_id, ping.id]
    assert told == []


def test_what_is_sent_once_the_place_is_known_is_not_sent_by_whoever_asked_as_well() -> None:
    link = joined(3)
    again(link)
    ping = link.request("ping", lambda _: None)
    assert len(link.receive(attach(3, open=[]))) == 1
    assert ping.socket is None


QUESTION = {"type": "input_request", "id": "x", "prompt": ""}


@pytest.mark.parametrize(
    ("cut_first", "welcome", "kept", "sent"),
    [
        (False, {"seq": 3, "waiting": [QUESTION]}, [], True),
        (True, {"seq": 3, "waiting": [QUESTION]}, [], True),
        (True, {"seq": 9, "waiting": [QUESTION], "missed": [4, 9]}, [], True),
        (False, {"seq": 9, "waiting": [QUESTION], "missed": [4, 9]}, [], False),
        (False, {"seq": 3}, [], False),
        (True, {"seq": 3}, [], False),
        (True, {"seq": 3, "waiting": [{"type": "tool_call", "id": "x"}, 7]}, [], False),
        (True, {"seq": 3, "waiting": 7}, [], False),
        (True, {"seq": 4, "waiting": [QUESTION]}, [{**QUESTION, "seq": 4}], False),
        (True, {"seq": 4}, [{"type": "done", "id": "x", "seq": 4}], False),
    ],
    ids=["cut off", "given meanwhile", "given meanwhile, with a loss", "sent, with a loss",
         "arrived", "answered by another", "a call waits", "nonsense", "another question", "done"],
)  # fmt: skip
def test_an_answer_goes_out_again_if_its_question_still_waits(
    cut_first: bool, welcome: dict[str, Any], kept: list[dict[str, Any]], sent: bool
) -> None:
    link = joined(3)
    if cut_first:
        link.dropped(ConnectionLost("cut"))
    link.request("input_reply", lambda _: None, about="x", value="Ada")
    again(link)
    frames = link.receive(attach(open=["x"], **welcome))
    for event in kept:
        frames += link.receive(frame(**event))
    assert [json.loads(each)["value"] for each in frames] == (["Ada"] if sent else [])


def ask(link: Link, seq: int, question: str) -> list[Any]:
    told = {**QUESTION, "question": question, "id": f"{link._prefix}-2"}
    return [json.loads(each) for each in link.receive(frame(**told, seq=seq))]


def reply(link: Link, value: str, question: str | None = "1") -> bool:
    """Answer the question; tell whether that is sent at once."""
    about = f"{link._prefix}-2"
    return link.request(
        "input_reply", lambda _: None, about=about, value=value, question=question
    ).socket is not None  # fmt: skip


def answers(frames: list[Any]) -> list[tuple[Any, Any]]:
    told = [json.loads(each) if isinstance(each, str) else each for each in frames]
    return [(one["value"], one["question"]) for one in told if one["type"] == "input_reply"]


def asking(seq: int = 4) -> tuple[Link, Told]:
    """A link with an execution that has asked a first question, and what it was told."""
    link = joined(3)
    request_id, told = asked(link)
    assert request_id == f"{link._prefix}-2"
    assert ask(link, seq, "1") == []
    return link, told


def test_a_question_that_another_broker_asks_again_is_answered_as_before_and_told_once() -> None:
    link, told = asking()
    assert reply(link, "Ada")
    again(link)
    # It is not known yet that it waits: the kernel is asked only now.
    assert answers(link.receive(attach(4, open=[f"{link._prefix}-2"]))) == []
    assert answers(ask(link, 5, "1")) == [("Ada", "1")]
    assert answers(link.receive(frame(type="other", seq=6))) == []
    ask(link, 7, "2")
    assert names(told) == ["input_request", "input_request"]


def test_a_question_asked_again_before_it_is_answered_is_answered_once() -> None:
    link, told = asking()
    again(link)
    link.receive(attach(5, open=[f"{link._prefix}-2"]))
    assert answers(ask(link, 5, "1")) == []
    assert reply(link, "Ada")
    assert answers(link.receive(frame(type="other", seq=6))) == []
    assert names(told) == ["input_request"]


def test_what_waits_is_told_by_its_number_whatever_was_missed() -> None:
    for question, sent in (("1", [("Ada", "1")]), ("2", [])):
        link, _ = asking()
        reply(link, "Ada")
        again(link)
        waiting = {**QUESTION, "id": f"{link._prefix}-2", "question": question}
        welcome = attach(9, open=[f"{link._prefix}-2"], missed=[5, 9], waiting=[waiting])
        assert answers(link.receive(welcome)) == sent


def test_the_question_of_another_broker_that_is_not_the_one_answered_is_told() -> None:
    link, told = asking()
    reply(link, "Ada")
    again(link)
    link.receive(attach(9, open=[f"{link._prefix}-2"], missed=[5, 9]))
    assert answers(ask(link, 10, "2")) == []
    assert names(told) == ["input_request", "input_request"]


def test_requests_after_the_end_are_told_why_there_is_no_connection() -> None:
    link = joined()
    _, told = asked(link)
    link.lost(NoServer("gone"))
    assert names(told) == ["NoServer"]
    with pytest.raises(NoServer):
        asked(link)


def test_a_session_that_another_node_serves_is_asked_for_there() -> None:
    link = joined(3)
    request_id, told = asked(link)
    fault = {"code": "busy", "message": "elsewhere", "node": "b", "url": "http://b"}
    with pytest.raises(SessionMoved) as elsewhere:
        link.receive(frame(type="fault", id=request_id, **fault))
    assert elsewhere.value.url == "http://b"
    assert told == []
    again(link)
    assert len(link.receive(attach(2**50, open=[], missed=[4, 2**50]))) == 1


@given(st.integers(1, 50), st.lists(st.integers(0, 60), max_size=60))
def test_a_place_lets_each_number_through_once_and_in_order(first: int, numbers: list[int]) -> None:
    place, seen = Place(), [first]
    assert place.take({"seq": first})
    for number in numbers:
        try:
            if place.take({"seq": number}):
                seen.append(number)
        except Gap:
            assert number > place.last + 1
    assert all(second == one + 1 for one, second in pairwise(seen))
    assert place.take({"type": "reply"})


@pytest.mark.parametrize(
    "event",
    [
        {"type": "stream", "seq": 4},
        {"type": "session"},
        {"type": "session", "seq": 9, "missed": [7, 8]},
        {"type": "session", "seq": 9, "missed": [4, 10]},
        {"type": "session", "seq": 9, "missed": "all"},
    ],
)
def test_a_welcome_that_does_not_tell_the_place_is_refused(event: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        Place(3).rejoin(event)


def test_a_watcher_is_told_what_is_missed_and_else_sees_no_seam() -> None:
    following = Following(3)
    assert following.receive(attach(4, open=[])) is None
    assert (following.receive(frame(type="stream", seq=4)) or {})["seq"] == 4
    assert following.receive(frame(type="stream", seq=4)) is None
    following.joining = True
    told = following.receive(attach(8, open=[], missed=[5, 6]))
    assert told is not None
    assert told["missed"] == [5, 6]
    assert (following.receive(frame(type="stream", seq=7)) or {})["seq"] == 7


def test_attempts_are_further_and_further_apart_and_end() -> None:
    now, bounds = [0.0], []

    def most(_: float, bound: float) -> float:
        bounds.append(bound)
        return bound

    backoff = Backoff(20, clock=lambda: now[0], uniform=most)
    lost = ConnectionLost("cut")
    while (delay := backoff.wait(lost)) is not None:
        now[0] += delay
    assert bounds[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert 15 < now[0] <= 20
    backoff.worked()
    assert backoff.wait(lost) == 0.1


def test_a_connection_that_was_sound_makes_the_next_outage_another_one() -> None:
    now = [0.0]
    backoff = Backoff(10, clock=lambda: now[0], uniform=lambda a, b: b)
    assert backoff.wait(ConnectionLost("cut")) == 0.1
    backoff.joined()
    assert backoff.wait(ConnectionLost("cut")) == 0.2
    backoff.joined()
    now[0] = 3600.0
    assert backoff.wait(ConnectionLost("cut")) == 0.1


def test_a_wait_that_is_asked_for_is_kept_and_bounded() -> None:
    backoff = Backoff(10, clock=lambda: 0.0, uniform=lambda a, b: b)
    busy = from_fault({"code": "draining", "retry_after": 3})
    assert backoff.wait(busy) == 3
    assert backoff.wait(from_fault({"code": "draining", "retry_after": 1e9})) is None
    assert Backoff(0, clock=lambda: 0.0, uniform=lambda a, b: b).wait(busy) is None


@pytest.mark.parametrize(
    ("code", "passing"),
    [
        (None, True),
        (1001, True),
        (1006, True),
        (1011, True),
        (1013, True),
        (4408, True),
        (4409, True),
        (1000, False),
        (1009, False),
        (4400, False),
        (4401, False),
        (4404, False),
        (4406, False),
    ],
)
def test_close_codes_say_whether_to_come_back(code: int | None, passing: bool) -> None:
    assert is_passing(from_close(code, "")) is passing


def elsewhere(url: str) -> BrokerError:
    error = SessionElsewhere("elsewhere")
    error.url = url
    return error


@pytest.mark.parametrize(
    ("home", "now", "error", "expected"),
    [
        ("http://a", "http://a", elsewhere("http://b/"), "http://b"),
        ("http://a", "http://b", NoServer("gone"), "http://a"),
        ("http://a", "http://b", elsewhere(""), "http://b"),
        ("https://a", "https://a", elsewhere("http://b"), "https://a"),
        ("http://a", "http://a", from_close(4409, "on node b http://b:1"), "http://b:1"),
        ("http://a", "http://a", from_close(4409, "the session has moved"), "http://a"),
    ],
)
def test_where_to_connect_next(home: str, now: str, error: BrokerError, expected: str) -> None:
    assert next_url(home, now, error) == expected
