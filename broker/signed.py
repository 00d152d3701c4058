"""Signed tokens (RFC 7519): who somebody else says is asking, by keys that the operator trusts.

Each key is good for one algorithm, by its type: what a token's header claims chooses among the keys
and never how one is used. So a public key is no shared secret, and `none` is nothing. The only file
that imports jwt.

Claims: `exp` must be there, `nbf` and `iat` are kept to; the tenant (`tenant`, or as configured);
`scope`, with spaces between (RFC 8693, 4.2), of which those that are not ours are let be; and
`session` for a token that opens that one alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from broker.errors import BadSessionName, StateDirError, Unauthorized
from broker.principal import ADMIN, SCOPES, Principal, is_tenant
from broker.protocol import check_session_name

logger = logging.getLogger(__name__)

ALGORITHMS = {"oct": "HS256", "RSA": "RS256", "OKP": "EdDSA"}  # by a key's `kty`, RFC 7518 and 8037
SECRET_LEAST = 32  # bytes: RFC 7518, 3.2 wants as many as the hash has
RSA_LEAST = 2048  # bits: RFC 7518, 3.3
FILE_MOST = 1 << 20  # bytes of a file of keys
KEYS_MOST = 100
FAR = 10**11  # Unix s, some 3,000 years on
ID_MOST = 64  # characters of a `jti` or `sub`


@dataclass(frozen=True, slots=True)
class Key:
    """A key, and the one algorithm it is for. `kid` is empty for one without a name."""

    kid: str
    algorithm: str
    key: Any


class Signed:
    """Check signed tokens against a secret and a file of keys (a JWKS), read again as it changes.

    `leeway` is seconds that clocks may differ.
    """

    def __init__(
        self,
        *,
        secret: str = "",
        keys_file: Path | None = None,
        audience: str = "",
        issuer: str = "",
        leeway: float = 0.0,
        tenant_claim: str = "tenant",
    ) -> None:
        self._secret = [Key("", "HS256", secret.encode())] if secret else []
        self._file = keys_file
        self._seen: tuple[int, ...] = ()  # what the file was when it was read
        self._keys: list[Key] = []
        self._expected: dict[str, Any] = {
            "audience": audience or None,
            "issuer": issuer or None,
            "leeway": leeway,
        }
        self._leeway = leeway
        self._tenant_claim = tenant_claim
        if keys_file is not None:
            try:
                self._seen, self._keys = _state(keys_file), _read(keys_file)
            except (OSError, ValueError) as error:
                raise StateDirError(
                    f"jwt.keys_file: {keys_file} cannot be used: {_words(error)}; name a JWKS file",
                    field="jwt.keys_file",
                ) from error

    def __repr__(self) -> str:
        keys = ", ".join(f"{key.kid or '-'} {key.algorithm}" for key in self._all())
        return f"<Signed: {keys or 'no keys'}>"

    def __call__(self, token: str) -> Principal:
        """Return who a token speaks for. Raises Unauthorized, which says what is wrong with it."""
        claims = self._claims(token)
        tenant, scope = claims.get(self._tenant_claim), claims.get("scope", "")
        session, token_id = claims.get("session"), claims.get("jti")
        if not isinstance(tenant, str) or not is_tenant(tenant):
            raise Unauthorized(f"the signed token names no tenant: its claim {self._tenant_claim}")
        if not isinstance(scope, str):
            raise Unauthorized("the signed token's claim scope is no text with spaces between")
        if session is not None:
            try:
                check_session_name(session if isinstance(session, str) else "")
            except BadSessionName:
                raise Unauthorized(
                    "the signed token's claim session is no session's name"
                ) from None
        scopes = SCOPES & frozenset(scope.split())
        if session is not None and ADMIN in scopes:
            raise Unauthorized("a signed token for one session cannot have the scope admin")
        expires = min(int(claims["exp"]), FAR) + self._leeway  # Python's integers have no end
        named = (token_id, claims.get("sub"), _digest(token))  # for the audit: whose deed it was
        name = next(one for one in named if isinstance(one, str) and one and one.isprintable())
        return Principal(tenant, scopes, session, expires, f"jwt:{name[:ID_MOST]}")

    def _claims(self, token: str) -> Mapping[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            if "crit" in header:  # RFC 7515, 4.1.11: what is critical and not understood is refused
                raise Unauthorized("the signed token has a critical header that is not known here")
            key = self._key(header)
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                options={"require": ["exp"]},
                **self._expected,
            )
        except jwt.InvalidTokenError as error:
            raise Unauthorized(f"the signed token is not valid: {_words(error)}") from None
        except Unauthorized:
            raise
        except Exception as error:  # a stranger's bytes: whatever they are, they open nothing
            logger.debug("a signed token could not be read", exc_info=True)
            raise Unauthorized("the signed token cannot be read") from error
        return claims

    def _key(self, header: Mapping[str, Any]) -> Key:
        """Choose the key that the header means: by `kid`, or the only one for its algorithm."""
        self._look()
        kid, algorithm = header.get("kid"), header.get("alg")
        fit = [key for key in self._all() if key.algorithm == algorithm]
        if kid is not None:
            named = [key for key in fit if key.kid == kid]
            # A secret has no name of its own: it serves whatever its tokens are said to be under.
            fit = named or [key for key in fit if not key.kid]
        if len(fit) != 1:
            raise Unauthorized("the signed token is by no key that is known here")
        return fit[0]

    def _all(self) -> list[Key]:
        return [*self._keys, *self._secret]

    def _look(self) -> None:
        """Read the file again if it has changed; one that cannot be read changes nothing."""
        if self._file is None:
            return
        try:
            state = _state(self._file)
            if state == self._seen:
                return
            self._seen = state  # also if it cannot be read: it is told once
            self._keys = _read(self._file)
            logger.info("jwt: %d keys read from %s", len(self._keys), self._file)
        except (OSError, ValueError) as error:
            logger.warning("jwt: %s is left as it was read: %s", self._file, _words(error))


def checker(settings: Any) -> Callable[[str], Principal] | None:
    """Return what checks signed tokens by the settings' `[jwt]`, or None without any key."""
    if not settings.secret and not settings.keys_file:
        return None
    return Signed(
        secret=settings.secret,
        keys_file=Path(settings.keys_file).expanduser() if settings.keys_file else None,
        audience=settings.audience,
        issuer=settings.issuer,
        leeway=settings.leeway,
        tenant_claim=settings.tenant_claim,
    )


