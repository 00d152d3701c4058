"""What a model is told of a result: the status first, and of what is too long, both ends."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.client.adapters.words import clipped, refusal, shown_images, told
from broker.client.errors import AtCapacity, ConnectionLost, StateLost
from broker.client.result import collect

PNG = b"\x89PNG" + bytes(3000)


def done(status: str = "ok", **fields: Any) -> dict[str, Any]:
    return {"type": "done", "status": status, "duration": 2.0, "generation": 1, **fields}


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"type": "stream", "name": name, "text": text}


def test_nothing_but_the_status_where_there_is_nothing_else() -> None:
    assert told(collect([done()])) == "status: ok"


def test_lost_variables_are_told_before_any_output() -> None:
    lost = {"type": "session", "state": "lost", "reason": "oom"}
    text = told(collect([lost, stream("out"), done()]))
    assert text.splitlines()[:2] == [
        "status: ok",
        "note: the earlier kernel has ended (oom): variables and imports are gone, files are kept",
    ]


def test_each_end_has_its_note() -> None:
    assert "stopped after 2.0 s" in told(collect([done("timeout")]))
    assert "(exit 3): variables are gone" in told(collect([done("lost", reason="exit 3")]))
    cut = {"shown": 1024, "total": 4096, "file": "outputs/1.txt"}
    assert "1,024 of 4,096 characters kept; more of it is in outputs/1.txt" in told(
        collect([done(truncated=cut)])
    )
    files = [{"path": "a.csv", "size": 1, "change": "created"}]
    assert "note: files: a.csv (created)\n" in told(collect([stream("a"), done(files=files)]))
    assert "a.csv (created) and 7 more" in told(collect([done(files=files, files_more=7)]))


def test_parts_stand_in_one_order_and_images_are_noted() -> None:
    events = [
        {"type": "result", "data": {"text/plain": "7"}, "metadata": {}},
        {"type": "display", "data": {"image/png": PNG, "text/plain": "<Figure>"}, "metadata": {}},
        stream("bad", "stderr"),
        stream("good"),
        done(),
    ]
    assert told(collect(events)) == (
        "status: ok\nstdout:\ngood\nstderr:\nbad\nresult:\n7\n[image 1: PNG, 3 KB]"
    )


def test_a_long_part_leaves_a_short_one_whole() -> None:
    events = [
        stream("a" * 100_000),
        {"type": "result", "data": {"text/plain": "the value"}, "metadata": {}},
        done(),
    ]
    text = told(collect(events), 1000)
    assert "the value" in text
    assert "99,0" in text  # how many characters are left out
    assert len(text) < 1200


@given(st.text(max_size=200), st.integers(min_value=0, max_value=100))
def test_what_is_clipped_keeps_both_ends(text: str, most: int) -> None:
    short = clipped(text, most)
    if len(text) <= most:
        assert short == text
    else:
        assert short.startswith(text[: most * 2 // 3])
        assert short.endswith(text[len(text) - most // 3 :])
        assert len(short) <= most + 50


def test_a_model_is_shown_few_images_and_none_too_large() -> None:
    shows = [
        {"type": "display", "data": {"image/png": image}, "metadata": {}}
        for image in (bytes(4_000_000), *[PNG] * 6)
    ]
    assert shown_images(collect([*shows, done()])) == [PNG] * 4


def test_a_refusal_says_when_to_try_again() -> None:
    assert refusal(AtCapacity("full", retry_after=2.0)) == (
        "status: not run\nnote: full; try again in 2 s"
    )


def test_what_may_have_run_is_not_told_as_not_run() -> None:
    text = refusal(ConnectionLost("the connection was lost"))
    assert text == "status: not known to have run\nnote: the connection was lost"


def test_a_session_that_raises_its_losses_has_its_result_told() -> None:
    lost = {"type": "session", "state": "lost", "reason": "oom"}
    result = collect([lost, stream("out"), done()])
    error = StateLost(2, "oom", result=result)
    assert refusal(error) == told(result)
