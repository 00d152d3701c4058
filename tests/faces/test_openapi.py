"""Every route, tried as `/openapi.json` describes it: with what fits it, and what does not."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_schema_conformance,
    status_code_conformance,
)

from broker.bounds import ASKED
from broker.requests import REQUESTS
from broker.web.openapi import document
from broker.web.routes import ROUTES
from tests.system.conftest import RunningBroker, broker_process, short_dir

__all__ = ["short_dir"]

CHECKS = [
    negative_data_rejection,
    positive_data_acceptance,
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
SCHEMA = schemathesis.openapi.from_dict(document(ROUTES))
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]
POSITIVE = schemathesis.GenerationMode.POSITIVE
# Fields with rules that a schema does not say; without them, more is tried than these rules.
UNSAID = ("profile", "inputs", "env", "cwd", "limits")
KNOWN = "known"  # the one session that is there


@pytest.fixture(scope="module")
def broker(short_dir: Callable[[], Path]) -> Iterator[RunningBroker]:
    """A broker of its own: whoever tries everything makes sessions, and ends them."""
    with broker_process(short_dir(), "--warm", "2") as running:
        yield running


def cases(operation: schemathesis.APIOperation) -> st.SearchStrategy[schemathesis.Case]:
    """Give what the operation takes and, where there is anything to get wrong, what it does not."""
    modes = [POSITIVE]
    if any(operation.iter_parameters()) or operation.body:
        modes.append(schemathesis.GenerationMode.NEGATIVE)
    return st.one_of([operation.as_strategy(mode) for mode in modes])


def make_likely(case: schemathesis.Case, known: bool) -> None:
    """Put in what this broker alone knows, and leave out what only it could refuse."""
    if "session" in case.path_parameters and (known or "execute" in case.path):
        case.path_parameters["session"] = KNOWN
    for name in ASKED:
        case.query.pop(name, None)
    if case.query.get("sort", "name") != "name":
        case.query.pop("after", None)  # the one goes without the other
    if isinstance(case.body, dict):
        for name in UNSAID:
            case.body.pop(name, None)


@pytest.mark.row("GET /openapi.json", "GET /schema.json")
def test_the_broker_serves_the_description_that_is_tried_here(broker: RunningBroker) -> None:
    with urllib.request.urlopen(f"{broker.url}/openapi.json") as answer:  # noqa: S310
        assert json.loads(answer.read()) == document(ROUTES)
    with urllib.request.urlopen(f"{broker.url}/schema.json") as answer:  # noqa: S310
        served = json.loads(answer.read())
    assert {f"request.{name}" for name in REQUESTS} <= set(served["$defs"])


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.label)
def test_an_operation_does_what_its_description_says(
    broker: RunningBroker, operation: schemathesis.APIOperation
) -> None:
    seen = set()
    # Nothing that is asked over plain HTTP becomes a WebSocket; and which values of a body go
    # together, its schema does not say.
    is_said = not (operation.body or operation.path.endswith("/ws"))
    left_out = [] if is_said else [positive_data_acceptance]
    checks = [one for one in CHECKS if one not in left_out]

    @settings(
        max_examples=25,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases(operation), known=st.booleans())
    def each(case: schemathesis.Case, known: bool) -> None:
        if case.meta.generation.mode is POSITIVE:
            make_likely(case, known)
        headers = {"Authorization": f"Bearer {broker.token}"}
        answer = case.call_and_validate(base_url=broker.url, headers=headers, checks=checks)
        seen.add(answer.status_code)

    each()
    print(operation.label, sorted(seen))  # noqa: T201
