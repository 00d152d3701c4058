"""The routes of the node: its tokens, its pools, its health, and what describes it."""

from __future__ import annotations

from typing import Any

from broker import answers, errors
from broker.grants import TokenBody
from broker.principal import Deed
from broker.web import nodes, openapi, operators, tokens
from broker.web.route import JSON, TEXT, Answer, Operation, Parameter, Route, answer
from broker.web.terms import BODY, EVERYBODY, Flag

ROUTES: list[Route] = [
    Route(
        "/v1/tokens",
        tokens.AllTokens,
        {
            "get": Operation(
                "List the tokens of a tenant; for the operator, all.",
                answer("Tokens, without what opens anything.", answers.TokenRows),
                scope=Deed.ADMINISTER,
                errors=(errors.StoreUnavailable,),
            ),
            "post": Operation(
                "Make a token.",
                {201: Answer("The token, this once.", {JSON: answers.MadeToken})},
                scope=Deed.ADMINISTER,
                audited="token_created",
                body={JSON: TokenBody},
                errors=(*BODY, errors.StoreUnavailable, errors.QuotaExceeded),
            ),
        },
    ),
    Route(
        "/v1/tokens/{token_id}",
        tokens.OneToken,
        {
            "delete": Operation(
                "Revoke a token, and close what it opened.",
                answer("The token that was.", answers.RevokedToken),
                scope=Deed.ADMINISTER,
                audited="token_revoked",
                errors=(errors.StoreUnavailable, errors.UnknownToken),
            )
        },
    ),
    Route(
        "/v1/nodes",
        operators.Nodes,
        {
            "get": Operation(
                "List the live nodes.",
                answer("Nodes by name.", answers.NodeRows),
                scope=Deed.OPERATE,
                errors=(errors.StoreUnavailable,),
            )
        },
    ),
    nodes.ROUTE,
    Route(
        "/v1/pools",
        operators.Pools,
        {
            "get": Operation(
                "List this node's pools, their kernels, and its own processes.",
                answer("The pools.", answers.PoolRows),
                scope=Deed.OPERATE,
                query=(
                    Parameter("memory", "Whether to measure each process.", Flag),
                    Parameter("kernels", "Ids with commas between: these alone, 100 at most."),
                ),
            )
        },
    ),
    Route(
        "/healthz",
        operators.Health,
        {
            method: Operation(
                "Ask whether the process answers.",
                answer("It does.", answers.Alive),
                scope=EVERYBODY,
            )
            for method in ("get", "head")
        },
    ),
    Route(
        "/readyz",
        operators.Ready,
        {
            method: Operation(
                "Ask whether the node should get new sessions.",
                {
                    200: Answer("It should.", {JSON: answers.Readiness}),
                    503: Answer("It should not; the reasons.", {JSON: answers.Readiness}),
                },
                scope=EVERYBODY,
            )
            for method in ("get", "head")
        },
    ),
    Route(
        "/metrics",
        operators.MetricsPage,
        {
            "get": Operation(
                "Read the metrics, in Prometheus' text format.",
                {200: Answer("The metrics.", {TEXT: None})},
                scope=Deed.OPERATE,
            )
        },
    ),
    Route(
        "/openapi.json",
        openapi.Description,
        {
            "get": Operation(
                "Read this description.",
                answer("An OpenAPI 3.1 document.", dict[str, Any]),
                scope=EVERYBODY,
            )
        },
    ),
    Route(
        "/schema.json",
        openapi.Messages,
        {
            "get": Operation(
                "Read the schema of every message of the WebSocket.",
                answer("A JSON Schema of the dialect 2020-12.", dict[str, Any]),
                scope=EVERYBODY,
            )
        },
    ),
]