def _state(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: Path) -> list[Key]:
    """Return the keys of a JWKS (RFC 7517). Raises ValueError, OSError; odd keys are left out."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # it may be a pipe
    with open(descriptor, "rb") as file:
        text = file.read(FILE_MOST + 1)
    if len(text) > FILE_MOST:
        raise ValueError(f"more than {FILE_MOST} bytes")
    told = json.loads(text)
    rows = told.get("keys") if isinstance(told, dict) else None
    if not isinstance(rows, list) or len(rows) > KEYS_MOST:
        raise ValueError(f"a JWKS has `keys`, a list of at most {KEYS_MOST}")
    keys: list[Key] = []
    for at, row in enumerate(rows):
        try:
            keys.append(_key_of(row))
        except Exception as error:  # whatever a library makes of a stranger's key
            logger.warning("jwt: key %d of %s is left out: %s", at, path, _words(error))
    return keys


def _key_of(row: Any) -> Key:
    algorithm = ALGORITHMS.get(row.get("kty"))
    if algorithm is None or row.get("alg", algorithm) != algorithm:
        raise ValueError("expected kty oct, RSA or OKP, for HS256, RS256 or EdDSA")
    if row.get("use", "sig") != "sig":
        raise ValueError("its use is not sig")
    key = jwt.PyJWK(row, algorithm).key
    # A file may hold private keys by mistake: what we keep can check, and not sign.
    if isinstance(key, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        key = key.public_key()
    if algorithm == "HS256" and len(key) < SECRET_LEAST:
        raise ValueError(f"a secret of less than {SECRET_LEAST} bytes")
    if algorithm == "RS256" and (not isinstance(key, rsa.RSAPublicKey) or key.key_size < RSA_LEAST):
        raise ValueError(f"RSA of less than {RSA_LEAST} bits")
    if algorithm == "EdDSA" and not isinstance(key, ed25519.Ed25519PublicKey):
        raise ValueError("a curve other than Ed25519")
    kid = row.get("kid", "")
    if not isinstance(kid, str):
        raise ValueError("its kid is no text")
    return Key(kid, algorithm, key)


def _words(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:200]


def _digest(token: str) -> str:
    """Return a name for a token that has none; nobody can guess the token from it."""
    return f"sha256-{hashlib.sha256(token.encode(errors='replace')).hexdigest()[:16]}"
