"""Calls, what comes with code, and what is configured, from a session to its kernel."""

from __future__ import annotations

from typing import Any

import pytest

from broker.errors import BadMessage
from broker.requests import Call, Configure, Execute
from broker.surroundings import NONE
from tests.broker.pool_fakes import on_manual_time
from tests.broker.session_fakes import FakeKernel
from tests.broker.stage import Stage, done

# Calls


def call(stage: Stage, **fields: Any) -> None:
    stage.session.work.submit(Call(id="c", function="f", **fields), stage.client)


@on_manual_time
async def test_a_call_is_sent_as_data_and_answered_by_its_value() -> None:
    stage = Stage()
    call(stage, args=[b"\xff", 1], kwargs={"$a": float("inf")}, env={"A": "1"}, cwd="d")
    (content,) = stage.kernel.channels.contents
    assert (content["code"], content["silent"], content["store_history"]) == ("f", True, False)
    assert content["broker"] == {
        "call": {
            "function": "f",
            "args": [{"$bytes": "/w=="}, 1],
            "kwargs": {"$a": {"$float": "inf"}},
        },
        "env": {"A": "1"},
        "cwd": "d",
    }
    stage.kernel.say("iopub", "status", {"execution_state": "busy"})
    stage.kernel.say("iopub", "broker_value", {"value": [{"$bytes": "/w=="}]})
    stage.kernel.end()
    assert stage.told_of("c") == [("started", None, None), ("value", None, None), done(None, "ok")]
    assert stage.client.told("value") == [([b"\xff"],)]
    assert stage.client.events[-1]["execution_count"] is None


@on_manual_time
async def test_only_a_call_has_a_value_and_only_one() -> None:
    stage = Stage()
    stage.submit("a")
    stage.kernel.say("iopub", "broker_value", {"value": 1})
    stage.run()
    call(stage)
    for value in ({"value": {"$no": 1}}, {"else": 1}, {"value": 2}, {"value": 3}, {"data": {}}):
        stage.kernel.say("iopub", "broker_value", value)
    stage.kernel.end()
    assert stage.client.told("value") == [(2,)]


@on_manual_time
async def test_a_value_over_the_bound_is_a_note() -> None:
    stage = Stage()
    call(stage)
    stage.kernel.say("iopub", "broker_value", {"value": "a" * (12 << 20)})
    stage.kernel.end()
    (value,) = [event for event in stage.client.events if event["type"] == "value"]
    assert value["data"] == {"text/plain": "[value of 12,582,924 bytes left out]"}


@on_manual_time
async def test_a_call_that_fails_aborts_nothing() -> None:
    stage = Stage()
    call(stage)
    stage.submit("a")
    stage.kernel.end("error")
    assert stage.client.dones == {"c": "error"}
    assert stage.kernel.codes == ["f", "code a"]


# What comes with code


@on_manual_time
async def test_code_alone_comes_with_nothing() -> None:
    stage = Stage()
    stage.submit("a")
    assert "broker" not in stage.kernel.channels.contents[0]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"inputs": {"1a": 1}}, "inputs: '1a' is no name for a variable"),
    ({"inputs": {"a b": 1}}, "inputs: 'a b' is no name for a variable"),
    ({"inputs": {"class": 1}}, "inputs: 'class' is no name for a variable"),
    ({"inputs": {"None": 1}}, "inputs: 'None' is no name for a variable"),
    ({"inputs": {"a" * 200 + "-": 1}}, "is no name for a variable"),
    ({"inputs": {"__builtins__": 1}}, "inputs: '__builtins__' is a name of Python's own"),
    ({"inputs": {"\uff3f_builtins__": 1}}, "is a name of Python's own"),
    ({"env": {"A": "a\0b"}}, "env: A has a NUL in it"),
    ({"cwd": "a\0b"}, "cwd: it has a NUL in it"),
]


@on_manual_time
async def test_what_cannot_be_brought_is_refused_before_anything_runs() -> None:
    for fields, told in REFUSED:
        stage = Stage()
        with pytest.raises(BadMessage, match=told) as refused:
            stage.submit("a", **fields)
        assert refused.value.field == next(iter(fields))
        assert "a\0b" not in str(refused.value)
        assert (stage.kernel.codes, stage.client.events[1:]) == ([], [])


@on_manual_time
async def test_a_variable_is_named_as_python_reads_it() -> None:
    stage = Stage()
    stage.submit("a", inputs={"ﬁ": 1, "größe": 2})
    assert stage.parcels == [{"inputs": {"fi": 1, "größe": 2}}]


