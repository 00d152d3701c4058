"""Which session is on which kernel of which node, in Redis.

`connection` alone imports redis; `records` are the values that go in and out; `mapping` is the
store itself; its scripts are in `broker/lua`.
"""

from broker.store.mapping import Store
from broker.store.records import Claim, Lease, NodeRecord, Renewal, SessionRecord, Touch
from broker.store.urls import redacted

__all__ = [
    "Claim",
    "Lease",
    "NodeRecord",
    "Renewal",
    "SessionRecord",
    "Store",
    "Touch",
    "redacted",
]
