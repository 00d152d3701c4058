"""What a forked child does first: learn what it is to be, be shut in, and become that."""

from __future__ import annotations

import importlib
import json
import os
import socket
import traceback
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ..sandbox import recipe, rlimits, selftest
from . import program

MAX_CONFIG = 160 << 10


@dataclass
class Request:
    """What a forked child is to become; its descriptors are its own."""

    config: socket.socket
    listeners: dict[str, int]
    box: recipe.Enclosure | None  # None without a sandbox


def become(request: Request) -> None:
    """Turn the forked child into what its config says; never returns."""
    try:
        options: dict[str, Any] = json.loads(request.config.recv(MAX_CONFIG))
        os.setsid()
        os.umask(options.get("umask", 0o077))
        parts = options["part"] == "program"
        if request.box is not None:
            shut_in(request.box, options, program.SHARED if parts else recipe.LAYERS)
        else:
            rlimits.apply(options["limits"])
        if options["part"] == "probe":
            selftest.become(request.config, options)
        if parts:
            program.become(request.config, request.listeners, request.box, options)
        # Imported by the zygote: what is not, no sandbox shows.
        part = importlib.import_module("_kernel.inside.app")
    except BaseException as error:
        refuse(request.config, error)
    part.become(request.config, request.listeners, options)


def shut_in(box: recipe.Enclosure, options: dict[str, Any], layers: Collection[str]) -> None:
    """Put the sandbox on, with the limits of this kernel."""
    box.tmp = options["tmp"]
    box.limits = dict(options["limits"])
    if memory := box.limits.pop("memory", 0):
        # A cell that asks for too much at once gets its MemoryError; the cgroup has the last word.
        # Beyond that word, so that many small requests meet it and do not fail one by one for ever.
        box.limits["data_bytes"] = box.private_bytes + memory + memory // 8
    recipe.enter(box, layers)


def refuse(config: socket.socket, error: BaseException) -> None:
    """Say why there will be no kernel, and end."""
    text = "".join(traceback.format_exception_only(type(error), error)).strip()
    answer = {"error": text, "layer": getattr(error, "layer", "")}
    config.send(json.dumps(answer).encode()[:MAX_CONFIG])
    os._exit(1)
