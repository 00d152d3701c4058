"""The terms in which routes are described: kinds of parameters, and what goes wrong together."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from broker import errors
from broker.bounds import ASKED
from broker.listing import SORTS
from broker.principal import TENANT
from broker.web.route import Parameter
from kernels.state import SessionState

Flag = Literal["true", "false", "1", "0"]
Number = Annotated[float, Meta(ge=0, lt=1e12)]
Positive = Annotated[int, Meta(ge=1, lt=10**12)]
Line = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")]
Sort = Literal[*SORTS]  # type: ignore[valid-type]
State = Literal["", "all", *(state.value for state in SessionState)]  # type: ignore[valid-type]

TenantName = Annotated[str, Meta(pattern=f"^{TENANT}$")]
OF = Parameter("tenant", "Whose it is, for the operator; one's own by default.", TenantName)

EVERYBODY = ""  # without a token
BUSY = (errors.SessionElsewhere, errors.Draining, errors.StoreUnavailable)
FULL = (
    *BUSY,
    errors.AtCapacity,
    errors.QuotaExceeded,
    errors.QueueFull,
    errors.ProfileBroken,
    errors.SessionLost,
)
BODY = (errors.BadFrame, errors.TooLarge)
BOUNDS = tuple(
    Parameter(name, "A bound for this session, lower than its profile's, as in the settings.")
    for name in ASKED
)
