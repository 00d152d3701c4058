"""The tokens a broker accepts: who each speaks for, and who is let go when it ends.

A token is one of three: static, as the configuration or the state directory has it; stored, made by
an administrator and kept by its digest; or signed by somebody whose key the broker knows. Each is
compared by digest and in constant time, or proves itself; nothing here shows one.

A stored token is asked about once in `FRESH` seconds and not for every request, so a node learns
within that time what was revoked on another. What is revoked here is void at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from broker.errors import Forbidden, QuotaExceeded, StoreUnavailable, Unauthorized, UnknownToken
from broker.grants import Grant
from broker.principal import DEFAULT_TENANT, SCOPES, Deed, Principal
from broker.store import TokenRecord, TokenRows

logger = logging.getLogger(__name__)

FRESH = 5.0  # s that the store's word about a token holds
KNOWN = 4096  # tokens remembered for as long
MOST = 10_000  # tokens in the store
PREFIX = "kbt_"  # so that people and scanners know one when they see it
_STORED = re.compile(PREFIX + r"[A-Za-z0-9_-]{43,64}")  # 32 bytes, in base64url of old
_SIGNED = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
ID = 16  # characters of the digest that name a token
EXPIRED, REVOKED = "the token has expired", "the token was revoked"

Check = Callable[[str], Principal]
Expel = Callable[[str], None]  # told why


@dataclass(slots=True, eq=False)
class _Guest:
    """A connection that lasts no longer than its token."""

    expel: Expel
    principal: Principal
    deadline: asyncio.TimerHandle | None = None


class Tokens:
    """Let tokens in, make and revoke them. `clock` is Unix seconds."""

    def __init__(
        self,
        static: Mapping[str, Principal],
        *,
        rows: TokenRows | None = None,
        signed: Check | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._static = {_digest(token): who for token, who in static.items() if token}
        self._rows = rows
        self._signed = signed
        self._clock = clock
        self._known: OrderedDict[str, tuple[Principal, float]] = OrderedDict()  # until when
        self._revoked: dict[str, None] = {}  # digests of the last that were, oldest first
        self._guests: set[_Guest] = set()
        self._asking: asyncio.Task[None] | None = None
        self._revocations = 0

    @classmethod
    def single(
        cls, token: str, *, rows: TokenRows | None = None, signed: Check | None = None
    ) -> Tokens:
        """Accept one static token, which may do everything; and those stored and signed."""
        return cls({token: Principal()}, rows=rows, signed=signed)

    def __repr__(self) -> str:
        return f"<Tokens: {len(self._static)} static, {len(self._known)} known>"

    async def aclose(self) -> None:
        """Let go of every deadline."""
        for guest in tuple(self._guests):
            self._leave(guest)
        if (asking := self._asking) is not None:
            asking.cancel()
            await asyncio.wait((asking,))

    # Who is asking

    async def check(self, presented: str) -> Principal:
        """Return who the token speaks for. Raises Unauthorized; StoreUnavailable for a stored one.

        Only a stored token that was not asked about of late waits for anything.
        """
        digest = _digest(presented)
        found: Principal | None = None
        for known, principal in self._static.items():  # all of them: no early end to measure
            if hmac.compare_digest(known, digest):
                found = principal
        if found is not None:
            return found
        if self._rows is not None and _STORED.fullmatch(presented):
            return await self._stored(digest)
        if self._signed is not None and _SIGNED.fullmatch(presented):
            return self._signed(presented)
        raise _wrong()

    async def _stored(self, digest: str) -> Principal:
        now = self._clock()
        principal, until = self._known.get(digest, (None, 0.0))
        while principal is None or until <= now:
            revocations = self._revocations
            record = await self._stored_rows().get(digest)
            if record is None:
                self._forget(digest)
                raise _wrong()
            principal = principal_of(record)
            if revocations == self._revocations:  # else it may have been this one, meanwhile
                until = now + FRESH
                self._remember(digest, principal, until)
                self._revoked.pop(digest, None)  # it was missing once, and is back
        if principal.expires is not None and principal.expires <= now:
            raise _wrong()
        return principal

    def _remember(self, digest: str, principal: Principal, until: float) -> None:
        self._known[digest] = principal, until
        self._known.move_to_end(digest)
        if len(self._known) > KNOWN:
            self._forget(next(iter(self._known)))

    def _forget(self, digest: str) -> None:
        self._known.pop(digest, None)

    # Making and revoking

    async def create(self, maker: Principal, grant: Grant) -> tuple[str, TokenRecord]:
        """Return a new token, which is never told again, and its record.

        Raises Forbidden for a token that the maker may not hand out.
        """
        maker.require(Deed.ADMINISTER)
        tenant = grant.tenant or maker.tenant
        if tenant != maker.tenant and not maker.is_operator:
            raise Forbidden(
                f"tenant: a token of {maker.tenant!r} makes none for others; the operator's does",
                field="tenant",
            )
        rows = self._stored_rows()
        if await rows.count() >= MOST and len(await rows.all()) >= MOST:
            raise QuotaExceeded(f"there are {MOST} tokens; revoke some first", field="tokens")
        now = self._clock()
        expires = now + grant.expires_in if grant.expires_in else 0.0
        if maker.expires is not None:  # what is made does not outlive what it was made with
            expires = min(expires or maker.expires, maker.expires)
        # Some clients of Jupyter's write an address, and a token in it, in small letters.
        token = PREFIX + secrets.token_hex(32)
        record = TokenRecord(
            _digest(token),
            tenant,
            " ".join(sorted(grant.scopes)),
            grant.session or "",
            grant.name,
            now,
            expires,
            maker.token_id,
        )
        await rows.put(record)
        return token, record

    async def listed(self, asker: Principal) -> list[TokenRecord]:
        """Return the tokens of the asker's tenant, or all of them for the operator."""
        asker.require(Deed.ADMINISTER)
        found = await self._stored_rows().all()
        return [one for one in found if asker.is_operator or one.tenant == asker.tenant]

    async def revoke(self, asker: Principal, token_id: str) -> TokenRecord:
        """End a token and what lasts by it here: sockets, executions. Raises UnknownToken.

        A file that is on its way over HTTP gets to its end.
        """
        found = [one for one in await self.listed(asker) if one.digest[:ID] == token_id]
        if not found:
            raise UnknownToken(f"no token {token_id[:64]!r}", field="id")
        await self._stored_rows().drop(found[0].digest)
        self._expel_all({found[0].digest})
        return found[0]

    def _stored_rows(self) -> TokenRows:
        if self._rows is None:
            raise StoreUnavailable("this broker keeps no tokens")
        return self._rows

    # Connections that last

    def hold(self, principal: Principal, expel: Expel) -> Callable[[], None]:
        """Have a connection ended with its token; return what to call when it ends by itself."""
        if principal.expires is None and not principal.digest:
            return _nothing
        guest = _Guest(expel, principal)
        self._guests.add(guest)
        if principal.digest in self._revoked:  # since it was let in
            self._expel(guest, REVOKED)
            return _nothing
        self._await_end(guest)
        if principal.digest and self._asking is None:
            self._asking = asyncio.create_task(self._ask_again())
        return lambda: self._leave(guest)

    def _await_end(self, guest: _Guest) -> None:
        expires = guest.principal.expires
        if expires is None:
            return
        left = expires - self._clock()
        if left <= 0:
            self._expel(guest, EXPIRED)
        else:  # again when it is over: the loop's clock is not the calendar's
            later = asyncio.get_running_loop().call_later
            guest.deadline = later(left + 0.001, self._await_end, guest)

    async def _ask_again(self) -> None:
        """Look, while stored tokens hold connections open, which were revoked elsewhere."""
        try:
            while digests := sorted({guest.principal.digest for guest in self._guests} - {""}):
                await asyncio.sleep(FRESH)
                try:
                    self._expel_all(set(await self._stored_rows().gone(digests)))
                except StoreUnavailable as error:  # which says nothing about the tokens
                    logger.warning("tokens are not asked about: %s", error)
                except Exception:  # a fault of ours is no reason to look no more
                    logger.exception("tokens are not asked about")
        finally:
            self._asking = None

    def _expel_all(self, digests: set[str]) -> None:
        self._revocations += 1
        for digest in digests:
            self._forget(digest)
            self._revoked[digest] = None
        while len(self._revoked) > KNOWN:
            del self._revoked[next(iter(self._revoked))]
        for guest in tuple(self._guests):
            if guest.principal.digest in digests:
                self._expel(guest, REVOKED)

    def _expel(self, guest: _Guest, why: str) -> None:
        self._leave(guest)
        guest.expel(why)

    def _leave(self, guest: _Guest) -> None:
        self._guests.discard(guest)
        if guest.deadline is not None:
            guest.deadline.cancel()


def principal_of(record: TokenRecord) -> Principal:
    """Return who a stored token speaks for."""
    return Principal(
        record.tenant or DEFAULT_TENANT,
        frozenset(record.scopes.split()) & SCOPES,
        record.session or None,
        record.expires or None,
        record.digest[:ID],
        record.digest,
    )


def _wrong() -> Unauthorized:
    return Unauthorized("the access token is wrong, has expired or was revoked")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def _nothing() -> None:
    pass
