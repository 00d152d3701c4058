"""Which session is on which kernel of which node, in Redis.

`connection` alone imports redis; `records` are the values that go in and out; `mapping` is the
store itself, with its scripts in `broker/lua`; `tokens` are the access tokens, kept beside it.
"""

from broker.store.mapping import Store
from broker.store.records import (
    Claim,
    Lease,
    NodeRecord,
    Renewal,
    SessionRecord,
    TokenRecord,
    Touch,
)
from broker.store.tokens import TokenRows
from broker.store.urls import redacted

__all__ = [
    "Claim",
    "Lease",
    "NodeRecord",
    "Renewal",
    "SessionRecord",
    "Store",
    "TokenRecord",
    "TokenRows",
    "Touch",
    "redacted",
]
