"""Run cells before the fork, for what they leave behind: imports, caches, specialised code.

Made once it is shared by all kernels; made after the fork, each would have its own. The interpreter
rewrites code that runs often, too, and a page that is written to is no longer shared.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import linecache
import os
import sys
import threading
from typing import Any

ROUNDS = 12  # code is specialised when it has run eight times
NOBODY = b"nobody"  # who asks
CELLS = (
    "1+1",
    "print('x')",
    "x = {'a': [1, 2.5, 'text', None]}\nx",
    "import math\nsum(math.sqrt(i) for i in range(10))",
    "def f(x):\n    return x / 0\nf(1)",
    "not python",
    "from IPython.display import HTML, display\ndisplay(HTML('<b>x</b>'))",
    "%time 1",
    "import asyncio\nawait asyncio.sleep(0)",
)
WITH = {
    "pandas": "import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})",
    "numpy": "import numpy as np\nnp.arange(10).reshape(2, 5) * 1.5",
}


class Nobody:
    """A peer that takes everything, and is not there."""

    topics = frozenset({b""})
    unread = 0

    def send(self, data: bytes) -> None:
        """Take it."""

    def wait(self, *args: Any) -> None:
        """Have room."""


def rehearse(app: Any) -> None:
    """Have the application's kernel run some cells, and leave it as if it never had."""
    kernel, shell, publisher = app.kernel, app.shell, app.iopub_socket
    atexit.unregister(shell.atexit_operations)  # the zygote's end is not a session's
    kept = sys.stdout, sys.stderr, sys.displayhook, sys.excepthook, sys.modules["__main__"]
    names, hidden = dict(shell.user_ns), dict(shell.user_ns_hidden)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    cells = [*CELLS, *(code for module, code in WITH.items() if module in sys.modules)]
    try:
        sys.stdout, sys.stderr = app.streams
        sys.displayhook, sys.excepthook, sys.modules["__main__"] = app.hooks
        publisher.pretend(Nobody())
        app.session.begin(b"rehearsal")
        loop.run_until_complete(_run(kernel, cells))
    finally:
        publisher.pretend(None)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        asyncio.set_event_loop(None)
        sys.stdout, sys.stderr, sys.displayhook, sys.excepthook = kept[:4]
        sys.modules["__main__"] = kept[4]
    _forget(shell)
    for namespace, before in ((shell.user_ns, names), (shell.user_ns_hidden, hidden)):
        namespace.clear()
        namespace.update(before)


def dress(app: Any) -> None:
    """Run a cell in a kernel that nobody has yet: its first pages are its own before it is needed.

    A fork copies each page when it is first written to. Done now, nobody waits for that.
    """
    kernel, shell, publisher = app.kernel, app.shell, app.iopub_socket
    publisher.muted = threading.current_thread()
    try:
        for code in ("1+1", "print('x')"):
            content = _execution(code) | {"store_history": False}
            frames = kernel.session.serialize(kernel.session.msg("execute_request", content))
            work = kernel.shell_main(None, [NOBODY, *frames])
            # Without the loop: it would serve others, too. Nothing is awaited that is not there.
            with contextlib.suppress(StopIteration):
                work.send(None)
            work.close()
        publisher.flush()  # waits for a thread that is about to send the text
    finally:
        publisher.muted = None
    shell.last_execution_result = None
    for name in shell.compile._filename_map:
        linecache.cache.pop(name, None)
    shell.compile._filename_map.clear()


async def _run(kernel: Any, cells: list[str]) -> None:
    session = kernel.session
    kernel.shell_channel_thread.pretend(asyncio.get_running_loop())
    requests: list[tuple[str, dict[str, Any]]] = [
        *(("execute_request", _execution(code)) for code in cells),
        ("complete_request", {"code": "x.__cl", "cursor_pos": 6}),
        ("inspect_request", {"code": "print", "cursor_pos": 5, "detail_level": 0}),
        ("is_complete_request", {"code": "def f():"}),
        ("kernel_info_request", {}),
    ]
    for turn in range(ROUNDS):
        for kind, content in requests[: None if turn < 2 else 2]:
            frames = session.serialize(session.msg(kind, content))
            await kernel.shell_main(None, [NOBODY, *frames])


def _execution(code: str) -> dict[str, Any]:
    return {
        "code": code,
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": False,
    }


def _forget(shell: Any) -> None:
    shell.history_manager.reset(new_session=True)
    shell.execution_count = 1
    shell._sys_modules_keys = set(sys.modules)
    shell.last_execution_result = shell._last_traceback = None
    shell.compile._filename_map.clear()
    for name in [name for name in linecache.cache if not os.path.exists(name)]:
        del linecache.cache[name]
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        if hasattr(sys, name):
            delattr(sys, name)
