"""Become a program that is none of ours: any kernelspec's, in the sandbox of our own kernels."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Mapping
from typing import Any, NoReturn

from ..sandbox import reaper, recipe
from .relay import FORWARDED, Address, Relay

# The program gets a Landlock domain below its relay's, and can send it no signal (ABI 6).
OWN = ("landlock", "seccomp")
RELAYS = ("seccomp",)
SHARED = tuple(layer for layer in recipe.LAYERS if layer not in RELAYS)
# Ignored by Python or by the zygote, which an exec would pass on.
DEFAULT = (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ, *FORWARDED)


def addresses(connection: Mapping[str, Any]) -> dict[str, Address]:
    """Return where the program will listen, by channel; the connection file says it so."""
    found: dict[str, Address] = {}
    for name in ("shell", "iopub", "stdin", "control", "hb"):
        ip, port = connection["ip"], connection[f"{name}_port"]
        found[name] = (ip, port) if connection["transport"] == "tcp" else f"{ip}-{port}"
    return found


def become(
    config: socket.socket,
    listeners: Mapping[str, int],
    box: recipe.Enclosure | None,
    options: dict[str, Any],
) -> NoReturn:
    """Fork the program, and stay as its relay. The SHARED layers are on. Raises OSError."""
    if box is None:
        raise ValueError("a program is none of ours to start without a sandbox")
    heard, words = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, *FORWARDED})
    program = os.fork()
    if program:
        try:
            os.close(words)
            recipe.enter(box, RELAYS)
            Relay(listeners, addresses(options["connection"]), config, heard).serve(program)
        finally:
            os._exit(1)
    os.dup2(words, 1)
    os.dup2(words, 2)
    os.setsid()  # a group of its own, which interrupts are for
    recipe.enter(box, OWN)
    run(config, options)


def run(config: socket.socket, options: dict[str, Any]) -> NoReturn:
    """Write the connection file and become the program. Raises OSError."""
    reaper.close_all_but({config.fileno()})
    config.set_inheritable(False)
    connection, file = options["connection"], options["connection_file"]
    if connection["transport"] == "ipc":
        os.mkdir(os.path.dirname(connection["ip"]), 0o700)
    with open(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as out:
        json.dump(connection, out)
    os.chdir(options["cwd"])
    for number in DEFAULT:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, *FORWARDED})
    command: list[str] = options["argv"]
    os.execvpe(command[0], command, options["env"])  # noqa: S606 - what a kernelspec names