@on_manual_time
async def test_kernels_of_another_kernelspec_are_given_code_alone() -> None:
    stage = Stage(code_only=True)
    for request, field in (
        (Execute(id="1", code="", inputs={"a": 1}), "inputs"),
        (Execute(id="1", code="", env={"A": "1"}), "env"),
        (Execute(id="1", code="", cwd="/"), "cwd"),
        (Call(id="1", function="f"), "function"),
    ):
        with pytest.raises(BadMessage, match="of another kernelspec") as refused:
            stage.session.work.submit(request, stage.client)
        assert refused.value.field == field
    for configure, field in (
        (Configure(id="1", env={"A": "1"}), "env"),
        (Configure(id="1", cwd="/"), "cwd"),
    ):
        with pytest.raises(BadMessage, match="of another kernelspec") as refused:
            stage.session.work.configure(configure)
        assert refused.value.field == field
    stage.batch("x")
    assert stage.kernel.codes == ["x"]


@on_manual_time
async def test_what_is_secret_is_in_nothing_that_could_be_logged() -> None:
    stage = Stage()
    stage.session.work.configure(Configure(id="1", env={"A": "a secret"}))
    stage.submit("a", "b", env={"B": "a secret"}, inputs={"c": "a secret"})
    shown = [stage.session, stage.session.work, *stage.session.work._all()]
    assert "secret" not in repr(shown)


# Configure


def configured(kernel: FakeKernel, *, well: bool = True, refused: str = "") -> None:
    kernel.say("iopub", "status", {"execution_state": "busy"})
    told = {"configured": True} if well else {}
    if refused:
        told |= {"refused": refused}
    kernel.say("shell", "execute_reply", {"status": "ok", "broker": told})
    kernel.say("iopub", "status", {"execution_state": "idle"})


@on_manual_time
async def test_what_is_configured_comes_once_with_what_is_asked_after_it() -> None:
    stage = Stage()
    stage.submit("before", "queued")
    stage.session.work.configure(Configure(id="1", env={"A": "1", "B": None}, cwd="d"))
    stage.submit("after")
    stage.run()
    stage.run()
    assert stage.parcels == [None, None, {"configure": {"env": {"A": "1", "B": None}, "cwd": "d"}}]
    configured(stage.kernel)
    stage.session.work.configure(Configure(id="2", env={"C": "3"}))
    stage.submit("later", env={"A": "2"})
    assert stage.parcels[-1] == {"env": {"A": "2"}, "configure": {"env": {"C": "3"}}}
    configured(stage.kernel)
    stage.submit("last")
    assert stage.parcels[-1] is None
    stage.run()
    # The code may have changed it since, and a client that comes back has no wish to undo that.
    stage.session.work.configure(Configure(id="3", env={"A": "1"}, cwd="d", again=True))
    stage.submit("back")
    assert stage.parcels[-2:] == [None, None]
    stage.run()
    stage.session.work.configure(Configure(id="4", cwd="d"))
    stage.submit("set")
    assert stage.parcels[-1] == {"configure": {"env": {}, "cwd": "d"}}


@on_manual_time
async def test_what_a_kernel_could_not_take_on_comes_again() -> None:
    stage = Stage()
    stage.session.work.configure(Configure(id="1", cwd="d"))
    for name in ("a", "b"):
        stage.submit(name)
        configured(stage.kernel, well=False)
    assert stage.parcels == [{"configure": {"env": {}, "cwd": "d"}}] * 2


@on_manual_time
async def test_a_directory_that_a_kernel_refused_comes_no_more() -> None:
    stage = Stage()

    def configure(**fields: Any) -> None:
        stage.session.work.configure(Configure(id="1", **fields))

    def begin_again(number: int) -> None:
        stage.session.drop_kernel("restart")
        stage.kernel = FakeKernel(f"k{number}")
        stage.session.bind(stage.kernel, number, "lost", "restart")

    configure(env={"A": "1"}, cwd="d")
    stage.submit("a")
    configured(stage.kernel)
    configure(env={"B": "1"}, cwd="absent")
    stage.submit("b")
    configure(env={"C": "1"})
    configured(stage.kernel, refused="cwd")
    stage.submit("c")
    configured(stage.kernel)
    assert stage.parcels[1:] == [
        {"configure": {"env": {"B": "1"}, "cwd": "absent"}},
        {"configure": {"env": {"C": "1"}}},
    ]
    begin_again(2)
    stage.submit("d")
    everything = {"env": {"A": "1", "B": "1", "C": "1"}, "cwd": "d"}
    assert stage.parcels == [{"configure": everything}]
    configured(stage.kernel, refused="cwd")  # it has gone since
    begin_again(3)
    stage.submit("e")
    assert stage.parcels == [{"configure": {"env": everything["env"]}}]


