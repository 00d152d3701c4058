"""`pip install` in a cell: refused at once, or into the session's files from its index."""

from __future__ import annotations

import base64
import hashlib
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kernels.spec import KernelSpec
from tests.kernels.talk import LIGHT, launching, talking


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None: ...


def wheel(directory: Path, name: str, source: str, needs: str = "") -> None:
    """Write the wheel of a package that is one module."""
    info = f"{name}-1.0.dist-info"
    requires = f"Requires-Dist: {needs}\n" if needs else ""
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{requires}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()
        record += f"{path},sha256={digest.rstrip('=')},{len(text)}\n"
    folder = directory / name
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """Yield the URL of an index of two packages, one of which needs the other and ipykernel."""
    wheel(tmp_path, "tinydep", "answer = 42\n")
    wheel(tmp_path, "tinypkg", "from tinydep import answer\n", "tinydep")
    serve = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    with serve as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


async def test_a_profile_that_allows_it_installs_into_the_session(
    directory: Path, sandboxed: str, index: str
) -> None:
    spec = KernelSpec(preload=(), network="host", pip="session", pip_index=index)
    async with launching(directory, sandboxed, spec) as launcher:
        async with talking(launcher) as talk:
            assert (await talk.value("import tinypkg")).startswith("ModuleNotFoundError")
            said = await talk.run("%pip install tinypkg")
            assert "Successfully installed tinydep-1.0 tinypkg-1.0" in said.text(), said.text()
            assert await talk.value("import tinypkg; tinypkg.answer") == "42"
            where = await talk.value("tinypkg.__file__")
            assert where.startswith("'/home/user/.local/")
            run = "!python -c 'import tinypkg; print(tinypkg.answer)'"
            assert (await talk.run(run)).text() == "42\n"
        async with talking(launcher) as neighbour:
            assert (await neighbour.value("import tinypkg")).startswith("ModuleNotFoundError")


async def test_a_profile_that_does_not_says_so_at_once(directory: Path, sandboxed: str) -> None:
    async with launching(directory, sandboxed, LIGHT) as launcher, talking(launcher) as talk:
        said = await talk.run("%pip install tinypkg")
        assert "nothing can be installed here" in said.text("stderr") + said.value
        # The program itself would try a network that is not there, again and again.
        text = (await talk.run("!python -m pip install tinypkg 2>&1")).text()
        assert "No matching distribution found for tinypkg" in text
