"""What an error looks like from outside: one row each, and nothing of ours but its words."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import responses

import pytest

from broker import errors
from broker.client.errors import (
    BY_CODE,
    BadRequest,
    QuotaExceeded,
    SessionElsewhere,
    WorkspaceFull,
    from_fault,
)
from broker.web.door import CODES, INTERNAL, UNFOUND, code_of, described

FAULTS = (
    "bad_frame bad_message too_large unknown_session unauthorized forbidden quota busy queue_full "
    "capacity draining store_unavailable not_running internal unknown_token unknown_node bad_path "
    "no_such_file file_exists file_conflict no_workspace"
)
CLOSES = (1001, 1011, 1013, 4400, 4401, 4404, 4406, 4408, 4409)


def leaves(kind: type[errors.BrokerError]) -> Iterator[type[errors.BrokerError]]:
    below = kind.__subclasses__()
    if not below:
        yield kind
    for one in below:
        yield from leaves(one)


LEAVES = [*leaves(errors.BrokerError)]


def made(kind: type[errors.BrokerError]) -> errors.BrokerError:
    if kind is errors.SessionElsewhere:
        return errors.SessionElsewhere("words", node="n2", url="http://n2")
    return kind("words")


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_each_error_has_a_row_of_known_codes(kind: type[errors.BrokerError]) -> None:
    code = CODES[kind]
    assert code.http in responses
    assert code.close in CLOSES
    assert code.wire in FAULTS.split()


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_whose_fault_it_is_shows_in_the_status(kind: type[errors.BrokerError]) -> None:
    status = code_of(made(kind)).http
    if issubclass(kind, errors.ClientError):
        # 507: the one status there is for room that whoever asks has used up.
        assert 400 <= status < 500 or kind is errors.WorkspaceFull
    elif issubclass(kind, errors.CapacityError):
        assert status in (421, 429, 503)
        assert described(made(kind))["retry_after"] > 0
    else:
        assert status >= 500 or kind is errors.SessionLost


def test_no_row_stands_for_what_is_not_an_error_any_more() -> None:
    assert set(CODES) <= set(LEAVES)


@pytest.mark.parametrize(
    ("error", "body"),
    [
        (errors.BadMessage("words", field="code"), {"field": "code"}),
        (errors.UnknownSession("words"), {}),
        (errors.QueueFull("words", retry_after=2.5), {"retry_after": 2.5}),
        (errors.ProfileBroken("words"), {"retry_after": 1.0, "field": "profile"}),
        (
            errors.SessionElsewhere("words", node="n2", url="http://n2"),
            {"retry_after": 1.0, "node": "n2", "url": "http://n2"},
        ),
    ],
)
def test_an_error_is_told_with_its_field_and_when_to_try_again(
    error: errors.BrokerError, body: dict[str, object]
) -> None:
    assert described(error) == {"code": code_of(error).wire, "message": "words", **body}


@pytest.mark.parametrize(
    ("url", "step"), [("http://n2", "words: use it at http://n2"), ("", "words")]
)
def test_a_client_of_the_wrong_node_learns_the_right_one(url: str, step: str) -> None:
    told = from_fault(described(errors.SessionElsewhere("words", node="n2", url=url)))
    assert type(told) is SessionElsewhere
    assert (told.code, told.message, told.node, told.url) == ("busy", step, "n2", url)
    assert str(told) == step


def test_a_full_workspace_is_told_from_a_tenants_quota() -> None:
    full = errors.WorkspaceFull("words", field="workspace")
    assert type(from_fault(described(full), 507)) is WorkspaceFull
    spent = errors.QuotaExceeded("words", field="cpu_hour")
    assert type(from_fault(described(spent), 429)) is QuotaExceeded


@pytest.mark.parametrize("error", [ValueError("secret"), KeyError("secret"), OSError(13, "secret")])
def test_what_is_our_own_fault_is_told_without_its_text(error: Exception) -> None:
    assert code_of(error) is INTERNAL
    told = described(error)
    assert told["code"] == "internal"
    assert "secret" not in str(told)


def test_the_client_knows_each_code_by_its_own_name() -> None:
    """By the status alone, what an older broker has no route for would be no such session."""
    codes = {code.wire for code in CODES.values()} | {INTERNAL.wire, *UNFOUND.values()}
    assert codes - BY_CODE.keys() == set()
    told = {"code": "unknown_route", "message": "no such route"}
    assert type(from_fault(told, 404)) is BadRequest