@on_manual_time
async def test_a_directory_that_is_set_after_one_that_is_refused_counts() -> None:
    stage = Stage()
    stage.session.work.configure(Configure(id="1", cwd="absent"))
    stage.submit("a")
    stage.session.work.configure(Configure(id="2", cwd="d"))
    configured(stage.kernel, refused="cwd")
    stage.submit("b")
    assert stage.parcels[-1] == {"configure": {"env": {}, "cwd": "d"}}


@on_manual_time
async def test_a_new_kernel_gets_all_that_was_configured() -> None:
    stage = Stage()
    asked: list[dict[str, Any]] = [
        {"env": {"A": "1", "B": "1"}},
        {"env": {"A": None}},
        {"cwd": "d"},
    ]
    for number, fields in enumerate(asked):
        stage.session.work.configure(Configure(id=str(number), **fields))
    stage.submit("a")
    configured(stage.kernel)
    stage.session.drop_kernel("restart")
    stage.kernel = FakeKernel("k2")
    stage.session.bind(stage.kernel, 2, "lost", "restart")
    stage.submit("b")
    assert stage.parcels == [{"configure": {"env": {"A": None, "B": "1"}, "cwd": "d"}}]


def test_what_is_set_again_is_known_from_what_is_new() -> None:
    around = NONE.changed({"A": "1", "B": None}, "in")
    assert around.has({}, None)
    assert around.has({"A": "1", "B": None}, "in")
    assert around.has({"B": None}, None)
    for env, cwd in (({"A": "2"}, None), ({"C": None}, None), ({}, "out"), ({"A": None}, "in")):
        assert not around.has(env, cwd), (env, cwd)
    assert not NONE.has({}, "in")


@on_manual_time
async def test_a_session_may_set_and_remove_variables_for_as_long_as_it_lives() -> None:
    stage = Stage()
    work = stage.session.work
    gone: dict[str, str | None] = {
        f"PROFILE{number}": None for number in range(100)
    }  # which no client had set
    work.configure(Configure(id="0", env=gone))
    for number in range(10):
        names = [f"N{number}_{at}" for at in range(100)]
        work.configure(Configure(id="1", env=dict.fromkeys(names, "x")))
        work.configure(Configure(id="2", env=dict.fromkeys(names)))
        stage.submit(f"a{number}")
        configured(stage.kernel)
    assert stage.parcels[-1]["configure"]["env"] == dict.fromkeys(names)
    stage.session.drop_kernel("restart")
    stage.kernel = FakeKernel("k2")
    stage.session.bind(stage.kernel, 2, "lost", "restart")
    stage.submit("b")
    told = stage.parcels[-1]["configure"]["env"]
    assert gone.items() <= told.items()
    assert len(told) <= 256


@on_manual_time
async def test_what_the_kernel_has_not_been_told_to_remove_is_not_forgotten() -> None:
    stage = Stage()
    work = stage.session.work
    work.configure(Configure(id="1", env={f"A{at}": "x" for at in range(200)}))
    stage.submit("a")
    configured(stage.kernel)
    work.configure(Configure(id="2", env={f"A{at}": None for at in range(200)}))
    work.configure(Configure(id="3", env={f"B{at}": "x" for at in range(200)}))
    with pytest.raises(BadMessage, match="env: more than 256 variables removed") as refused:
        work.configure(Configure(id="4", env={f"B{at}": None for at in range(200)}))
    assert refused.value.field == "env"
    stage.submit("b")
    told = stage.parcels[-1]["configure"]["env"]
    assert [told[f"A{at}"] for at in range(200)] == [None] * 200
    configured(stage.kernel)
    work.configure(Configure(id="4", env={f"B{at}": None for at in range(200)}))


@on_manual_time
async def test_what_is_configured_has_a_bound() -> None:
    stage = Stage()
    work = stage.session.work
    work.configure(Configure(id="1", env={f"A{number}": "" for number in range(256)}))
    with pytest.raises(BadMessage, match="env: more than 256 variables"):
        work.configure(Configure(id="1", env={"B": "1"}))
    with pytest.raises(BadMessage, match="env: more than 262,144 characters") as refused:
        work.configure(Configure(id="1", env={f"A{number}": "x" * 30_000 for number in range(9)}))
    assert "xxx" not in str(refused.value)
    work.configure(Configure(id="1", env={f"A{number}": None for number in range(256)}))
    work.configure(Configure(id="1", env={f"B{number}": "" for number in range(256)}))
