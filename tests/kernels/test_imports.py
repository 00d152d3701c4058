"""Cells import what they may; everything else imports what it wants."""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from kernels.launch import Launcher
from kernels.spec import KernelSpec
from tests.kernels.talk import talking

FILE = Path(__file__).parent.parent.parent / "kernels" / "inside" / "imports.py"

# Runs each snippet as a cell would run, in an interpreter of its own; prints what came of each.
RUN = f"""
import importlib.util, json, sys
snippets, allow, deny = json.loads(sys.argv[1])
spec = importlib.util.spec_from_file_location("private.imports", {str(FILE)!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.guard(allow, deny)
told = []
for snippet in snippets:
    try:
        exec(compile(snippet, "<cell>", "exec"), {{"__name__": "__main__"}})
    except BaseException as error:
        told.append(f"{{type(error).__name__}}: {{error}}")
    else:
        told.append("")
print(json.dumps(told))
"""


def outcome(*snippets: str, allow: tuple[str, ...] = (), deny: tuple[str, ...] = ()) -> list[str]:
    given = json.dumps([[textwrap.dedent(text) for text in snippets], allow, deny])
    ended = subprocess.run(
        [sys.executable, "-I", "-c", RUN, given], capture_output=True, text=True, check=True
    )
    told: list[str] = json.loads(ended.stdout)
    return told


NOT_ALLOWED = "ImportError: import of {!r} is not allowed in this profile; allowed: math, datetime"
ALLOWED = ("math", "datetime", "email", "importlib", "collections", "pickle")


@pytest.mark.parametrize(
    "snippet",
    [
        "import socket",
        "import socket as s",
        "from socket import socket",
        "from socket import *",
        "import math, socket",
        "import os.path",
        "from os import path",
        "def f():\n    import socket\nf()",
        "class A:\n    import socket",
        "exec('import socket')",
        "__import__('socket')",
        "__import__(name='socket', level=0)",
        "import threading",
    ],
)
def test_what_is_not_allowed_is_refused_and_the_message_says_what_is(snippet: str) -> None:
    [told] = outcome(snippet, allow=("math", "datetime"))
    name = "os" if "os" in snippet.split() or "os.path" in snippet else "socket"
    assert told == NOT_ALLOWED.format("threading" if "threading" in snippet else name)


def test_what_is_allowed_and_what_is_below_it_is_imported() -> None:
    told = outcome(
        "import math; assert math.pi",
        "from math import pi",
        "import email.mime.text as t; assert t.MIMEText",
        "from email.mime import text",
        "import importlib; importlib.import_module('email.mime.text')",
        "from __future__ import annotations",
        "__import__('math', globals(), locals(), ['pi'])",
        allow=ALLOWED,
    )
    assert told == [""] * 7


def test_importlib_is_guarded_for_cells_too() -> None:
    told = outcome(
        "import importlib; importlib.import_module('socket')",
        "from importlib import import_module; import_module('socket')",
        allow=ALLOWED,
    )
    assert all("import of 'socket' is not allowed" in one for one in told)


def test_libraries_import_what_they_need() -> None:
    told = outcome(
        # C code that imports `_strptime` with the cell as its caller.
        "import datetime; datetime.datetime.strptime('2026', '%Y')",
        # Python code of the library that imports others when it is called.
        "import email; email.message_from_string('a: b').as_string()",
        "import collections; collections.namedtuple('A', 'b')(1)",
        "import pickle, collections\n"
        "pickle.loads(pickle.dumps(collections.Counter('ab').__reduce__()))",
        allow=ALLOWED,
    )
    assert told == [""] * 4


def test_what_is_denied_is_refused_and_nothing_else() -> None:
    told = outcome(
        "import socket",
        "from subprocess import run",
        "import urllib.request, json, os",
        "import importlib; importlib.import_module('socket')",
        deny=("socket", "subprocess"),
    )
    assert told == [
        "ImportError: import of 'socket' is denied in this profile",
        "ImportError: import of 'subprocess' is denied in this profile",
        "",
        "ImportError: import of 'socket' is denied in this profile",
    ]


def test_denied_wins_over_allowed() -> None:
    [told] = outcome("import socket", allow=("socket", "math"), deny=("socket",))
    assert (
        told == "ImportError: import of 'socket' is denied in this profile; allowed: socket, math"
    )


def test_errors_of_other_kinds_stay_what_they_are() -> None:
    told = outcome(
        "import nothing_of_the_kind",
        "from . import a",
        "__import__(3)",
        "import math.nothing",
        deny=("socket",),
    )
    kinds = [one.partition(":")[0] for one in told]
    assert kinds == ["ModuleNotFoundError", "ImportError", "TypeError", "ModuleNotFoundError"]


def test_the_refusal_names_the_module_and_a_long_list_is_cut() -> None:
    many = tuple(f"m{number}" for number in range(100))
    [told] = outcome("import socket", allow=many)
    assert told.endswith("m19 and 80 more")
    caught = "try:\n    import socket\nexcept ImportError as e:\n    assert e.name == 'socket'"
    assert outcome(caught, deny=("socket",)) == [""]


def test_without_a_policy_nothing_is_touched() -> None:
    spec = importlib.util.spec_from_file_location("private_imports", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    before = builtins.__import__, importlib.import_module
    module.guard([], [])
    assert (builtins.__import__, importlib.import_module) == before


@pytest_asyncio.fixture(loop_scope="function")
async def launcher(directory: Path) -> AsyncIterator[Launcher]:
    spec = KernelSpec(allow_imports=("math", "json"), deny_imports=("json",))
    launcher = Launcher(spec, directory)
    yield launcher
    await launcher.aclose()


async def test_a_kernel_keeps_to_its_profiles_imports(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        assert await talk.value("import math; math.floor(2.5)") == "2"
        refused = "is not allowed in this profile; allowed: math, json"
        assert await talk.value("import socket") == f"ImportError: import of 'socket' {refused}"
        denied = "ImportError: import of 'json' is denied in this profile; allowed: math, json"
        assert await talk.value("import json") == denied
        # What IPython does on the cell's behalf goes on.
        for code in ("%timeit -n 1 -r 1 1 + 1", "%time 1 + 1", "%%capture\n1", "!true", "%pwd"):
            assert (await talk.run(code)).status == "ok", code
        said = await talk.run("import socket")
        trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(said.contents("error")[0]["traceback"]))
        assert "guarded_import" not in trace
        assert "import socket" in trace
