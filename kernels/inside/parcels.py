"""What a request brings beside its code: variables, an environment, a directory, a call.

It stands in the content of an `execute_request` as `broker`, a map:

- `configure`: `{"env": {name: text or null}, "cwd": path}`, from now on; the reply's `broker` says
  that it is `configured`, and that `cwd` was `refused` where the session stays in its directory
- `env`, `cwd`: the same, until the request is done
- `inputs`: `{name: plain data}`, set as variables
- `call`: `{"function", "args", "kwargs"}`, in the place of the code
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from .calls import Calls
from .surroundings import Surroundings
from .tagged import unpacked

Reply = dict[str, Any]


class Parcels:
    """Opens them, and runs what they came with."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._calls = Calls(kernel)
        self._surroundings = Surroundings()
        self.put_back = self._surroundings.put_back

    @property
    def lent(self) -> int:
        """Count what of the surroundings is lent, to put back no more than what comes later."""
        return self._surroundings.lent

    def run(
        self, execute: Callable[..., Awaitable[Reply]], *args: Any, **options: Any
    ) -> Awaitable[Reply]:
        """Serve an execute_request: `execute` is how code is run, the rest what it is given."""
        # Of the channel that this thread serves: the control thread knows none of the shell's.
        parcel = self._kernel.get_parent()["content"].get("broker")
        if not isinstance(parcel, dict):
            return execute(*args, **options)
        return self._run(parcel, execute, *args, **options)

    async def _run(
        self,
        parcel: dict[str, Any],
        execute: Callable[..., Awaitable[Reply]],
        *args: Any,
        **options: Any,
    ) -> Reply:
        told: Reply = {}
        try:
            self._prepare(parcel, told)
            call = parcel.get("call")
            if call is not None:
                args_, kwargs = unpacked(call["args"]), unpacked(call["kwargs"])
        except (Exception, KeyboardInterrupt) as error:
            return {**self._kernel._failed(error, silent=False), "broker": told}
        if call is None:
            reply = await execute(*args, **options)
        else:
            stdin = bool(options.get("allow_stdin"))
            reply = await self._calls.run(call["function"], args_, kwargs, allow_stdin=stdin)
        return {**reply, "broker": told}

    def _prepare(self, parcel: dict[str, Any], told: Reply) -> None:
        shell = self._kernel.shell
        home = shell.starting_dir
        if (lasting := parcel.get("configure")) is not None:
            try:
                self._surroundings.change(lasting.get("env", {}), lasting.get("cwd"), home)
            except OSError:  # told once: it would keep every later execution from running
                told |= {"configured": True, "refused": "cwd"}
                raise
            told["configured"] = True
        self._surroundings.lend(parcel.get("env", {}), parcel.get("cwd"), home)
        if inputs := parcel.get("inputs"):
            shell.push({name: unpacked(value) for name, value in inputs.items()})
