"""Children that a cell forks: they are no kernels.

Such a child has copies of the kernel's connections, loops and locks. It may compute and print; what
it prints goes to the descriptors, which its parent reads. Where its cell ends, so does it: going on
it would take its parent's requests from the sockets that both have.
"""

from __future__ import annotations

import os
import traceback
from typing import Any, NoReturn

from .streams import CellStream
from .subshells import Lane


def expect(app: Any) -> None:
    """See to it that the children of a kernel's cells say and ask nothing in its name."""
    ends = app.iopub_socket, app.shell_socket, app.control_socket, app.stdin_socket

    def disown() -> None:
        for end in (*ends, CellStream.pending, CellStream.budget):
            end.disown()
        Lane.leave = lambda: leave(app.shell.last_execution_result)

    os.register_at_fork(after_in_child=disown)


def leave(result: Any) -> NoReturn:
    """End as a program would that did what the cell has done."""
    error = result and (result.error_before_exec or result.error_in_exec)
    if isinstance(error, SystemExit):
        os._exit(error.code & 0xFF if isinstance(error.code, int) else bool(error.code))
    if error is not None:
        traceback.print_exception(error)
    os._exit(error is not None)
