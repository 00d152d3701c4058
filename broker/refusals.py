"""What a pool says to those it has no kernel for. Pure."""

from __future__ import annotations

from broker.errors import AtCapacity, Draining, ProfileBroken
from broker.policy import PoolView


def closing(profile: str) -> Draining:
    """Return the refusal of a pool that ends."""
    return Draining(f"the pool of profile {profile} is closing")


def broken(profile: str, why: str, retry_in: float) -> ProfileBroken:
    """Return the refusal of a pool whose kernels do not come up."""
    return ProfileBroken(
        f"kernels of profile {profile} cannot start: {why}; next attempt in {retry_in:.1f} s",
        retry_after=retry_in,
    )


def unusable(profile: str, why: str) -> ProfileBroken:
    """Return the refusal of a pool that got no kernel up on a session's files."""
    return ProfileBroken(
        f"no kernel of profile {profile} came up on the session's files: {why}; a restart with"
        " keep_files = false goes on without them"
    )


def no_room(
    profile: str, view: PoolView, cap: int, *, waiting: int = 0, again: float = 1.0
) -> AtCapacity:
    """Return the refusal of a pool that cannot hold another kernel; `again` in seconds.

    `waiting` are those of the tenant that wait already.
    """
    full = "" if view.room is None or view.room > 0 else ", and the node is full"
    queue = f"; {waiting} of this tenant's sessions wait already, as many as may" if waiting else ""
    return AtCapacity(
        f"no room for a kernel of profile {profile}: {view.total} of at most {cap} are there{full}"
        f"{queue}",
        retry_after=again,
    )


def too_late(profile: str, timeout: float, again: float = 1.0, *, full: bool = False) -> AtCapacity:
    """Return the refusal of a caller who has waited long enough; `timeout`, `again` in seconds.

    `full` says that somebody had to leave first: nothing is wrong with the profile.
    """
    what = "no kernel of profile {} came up"
    if full:
        what = "all kernels that there is room for are in use, and none of profile {} came free"
    return AtCapacity(f"{what.format(profile)} within {timeout:g} s", retry_after=again)


def words(error: BaseException, start_timeout: float) -> str:
    """Return what to tell people of a failed start."""
    if isinstance(error, TimeoutError) and not str(error):
        return f"no answer within {start_timeout:g} s"
    return str(error) or type(error).__name__
