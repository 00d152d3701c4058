"""What a session's clients have set around all that runs from then on: variables, a directory.

Kept in memory alone. What is secret in it is written nowhere, and shown nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from broker.faults import bad_field

MAX_NAMES = 256  # that have a value; and as many that were removed
MAX_CHARACTERS = 256 << 10  # of all values; execve(2) has a bound of its own


class Variable(NamedTuple):
    """One name: its value, None where it was removed, and the version that set it so."""

    value: str | None
    version: int
    was_set: bool  # by a client: before that, only what the profile sets could be removed


@dataclass(frozen=True, slots=True, repr=False)
class Surroundings:
    """All that was set up to a moment, each with the version that set it; 0 is before any."""

    version: int = 0
    _env: Mapping[str, Variable] = field(default_factory=dict)
    _cwd: tuple[str | None, int] = (None, 0)

    def __repr__(self) -> str:
        return f"<Surroundings: version {self.version}, {len(self._env)} variables>"

    def changed(
        self, env: Mapping[str, str | None], cwd: str | None, *, applied: int = 0
    ) -> Surroundings:
        """Return them with what is set now; None removes a variable. Raises BadMessage.

        `applied` is the version that the kernel has: what a client had set, and the kernel does not
        have any more, may be forgotten.
        """
        version = self.version + 1
        known = dict(self._env)
        for name, value in env.items():
            was_set = value is not None or (name in known and known[name].was_set)
            known[name] = Variable(value, version, was_set)
        removed = [name for name, one in known.items() if one.value is None]
        if len(known) - len(removed) > MAX_NAMES:
            raise bad_field("env", f"more than {MAX_NAMES} variables in this session")
        if sum(len(one.value or "") for one in known.values()) > MAX_CHARACTERS:
            raise bad_field("env", f"more than {MAX_CHARACTERS:,} characters in this session")
        if (over := len(removed) - MAX_NAMES) > 0:
            removed.sort(key=lambda name: known[name].version)
            needless = [
                name for name in removed if known[name].was_set and known[name].version <= applied
            ]
            if len(needless) < over:
                raise bad_field("env", f"more than {MAX_NAMES} variables removed in this session")
            for name in needless[:over]:
                del known[name]
        return Surroundings(version, known, self._cwd if cwd is None else (cwd, version))

    def has(self, env: Mapping[str, str | None], cwd: str | None) -> bool:
        """Tell whether all of this is set so already."""
        known = all(name in self._env and self._env[name].value == env[name] for name in env)
        return known and cwd in (None, self._cwd[0])

    def since(self, version: int) -> dict[str, Any]:
        """Return what was set after that version, as `env` and `cwd`."""
        env = {name: one.value for name, one in self._env.items() if one.version > version}
        cwd, since = self._cwd
        return {"env": env, **({"cwd": cwd} if since > version else {})}

    def without(self, refused: Surroundings, proven: Surroundings) -> Surroundings:
        """Return them with the directory that was proven, if they have the one that was refused."""
        if self._cwd != refused._cwd:
            return self
        return replace(self, _cwd=(None, 0) if proven._cwd == refused._cwd else proven._cwd)


NONE = Surroundings()


class Around:
    """What is around a session's executions: as its clients want it, and as its kernel has it."""

    def __init__(self) -> None:
        self.wanted = NONE  # for all that is asked for from now on
        self.version = 0  # which of it the kernel has
        self._proven = NONE  # what some kernel of the session could take on

    def settle(self, around: Surroundings, *, refused: bool) -> None:
        """Note that the kernel has these; not the directory, if that is `refused`.

        Then nothing of it comes again: the session stays where it was, and so do later kernels.
        """
        self.version = around.version
        if refused:
            self.wanted = self.wanted.without(around, self._proven)
            around = around.without(around, self._proven)
        self._proven = around
