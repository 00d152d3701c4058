"""Control groups, version 2."""

from __future__ import annotations

from .cgroups import Cgroups, Unavailable


class CgroupsV2:
    """Not yet."""

    @classmethod
    def prepare(cls, own: str, name: str, required: frozenset[str]) -> Cgroups:
        """Refuse."""
        raise Unavailable("cgroup v2 is not supported", "Use v1")
