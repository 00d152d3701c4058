"""Signed tokens: each key for its one algorithm, each claim kept to, nothing else let in."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from broker.config import load
from broker.errors import StateDirError, Unauthorized
from broker.principal import RUN, WATCH, Principal
from broker.signed import Signed, checker
from broker.tokens import Tokens

SECRET = "a-secret-of-at-least-32-characters!"
RSA = rsa.generate_private_key(65537, 2048)
SMALL = rsa.generate_private_key(65537, 1024)  # noqa: S505  # to be refused
ED = ed25519.Ed25519PrivateKey.generate()
OTHER = ed25519.Ed25519PrivateKey.generate()


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk(key: Any, **fields: Any) -> dict[str, Any]:
    if isinstance(key, bytes):
        return {"kty": "oct", "k": b64(key), **fields}
    algorithm = OKPAlgorithm if isinstance(key, ed25519.Ed25519PrivateKey) else RSAAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), **fields}


def claims(**changes: Any) -> dict[str, Any]:
    told = {"tenant": "acme", "scope": "run watch", "exp": int(time.time()) + 60, **changes}
    return {name: value for name, value in told.items() if value is not None}


def token(key: Any = SECRET, algorithm: str = "HS256", kid: str = "", **changes: Any) -> str:
    headers = {"kid": kid} if kid else {}
    return jwt.encode(claims(**changes), key, algorithm, headers=headers)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    rows = [jwk(RSA, kid="r"), jwk(ED, kid="e"), jwk(b"s" * 32, kid="s"), jwk(OTHER, kid="o")]
    path.write_text(json.dumps({"keys": rows}))
    return path


def test_a_token_by_the_secret_speaks_for_its_tenant() -> None:
    ends = int(time.time()) + 60
    who = Signed(secret=SECRET)(token(session="s1", jti="t-1", exp=ends))
    assert who == Principal("acme", frozenset({RUN, WATCH}), "s1", float(ends), "jwt:t-1")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"jti": "t-1", "sub": "ann"}, "jwt:t-1"),
        ({"sub": "ann"}, "jwt:ann"),
        ({"jti": "a\nb", "sub": "ann"}, "jwt:ann"),
        ({"jti": ""}, r"jwt:sha256-[0-9a-f]{16}"),
        ({"jti": "x" * 80}, f"jwt:{'x' * 64}"),
    ],
)
def test_every_signed_token_has_a_name_for_the_audit(changes: dict[str, Any], name: str) -> None:
    assert re.fullmatch(name, Signed(secret=SECRET)(token(**changes)).token_id)


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"),
    [(RSA, "RS256", "r"), (RSA, "RS256", ""), (ED, "EdDSA", "e"), (b"s" * 32, "HS256", "s")],
)
def test_each_kind_of_key_is_taken_by_its_name(
    keys: Path, key: Any, algorithm: str, kid: str
) -> None:
    assert Signed(keys_file=keys)(token(key, algorithm, kid)).tenant == "acme"


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"),
    [
        (ED, "EdDSA", ""),  # there are two of that kind
        (ED, "EdDSA", "o"),  # another's name
        (ED, "EdDSA", "x"),
        (RSA, "RS256", "e"),
        (RSA, "RS384", "r"),
        (RSA, "PS256", "r"),
        (b"s" * 32, "HS256", "r"),
        (b"t" * 32, "HS256", "s"),
        (b"s" * 64, "HS512", "s"),
    ],
)
def test_a_key_is_good_for_its_own_name_and_algorithm_alone(
    keys: Path, key: Any, algorithm: str, kid: str
) -> None:
    with pytest.raises(Unauthorized):
        Signed(keys_file=keys)(token(key, algorithm, kid))


@pytest.mark.parametrize("kid", ["r", "", "e"])
def test_a_public_key_is_no_secret(keys: Path, kid: str) -> None:
    public = RSA.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    forged = sign_anyhow({"alg": "HS256", "typ": "JWT", "kid": kid}, public)
    for signed in (Signed(keys_file=keys), Signed(keys_file=keys, secret=SECRET)):
        with pytest.raises(Unauthorized):
            signed(forged)


def sign_anyhow(header: dict[str, Any], key: bytes) -> str:
    """Sign with HMAC, whatever the library thinks of that key."""
    import hashlib
    import hmac

    body = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims()).encode())}"
    return f"{body}.{b64(hmac.new(key, body.encode(), hashlib.sha256).digest())}"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, 1, ["HS256"]])
def test_no_algorithm_is_no_algorithm(alg: Any) -> None:
    head, body = ({"alg": alg, "typ": "JWT"}, claims())
    parts = [b64(json.dumps(part).encode()) for part in (head, body)]
    for signature in ("", b64(b"x" * 32)):
        with pytest.raises(Unauthorized):
            Signed(secret=SECRET)(".".join([*parts, signature]))


def test_what_is_critical_and_not_known_is_refused() -> None:
    signed = Signed(secret=SECRET)
    assert signed(sign_anyhow({"alg": "HS256", "more": 1}, SECRET.encode()))
    with pytest.raises(Unauthorized, match="critical"):
        signed(sign_anyhow({"alg": "HS256", "crit": ["more"], "more": 1}, SECRET.encode()))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"exp": None}, "exp"),
        ({"exp": 1}, "expired"),
        ({"exp": "soon"}, "exp"),
        ({"nbf": time.time() + 9999}, "not yet valid"),
        ({"tenant": None}, "names no tenant"),
        ({"tenant": "a/b"}, "names no tenant"),
        ({"tenant": 7}, "names no tenant"),
        ({"scope": ["run"]}, "scope"),
        ({"session": "a b"}, "session"),
        ({"session": 7}, "session"),
        ({"session": "s", "scope": "run admin"}, "one session cannot have the scope admin"),
        ({"aud": "elsewhere"}, "udience"),
    ],
)
def test_a_claim_that_does_not_fit_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Unauthorized, match=words):
        Signed(secret=SECRET)(token(**changes))


def test_audience_and_issuer_are_kept_to() -> None:
    signed = Signed(secret=SECRET, audience="broker", issuer="https://id")
    assert signed(token(aud=["x", "broker"], iss="https://id")).tenant == "acme"
    for changes in (
        {},
        {"aud": "broker"},
        {"iss": "https://id"},
        {"aud": "b", "iss": "https://id"},
    ):
        with pytest.raises(Unauthorized):
            signed(token(**changes))


def test_clocks_may_differ_by_the_leeway() -> None:
    late = token(exp=int(time.time()) - 5)
    assert (Signed(secret=SECRET, leeway=30)(late).expires or 0) > time.time()
    with pytest.raises(Unauthorized, match="expired"):
        Signed(secret=SECRET)(late)


@pytest.mark.parametrize("exp", [10**400, 1e300, float("inf"), float("nan"), "1e9", True])
def test_an_end_that_is_no_time_is_far_away_or_refused(exp: Any) -> None:
    text = token(exp=exp)
    try:
        who = Signed(secret=SECRET)(text)
    except Unauthorized:
        return
    assert time.time() < (who.expires or 0) < 1e12


def test_scopes_of_others_are_let_be() -> None:
    assert Signed(secret=SECRET)(token(scope="openid run  email")).scopes == {RUN}
    assert Signed(secret=SECRET)(token(scope=None)).scopes == frozenset()


def test_the_tenant_may_be_another_claim() -> None:
    assert Signed(secret=SECRET, tenant_claim="sub")(token(tenant=None, sub="bob")).tenant == "bob"


def test_the_file_is_read_again_when_it_has_changed(keys: Path) -> None:
    signed, fresh = Signed(keys_file=keys), ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(Unauthorized):
        signed(token(fresh, "EdDSA", "new"))
    draft = keys.with_name("draft")
    draft.write_text(json.dumps({"keys": [jwk(fresh, kid="new")]}))
    draft.replace(keys)
    assert signed(token(fresh, "EdDSA", "new")).tenant == "acme"
    with pytest.raises(Unauthorized):
        signed(token(ED, "EdDSA", "e"))


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"keys": 1}', "x" * (2 << 20)])
def test_a_file_that_becomes_unreadable_takes_no_key_away(keys: Path, text: str | None) -> None:
    signed = Signed(keys_file=keys)
    keys.unlink()
    if text is not None:
        keys.write_text(text)
        os.utime(keys, ns=(1, 1))
    assert signed(token(ED, "EdDSA", "e")).tenant == "acme"


@pytest.mark.parametrize("text", [None, "", "[]", '{"keys": {}}'])
def test_a_file_that_cannot_be_used_is_named_at_the_start(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "k").write_text(text)
    with pytest.raises(StateDirError, match=r"jwt\.keys_file: .* name a JWKS file"):
        Signed(keys_file=tmp_path / "k")


@pytest.mark.parametrize(
    "row",
    [
        jwk(SMALL),
        jwk(b"short"),
        jwk(RSA, alg="HS256"),
        jwk(RSA, alg="RS512"),
        jwk(RSA, use="enc"),
        jwk(ED, kid=7),
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "X25519", "x": b64(b"x" * 32)},
        {"kty": "RSA", "n": "!", "e": "AQAB"},
        {"kty": "oct"},
        {},
        [],
        None,
        7,
    ],
)
def test_a_key_that_is_weak_or_odd_is_left_out_and_the_rest_serve(tmp_path: Path, row: Any) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [row, jwk(OTHER, kid="o")]}))
    signed = Signed(keys_file=path)
    assert signed(token(OTHER, "EdDSA", "o")).tenant == "acme"
    assert len(signed._keys) == 1


def test_a_private_key_in_the_file_is_kept_as_the_public_one(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [json.loads(OKPAlgorithm.to_jwk(ED))]}))
    signed = Signed(keys_file=path)
    assert isinstance(signed._keys[0].key, ed25519.Ed25519PublicKey)
    assert signed(token(ED, "EdDSA")).tenant == "acme"


def test_settings_without_a_key_take_no_signed_token() -> None:
    assert checker(load().config.jwt) is None
    config = load(f'[jwt]\nsecret = "{SECRET}"\ntenant_claim = "sub"').config
    signed = checker(config.jwt)
    assert signed is not None
    assert signed(token(tenant=None, sub="bob")).tenant == "bob"
    assert SECRET not in repr(config) + repr(signed)


async def test_a_signed_token_comes_in_by_the_same_door() -> None:
    tokens = Tokens({}, signed=Signed(secret=SECRET))
    assert (await tokens.check(token())).tenant == "acme"
    with pytest.raises(Unauthorized):
        await tokens.check(token("another-secret-of-32-characters!!!"))


SIGNED = Signed(secret=SECRET)
PARTS = st.binary(max_size=60).map(b64)
JSONS = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "crit", "b64", "exp", "tenant", "scope", "jku", "jwk"]),
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=9)
    | st.just("HS256")
    | st.lists(st.text(max_size=3), max_size=2)
    | st.dictionaries(st.text(max_size=2), st.text(max_size=2), max_size=1),
).map(lambda value: b64(json.dumps(value).encode()))


@given(st.text(max_size=60) | st.lists(PARTS | JSONS, min_size=2, max_size=5).map(".".join))
@settings(max_examples=500)
def test_anything_that_was_not_signed_is_unauthorized(text: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        SIGNED(text)
    assert len(caught.value.message) < 300


@given(JSONS, st.sampled_from([{}, {"kid": "x"}, {"typ": 1}, {"b64": False}]))
@settings(max_examples=300)
def test_anything_that_was_signed_is_a_principal_or_unauthorized(
    payload: str, more: dict[str, Any]
) -> None:
    import hashlib
    import hmac

    body = f"{b64(json.dumps({'alg': 'HS256', **more}).encode())}.{payload}"
    text = f"{body}.{b64(hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).digest())}"
    try:
        SIGNED(text)
    except Unauthorized:
        return
