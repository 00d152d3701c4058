"""What a session has written is there for its next kernel, and for no other session."""

from __future__ import annotations

from tests.system.conftest import RunningBroker
from tests.system.peer import attached, call, execute, new_name, value_of

READ = "import os; open('kept.txt').read() if os.path.exists('kept.txt') else 'gone'"


async def test_files_outlive_the_kernel_that_wrote_them(broker: RunningBroker) -> None:
    name = new_name()
    async with attached(broker, name) as peer:
        await peer.run("open('kept.txt', 'w').write('here'); x = 1")
        assert (await peer.run("import os; os._exit(1)"))[-1]["status"] == "lost"
        assert await peer.value("'x' in globals()") == "False"
        assert await peer.value(READ) == "'here'"
        assert (await peer.run("open('kept.txt', 'a').write(' again')"))[-1]["status"] == "ok"
        await peer.send({"type": "restart", "id": "r"})
        assert (await peer.until("reply", id="r"))["generation"] == 3
        assert await peer.value(READ) == "'here again'"
        await peer.send({"type": "restart", "id": "s", "keep_files": False})
        assert (await peer.until("reply", id="s"))["generation"] == 4
        assert await peer.value(READ) == "'gone'"


def test_files_end_with_their_session(broker: RunningBroker) -> None:
    name, other = new_name(), new_name()
    execute(broker, name, "open('kept.txt', 'w').write('here')")
    assert value_of(broker, other, READ) == "'gone'"
    assert call(broker, "DELETE", f"/v1/sessions/{name}").status == 200
    assert value_of(broker, name, READ) == "'gone'"
