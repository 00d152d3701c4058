"""The table of a request's answers."""

from __future__ import annotations

from broker.jupyter.request import ANSWERS, Said, State


def test_a_request_gets_one_reply_and_one_idle() -> None:
    ways = [(State.SENT, 0, 0)]
    seen = set()
    while ways:
        state, replies, idles = way = ways.pop()
        if way in seen:
            continue
        seen.add(way)
        assert replies <= 1
        assert idles <= 1
        for said, following in ANSWERS[state].items():
            ways.append((following, replies + (said is Said.REPLY), idles + (said is Said.IDLE)))
    assert {state for state, *_ in seen} == set(State)


def test_whatever_is_not_done_can_be_cut_off_once_no_reply_is_held() -> None:
    for state, arrows in ANSWERS.items():
        is_open = state not in (State.HELD, State.DONE)
        assert (Said.CUT_OFF in arrows) == is_open
    assert Said.RELEASE in ANSWERS[State.HELD]
