"""`done` tells which files an execution changed: its own and no others, within bounds."""

from __future__ import annotations

from typing import Any

from broker.client import Broker, FileChange
from tests.system.conftest import RunningBroker
from tests.system.peer import attached, call, execute, new_name


def changes(done: dict[str, Any]) -> list[tuple[str, int | None, str]]:
    return [(one["path"], one["size"], one["change"]) for one in done.get("files", [])]


async def test_done_tells_what_the_code_made_changed_and_removed(broker: RunningBroker) -> None:
    async with attached(broker, new_name()) as peer:

        async def run(code: str) -> dict[str, Any]:
            return (await peer.run(code))[-1]

        assert "files" not in await run("1 + 1")
        made = await run("import os; os.makedirs('d/e'); open('d/e/f', 'w').write('x' * 10)")
        assert changes(made) == [("d/e/f", 10, "created")]
        assert "files" not in await run("open('d/e/f').read()")
        changed = await run("open('d/e/f', 'a').write('x'); open('g', 'w').close(); 1 / 0")
        assert changed["status"] == "error"
        assert changes(changed) == [("d/e/f", 11, "modified"), ("g", 0, "created")]
        gone = await run("import shutil; shutil.rmtree('d')")
        assert changes(gone) == [("d/e/f", None, "deleted")]
        assert "files" not in await run("1 + 1")
        many = await run("for i in range(130): open(f'many{i}', 'w').close()")
        assert (len(many["files"]), many["files_more"]) == (100, 30)


async def test_what_a_kernel_wrote_before_it_died_is_told_with_its_loss(
    broker: RunningBroker,
) -> None:
    async with attached(broker, new_name()) as peer:
        lost = await peer.run("f = open('a', 'w'); f.write('x'); f.flush(); import os; os._exit(3)")
        assert lost[-1]["status"] == "lost"
        assert changes(lost[-1]) == [("a", 1, "created")]
        after = (await peer.run("open('a', 'w').write('xx'); open('b', 'w').write('y')"))[-1]
        assert changes(after) == [("a", 2, "modified"), ("b", 1, "created")]


async def test_what_a_client_does_with_the_files_is_no_executions_doing(
    broker: RunningBroker,
) -> None:
    name = new_name()
    async with attached(broker, name) as peer:
        where = f"/v1/sessions/{name}/files"
        await peer.run("open('own', 'w').close()")
        assert call(broker, "PUT", f"{where}/d/sent", "x").status == 201
        assert "files" not in (await peer.run("open('d/sent').read()"))[-1]
        assert call(broker, "POST", f"{where}/d/sent", {"move_to": "e/moved"}).status == 200
        assert call(broker, "DELETE", f"{where}/own").status == 200
        done = (await peer.run("open('e/moved', 'a').write('y')"))[-1]
        assert changes(done) == [("e/moved", 2, "modified")]


def test_neighbours_are_told_apart(broker: RunningBroker) -> None:
    one, other = new_name(), new_name()
    execute(broker, one, "1")
    execute(broker, other, "1")
    execute(broker, one, "open('a', 'w').close()")
    assert "files" not in execute(broker, other, "1")["done"]


def test_who_makes_thousands_of_files_gets_a_list_that_says_it_is_cut(
    broker: RunningBroker,
) -> None:
    name = new_name()
    code = "import os\nfor i in range(12_000): os.close(os.open(str(i), os.O_CREAT))"
    done = execute(broker, name, code)["done"]
    assert done["files_cut"]
    assert len(done["files"]) == 100
    assert done["files_more"] > 0


def test_the_client_has_the_changes(broker: RunningBroker) -> None:
    with Broker(broker.url, broker.token).session(new_name()) as session:
        result = session.execute("open('a', 'w').write('xyz')")
        assert (result.files, result.files_cut) == ((FileChange("a", 3, "created"),), False)
        assert session.execute("import os; os.remove('a')").files == (
            FileChange("a", None, "deleted"),
        )
        assert session.execute("for i in range(101): open(str(i), 'w').close()").files_cut
