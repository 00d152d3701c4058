"""Nothing is lost on the way: through cut connections, and through killed brokers."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import psutil

from broker.client import Broker, OutputLost
from tests.system.conftest import BROKER, RunningBroker, StartBroker, kill
from tests.system.peer import attached, call, execute, gate, new_name, open_gate, row_of

LEAN = "orphan_ttl = '20s'\n[profiles.python]\npreload = []\nwarm = 1\n"


async def cut_off(broker: RunningBroker, name: str, code: str) -> tuple[int, int]:
    """Kill the broker under a cell that waits at its gate.

    Return the last number that its client has seen, and the process of the kernel.
    """
    async with attached(broker, name) as peer:
        await peer.send({"type": "execute", "id": "cell", "code": code})
        while "up" not in (await peer.until("stream", id="cell"))["text"]:
            pass
        pid = row_of(broker, name)["pid"]
        kill(broker)
        return peer.events[-1]["seq"], pid


async def test_numbers_go_on_after_a_killed_broker_and_the_missed_range_is_exact(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name, quiet = new_name(), new_name()
    with start_broker(*place) as broker:
        last = {each: execute(broker, each, "x = 1")["done"]["seq"] for each in (name, quiet)}
        seen = last[name]
        last[name] = execute(broker, name, "print(x)")["done"]["seq"]
        kill(broker)
    with start_broker(*place) as again:
        # Its adoption is an event of the session's own: `warm`, numbered next.
        async with attached(again, quiet, after=last[quiet]) as peer:
            welcome = await peer.next()
            assert (welcome["seq"], welcome["open"]) == (last[quiet] + 1, [])
            assert "missed" not in welcome
            assert ((await peer.next())["seq"], peer.events[-1]["state"]) == (
                welcome["seq"],
                "warm",
            )
        async with attached(again, name, after=seen) as peer:
            welcome = await peer.next()
            assert welcome["missed"] == [seen + 1, last[name]]
            await peer.run("x")
            numbers = [event["seq"] for event in peer.events[1:]]
            assert numbers == [*range(last[name] + 1, last[name] + 1 + len(numbers))]


def test_numbers_go_on_when_the_kernel_was_lost_and_when_the_session_comes_again(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name = new_name()
    with start_broker(*place) as broker:
        last = execute(broker, name, "1")["done"]["seq"]
        lost = execute(broker, name, "import os; os._exit(1)")["done"]["seq"]
        assert lost > last
        again = execute(broker, name, "2")
        assert again["generation"] == 2
        assert lost < again["done"]["seq"] < lost + 10
        last = again["done"]["seq"]
        assert call(broker, "DELETE", f"/v1/sessions/{name}").status == 200
        reopened = execute(broker, name, "3")
        assert reopened["generation"] == 3
        assert last < reopened["done"]["seq"] < last + 10
        last = reopened["done"]["seq"]
    with start_broker(*place) as later:  # the one before was told to stop, and ended its kernels
        assert last < execute(later, name, "4")["done"]["seq"] < last + 10


async def test_a_damaged_file_of_numbers_has_everything_told_as_missed(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name = new_name()
    with start_broker(*place) as broker:
        seen = execute(broker, name, "x = 20")["done"]["seq"]
        kill(broker)
    (place[0] / "marks").write_bytes(b"what is this")
    with start_broker(*place) as again:
        async with attached(again, name, after=seen) as peer:
            welcome = await peer.next()
            first, last = welcome["missed"]
            assert first == seen + 1
            assert last > 10**15
            assert await peer.value("x") == "20"
        assert "Traceback" not in again.log


async def test_the_running_cells_outputs_and_its_one_done_come_from_the_next_broker(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name = new_name()
    code = f"print('before')\n{gate()}\nprint('after')\n1/0"
    with start_broker(*place) as broker:
        seen, pid = await cut_off(broker, name, code)
    # Nobody listens: what it says, and that it has ended, is kept in the kernel.
    open_gate(pid)
    with start_broker(*place) as again:
        async with attached(again, name, after=seen) as peer:
            assert "missed" not in await peer.next()
            done = await peer.until("done", id="cell")
            assert (done["status"], done["generation"]) == ("error", 1)
            kinds = [event["type"] for event in peer.events[1:]]
            assert "started" not in kinds  # which had been told
            assert kinds.count("done") == 1
            texts = [event["text"] for event in peer.events if event["type"] == "stream"]
            assert "".join(texts) == "after\n"
            numbers = [event["seq"] for event in peer.events[1:]]
            assert numbers == [*range(seen + 1, seen + 1 + len(numbers))]
            assert await peer.value("6 * 7") == "42"
        with Broker(again.url, again.token).session(name) as session:
            cell, later = session.history()["cells"]
            assert (cell["status"], later["code"]) == ("error", "6 * 7")
            assert "the outputs before the restart are not kept" in cell["code"]
        shown = again.cli("logs", name).stdout
        assert "the outputs before the restart are not kept" in shown
        assert "after\n" in shown
        assert "ZeroDivisionError" in shown
        assert "Traceback" not in again.log


async def test_a_secret_that_only_a_killed_broker_knew_is_not_in_the_transcript(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name, secret = new_name(), "only-the-first-broker-knows"
    code = f"import os\n{gate()}\nprint('key', os.environ['MY_TOKEN'])"
    with start_broker(*place) as broker:
        with Broker(broker.url, broker.token).session(name) as session:
            session.configure(env={"MY_TOKEN": secret})
        seen, pid = await cut_off(broker, name, code)
    open_gate(pid)
    with start_broker(*place) as again:
        async with attached(again, name, after=seen) as peer:
            assert secret in (await peer.until("stream", id="cell"))["text"]  # live, as it came
            assert (await peer.until("done", id="cell"))["status"] == "ok"
        shown = again.cli("logs", name).stdout
        assert "neither the code nor the outputs are kept" in shown
        assert secret not in shown
        assert "Traceback" not in again.log


async def test_a_cell_whose_kernel_died_while_no_broker_lived_has_its_one_done(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name = new_name()
    code = f"print('before')\n{gate()}\nimport os\nos._exit(5)"
    with start_broker(*place) as broker:
        seen, pid = await cut_off(broker, name, code)
    process = psutil.Process(pid)
    open_gate(pid)
    psutil.wait_procs([process], timeout=20)
    with start_broker(*place) as again:
        async with attached(again, name, after=seen) as peer:
            first = await peer.next()
            assert first["open"] == ["cell"]  # so that nobody runs it a second time
            done = await peer.until("done", id="cell")
            assert (done["status"], done["reason"]) == ("lost", "node_lost")
            assert "started" not in [event["type"] for event in peer.events]
            numbers = [event["seq"] for event in peer.events[1:]]
            assert numbers == [*range(seen + 1, seen + 1 + len(numbers))]
            assert await peer.value("6 * 7") == "42"
            assert [one["id"] for one in peer.events if one["type"] == "done"].count("cell") == 1
        assert "Traceback" not in again.log


async def test_a_cell_that_runs_on_is_open_busy_and_can_be_interrupted_after_a_restart(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name = new_name()
    with start_broker(*place) as broker:
        async with attached(broker, name) as peer:
            await peer.send({"type": "execute", "id": "cell", "code": gate()})
            seen = (await peer.until("stream", id="cell"))["seq"]
            kill(broker)
    with start_broker(*place) as again:
        async with attached(again, name, after=seen) as peer:
            assert (await peer.next())["open"] == ["cell"]
            assert row_of(again, name)["state"] == "busy"
            await peer.send({"type": "execute", "id": "cell", "code": "1"})
            assert (await peer.until("fault"))["field"] == "id"
            await peer.send({"type": "interrupt", "id": "i", "target": "cell"})
            done = await peer.until("done", id="cell")
            assert done["status"] == "interrupted"
            assert await peer.value("6 * 7") == "42"


async def test_the_time_of_a_running_cell_goes_on_through_a_restart(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name = new_name()
    with start_broker(*place) as broker:
        async with attached(broker, name) as peer:
            await peer.send({"type": "execute", "id": "cell", "code": gate(), "timeout": 2})
            await peer.until("stream", id="cell")
            kill(broker)
    with start_broker(*place) as again:
        async with attached(again, name, after=0) as peer:
            done = await peer.until("done", id="cell")
            assert (done["status"], done["reason"]) == ("timeout", "timeout")
            assert done["duration"] >= 2


def port_of(broker: RunningBroker) -> str:
    return broker.url.rpartition(":")[2]


def test_a_client_comes_through_a_killed_broker_with_all_output_or_the_exact_loss_and_one_done(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name, lines = new_name(), 600  # fewer than a kernel keeps, however long nobody listens
    code = f"import time\nfor i in range({lines}):\n    print(i, flush=True)\n    time.sleep(0.01)"
    events: list[dict[str, object]] = []
    begun = threading.Event()
    outcome: list[object] = []

    def follow(url: str, token: str) -> None:
        def see(event: dict[str, object]) -> None:
            events.append(event)
            if len(events) > 50:
                begun.set()

        with Broker(url, token).session(name) as session:
            try:
                outcome.append(session.execute(code, on_event=see))
                outcome.append(session.execute("i").value)
            except Exception as error:
                outcome.append(error)

    with start_broker(*place) as broker:
        runner = threading.Thread(target=follow, args=(broker.url, broker.token))
        runner.start()
        assert begun.wait(30)
        kill(broker)
    with start_broker(*place, "--port", port_of(broker)) as again:
        runner.join(60)
        assert not runner.is_alive()
        assert "Traceback" not in again.log
    kinds = [event["type"] for event in events]
    assert kinds.count("done") == 1
    numbers = [int(str(event["seq"])) for event in events]
    assert numbers == sorted(set(numbers))
    text = "".join(str(event["text"]) for event in events if event["type"] == "stream")
    first = outcome[0]
    if isinstance(first, OutputLost):
        assert first.missed is not None
        gone = set(range(numbers[0], numbers[-1] + 1)) - set(numbers)
        assert gone == set(range(first.missed[0], first.missed[1] + 1))
        assert first.result is not None
    else:
        assert text == "".join(f"{i}\n" for i in range(lines))
        assert outcome[1] == str(lines - 1)


async def test_a_client_that_only_watches_may_not_execute(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "x = 1")
    async with attached(broker, name, mode="watch") as peer:
        await peer.send({"type": "execute", "id": "a", "code": "x = 2"})
        assert (await peer.until("fault", id="a"))["code"] == "forbidden"
    assert execute(broker, name, "x")["result"] == {"text/plain": "1"}


async def test_all_clients_of_a_session_see_the_same_numbered_events(broker: RunningBroker) -> None:
    name = new_name()
    async with (
        attached(broker, name) as one,
        attached(broker, name) as two,
        attached(broker, name, mode="watch") as three,
    ):
        last = (await one.run("print(1)\n2"))[-1]["seq"]
        last = (await two.run("print(3)\n1/0"))[-1]["seq"]
        streams = []
        for peer in (one, two, three):
            while not peer.events or peer.events[-1].get("seq", 0) < last:
                await peer.next()
            streams.append({e["seq"]: e for e in peer.events if e["type"] != "session"})
        assert streams[0] == streams[1] == streams[2]
        assert [*streams[0]] == [*range(min(streams[0]), last + 1)]


async def test_an_execution_goes_on_while_nobody_is_attached_and_its_events_are_kept(
    broker: RunningBroker,
) -> None:
    name = new_name()
    async with attached(broker, name) as peer:
        await peer.send({"type": "execute", "id": "a", "code": f"{gate()}\nprint('later')"})
        seen = (await peer.until("stream", id="a"))["seq"]
    open_gate(row_of(broker, name)["pid"])
    async with attached(broker, name, after=seen) as peer:
        assert (await peer.until("done", id="a"))["status"] == "ok"
        texts = [e["text"] for e in peer.events if e["type"] == "stream"]
        assert "".join(texts).strip() == "later"  # in pieces, on a busy machine
        assert [e["seq"] for e in peer.events[1:]] == [*range(seen + 1, seen + 2 + len(texts))]


async def test_events_beyond_the_bound_are_missed_with_their_exact_range(
    broker: RunningBroker,
) -> None:
    name = new_name()
    async with attached(broker, name) as peer:
        code = "from IPython.display import display\nfor i in range(1500): display(i)"
        seen = (await peer.run("1"))[-1]["seq"]
        last = (await peer.run(code))[-1]["seq"]
    async with attached(broker, name, after=seen) as peer:
        welcome = await peer.next()
        assert welcome["missed"][0] == seen + 1
        while peer.events[-1]["seq"] < last or len(peer.events) == 1:
            await peer.next()
        assert [e["seq"] for e in peer.events[1:]] == [*range(welcome["missed"][1] + 1, last + 1)]


def test_what_waited_in_a_killed_brokers_queue_is_asked_for_again_by_its_client(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name = new_name()
    results: dict[str, object] = {}
    begun, waits = threading.Event(), threading.Event()

    def see(event: dict[str, object]) -> None:
        if event["type"] == "stream":
            begun.set()
        if event["type"] == "queued":
            waits.set()

    with start_broker(*place) as broker:
        session = Broker(broker.url, broker.token).session(name)

        def run(key: str, code: str) -> None:
            results[key] = session.execute(code, on_event=see)

        runners = [threading.Thread(target=run, args=("first", f"x = 20\n{gate()}\nx += 1"))]
        runners[0].start()
        assert begun.wait(30)
        runners.append(threading.Thread(target=run, args=("second", "x * 2")))
        runners[1].start()
        assert waits.wait(30)
        pid = row_of(broker, name)["pid"]
        kill(broker)
    with start_broker(*place, "--port", port_of(broker)):
        open_gate(pid)
        for runner in runners:
            runner.join(60)
        session.detach()
    assert {key: getattr(result, "status", None) for key, result in results.items()} == {
        "first": "ok",
        "second": "ok",
    }
    assert getattr(results["second"], "value", None) == "42"


def test_the_command_line_says_at_once_that_it_tries_to_connect_again_and_when_it_has(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name = new_name()
    with start_broker(*place) as broker:
        environment = os.environ | {"BROKER_URL": broker.url, "BROKER_TOKEN": broker.token}
        command = [str(BROKER), "run", "-s", name, f"{gate()}\n6 * 7"]
        ran = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        with ran:
            assert ran.stdout is not None
            assert ran.stderr is not None
            assert ran.stdout.readline() == "up\n"
            pid = row_of(broker, name)["pid"]
            kill(broker)
            told = ran.stderr.readline()
            assert told.startswith(f"broker: no broker answers at {broker.url}: ")
            assert told.endswith("; trying again for up to 60 s\n")
            with start_broker(*place, "--port", port_of(broker)):
                assert ran.stderr.readline() == "broker: connected again\n"
                open_gate(pid)
                assert ran.communicate(timeout=60) == ("42\n", "")
    assert ran.returncode == 0
