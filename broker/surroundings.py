"""What a session's clients have set around all that runs from then on: variables, a directory.

Kept in memory alone. What is secret in it is written nowhere, and shown nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.faults import bad_field

MAX_NAMES = 256
MAX_CHARACTERS = 256 << 10  # of all values; execve(2) has a bound of its own


@dataclass(frozen=True, slots=True, repr=False)
class Surroundings:
    """All that was set up to a moment, each with the version that set it; 0 is before any."""

    version: int = 0
    _env: Mapping[str, tuple[str | None, int]] = field(default_factory=dict)
    _cwd: tuple[str | None, int] = (None, 0)

    def __repr__(self) -> str:
        return f"<Surroundings: version {self.version}, {len(self._env)} variables>"

    def changed(self, env: Mapping[str, str | None], cwd: str | None) -> Surroundings:
        """Return them with what is set now; None removes a variable. Raises BadMessage."""
        version = self.version + 1
        known = {**self._env, **{name: (value, version) for name, value in env.items()}}
        if len(known) > MAX_NAMES:
            raise bad_field("env", f"more than {MAX_NAMES} variables in this session")
        if sum(len(value or "") for value, _ in known.values()) > MAX_CHARACTERS:
            raise bad_field("env", f"more than {MAX_CHARACTERS:,} characters in this session")
        return Surroundings(version, known, self._cwd if cwd is None else (cwd, version))

    def has(self, env: Mapping[str, str | None], cwd: str | None) -> bool:
        """Tell whether all of this is set so already."""
        known = all(name in self._env and self._env[name][0] == env[name] for name in env)
        return known and cwd in (None, self._cwd[0])

    def since(self, version: int) -> dict[str, Any]:
        """Return what was set after that version, as `env` and `cwd`."""
        env = {name: value for name, (value, since) in self._env.items() if since > version}
        cwd, since = self._cwd
        return {"env": env, **({"cwd": cwd} if since > version else {})}


NONE = Surroundings()
