"""Who uses the debugger of one session's kernel.

A cell that stands at a breakpoint goes on when somebody says so. When the last who could has gone,
and has not come back for a while, the debugger is left, and with it all breakpoints.
"""

from __future__ import annotations

import asyncio
from typing import Any

from broker.jupyter.follower import Follower
from broker.session import Session

GRACE = 60.0  # s for a client that has lost its connection; a page tries again within seconds
DEBUG = "debug_request"
# Looked at beside a debugger, and where there is none.
LOOKS = ("debugInfo", "inspectVariables", "richInspectVariables", "modules", "copyToGlobals")
LEAVE = "disconnect"  # for everybody: a kernel has one debugger
REFUSED = "terminate"  # by kernels of ours: who asks for it uses nothing
DISCONNECT = (  # as DAP has it
    b'{"type":"request","seq":1,"command":"disconnect",'
    b'"arguments":{"restart":false,"terminateDebuggee":false}}'
)


class Debuggers:
    """The clients that have attached the debugger, or have driven it since."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._users: set[Follower] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Debuggers: {len(self._users)}>"

    def note(self, follower: Follower, content: dict[str, Any]) -> None:
        """Note what a client asks of the debugger."""
        command = content.get("command")
        if command == LEAVE:
            self.forget_all()
        elif command not in (*LOOKS, REFUSED):
            self._users.add(follower)
            self._wait_no_longer()  # for another, in whose place it is now

    def came(self, follower: Follower) -> None:
        """Note that a client is back."""
        if follower in self._users:
            self._wait_no_longer()

    def left(self, follower: Follower) -> None:
        """Note that a client's connection is gone; it may come back."""
        if follower in self._users and self._timer is None and not self._is_attended:
            self._timer = asyncio.get_running_loop().call_later(GRACE, self._let_go)

    def forget(self, follower: Follower) -> None:
        """Note that a client has gone for good."""
        if follower in self._users:
            self._users.remove(follower)
            if not self._users:
                self._let_go()

    def forget_all(self) -> None:
        """Forget everybody: there is no debugger any more."""
        self._users.clear()
        self._wait_no_longer()

    @property
    def _is_attended(self) -> bool:
        return any(user.wire is not None for user in self._users)

    def _let_go(self) -> None:
        """Leave the debugger, by whose end what it has stopped goes on."""
        self._wait_no_longer()
        if self._is_attended:
            return
        self.forget_all()
        if (kernel := self._session.kernel) is not None:
            channels = kernel.channels
            try:
                channels.send("control", DEBUG, DISCONNECT, msg_id=channels.next_id())
            except BlockingIOError:
                return  # it reads nothing: its cell's time has an end all the same

    def _wait_no_longer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
