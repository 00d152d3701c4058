"""Frames of either format, and what the protocol says to them."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st

from broker.errors import BadFrame, BadMessage, ClientError, TooLarge
from broker.faults import Bounds

BOUNDS = Bounds(max_frame=100_000, max_depth=32)


QUICK = settings(max_examples=150)


def refusal_of(call: Callable[[], object]) -> ClientError | None:
    """Return how the call was refused; an error that is no refusal passes through."""
    try:
        call()
    except (BadFrame, BadMessage, TooLarge) as refusal:
        return refusal
    return None


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
