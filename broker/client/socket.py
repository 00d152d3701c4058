"""What both clients share about the WebSocket: its options and the meaning of its errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .backoff import is_passing
from .door import answer_error, no_server
from .errors import BrokerError, from_close
from .wire import MAX_FRAME, SUBPROTOCOLS

if TYPE_CHECKING:
    from websockets.exceptions import ConnectionClosed

# A broker that binds a kernel answers the upgrade at once; only a dead network takes longer.
OPEN_TIMEOUT = 10.0
ANSWER = 10.0  # s that it may take to answer what is asked before anything else


# A peer that vanished without a word is found out this late, twice over.
PING_INTERVAL = 20.0  # s between pings, and until an answer must have come
# What a proxy says while the broker behind it starts again.
ABSENT = (502, 503, 504)


def connect_options(
    token: str, ping_interval: float = PING_INTERVAL, answer: float | None = None
) -> dict[str, Any]:
    """Return the arguments of `connect` apart from the address."""
    return {
        "subprotocols": list(SUBPROTOCOLS),
        "additional_headers": {"Authorization": f"Bearer {token}"} if token else {},
        "compression": None,  # the broker is near; deflate costs more time than it saves
        "proxy": None,  # an address is taken at its word, as in `Door`
        "max_size": MAX_FRAME,
        "open_timeout": OPEN_TIMEOUT if answer is None else answer,
        "close_timeout": 2.0,
        "ping_interval": ping_interval or None,
        "ping_timeout": ping_interval or None,
    }


def opening_error(url: str, error: Exception) -> BrokerError:
    """Return what it means that the socket did not open."""
    from websockets.exceptions import InvalidStatus

    if isinstance(error, InvalidStatus):
        response = error.response
        try:
            answer: Any = json.loads(response.body or b"")
        except ValueError:
            answer = None
        if response.status_code in ABSENT and not isinstance(answer, dict):
            return no_server(url, error)
        return answer_error(url, response.status_code, answer)
    return no_server(url, error)


class Outage:
    """One time without a connection, tried again for up to `total` s: logged if it lasts."""

    def __init__(self, total: float) -> None:
        self._total = total
        self._told = False

    def goes_on(self, error: BrokerError) -> None:
        """Log, once, that a connection is not to be had again at once."""
        if not self._told and is_passing(error):
            self._told = True
            _log("%s; trying again for up to %g s", error.message, self._total)

    def ends(self) -> None:
        """Log that there is a connection again, where it was told that there is none."""
        if self._told:
            _log("connected again")


def _log(words: str, *values: object) -> None:
    import logging  # which only an outage needs

    logging.getLogger("broker.client").warning(words, *values)


def closed_error(closed: ConnectionClosed) -> BrokerError:
    """Return what the end of a socket means to a request that was open."""
    end = closed.rcvd
    if end is None and closed.sent is not None:
        end = closed.sent if closed.sent.code == 1009 else None  # a frame over our own bound
    return from_close(end.code if end else None, end.reason if end else "")
