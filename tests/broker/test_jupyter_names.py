"""What a session is to Jupyter's clients: its id, its model, its titles; a token in a path."""

from __future__ import annotations

import uuid
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from broker.errors import BadFrame, BadMessage, TooLarge
from broker.faults import Bounds
from broker.jupyter import names
from broker.principal import Principal
from broker.web.jupyter import models
from broker.web.jupyter.bodies import KernelBody, NotebookBody, kernel_body, notebook_body
from broker.web.jupyter.capability import parted, take
from broker.web.jupyter.titles import Notebook, Table, Titles

ID = "6d4b8c1e-0f2a-4c3d-9e5f-0123456789ab"
BOUNDS = Bounds()

# Ids


@given(st.uuids().map(str))
def test_a_session_made_for_an_id_has_that_id(id_: str) -> None:
    assert names.is_unnamed(names.name_of(id_))
    assert names.kernel_id("acme", names.name_of(id_)) == id_


@pytest.mark.parametrize(
    "name",
    [
        *("chat-42", ID, f"kernel-{ID}x", f"kernel-{ID.upper()}", f"kernel-{ID}\n", "kernel-"),
        *(f"kernel-{ID.replace('-', '')}", f"Kernel-{ID}", f"kernel-kernel-{ID}"),
    ],
)
def test_any_other_name_is_somebodys_own_with_an_id_derived_from_it(name: str) -> None:
    assert not names.is_unnamed(name)
    id_ = names.kernel_id("acme", name)
    assert names.canonical(id_) == id_ != ID
    assert names.kernel_id("acme", name) == id_ != names.kernel_id("other", name)


def test_the_id_of_a_name_never_changes() -> None:
    # Clients keep it in documents of theirs: it is part of the protocol.
    assert names.kernel_id("default", "chat-42") == "816ac204-cf52-5acf-9785-369c61e2d5d9"


@pytest.mark.parametrize(
    ("text", "found"),
    [(ID, ID), (ID.upper(), ID), ("", None), (f"{ID}\n", None), (f"{{{ID}}}", None), ("é", None)],
)
def test_an_id_is_a_uuid_in_one_form(text: str, found: str | None) -> None:
    assert names.canonical(text) == found


def test_each_further_notebook_of_a_kernel_has_an_id_of_its_own() -> None:
    ids = {names.notebook_id(ID, path) for path in ("a.ipynb", "b.ipynb")} | {ID}
    assert len(ids) == 3
    assert all(uuid.UUID(one) for one in ids)


# A token in a path


@pytest.mark.parametrize(
    ("path", "at_root", "found"),
    [
        ("/jupyter/api", False, ("", None, "/jupyter/api")),
        ("/jupyter/t/abc/api", False, ("/jupyter", "abc", "/api")),
        ("/jupyter/t/a%2Fb/api/kernels", False, ("/jupyter", "a/b", "/api/kernels")),
        ("/jupyter/t/abc", False, ("/jupyter", "abc", "")),
        ("/jupyter/t/abc/v1/sessions", False, ("/jupyter", "abc", "/v1/sessions")),
        ("/jupyter/t//api", False, ("/jupyter", "", "/api")),
        ("/jupyter/t/a%0Ab/api", False, ("/jupyter", "", "/api")),
        ("/jupyter/t/%ff%fe/api", False, ("/jupyter", "", "/api")),
        ("/t/abc/api", True, ("", "abc", "/api")),
        ("/t/abc/kernelspecs/python3/logo-svg.svg", True, None),
        ("/t/abc", True, ("", "abc", "")),
        ("/t/abc/", True, ("", "abc", "/")),
        ("/t/abc/tree", True, ("", "abc", "/tree")),
        ("/t/abc/api", False, ("", None, "/t/***/api")),
        ("/t/abc/apiary", True, ("", None, "/t/***/apiary")),
        ("/t/abc/v1/sessions", True, ("", None, "/t/***/v1/sessions")),
        ("http://h/jupyter/t/abc/api", True, ("", None, "http://h/jupyter/t/***/api")),
        ("/x/t/abc/t/def", True, ("", None, "/x/t/***/t/***")),
        ("/v1/sessions/s/files/t/abc", True, ("", None, "/v1/sessions/s/files/t/abc")),
        ("/t", True, ("", None, "/t")),
    ],
)
def test_a_path_is_parted_at_its_token(
    path: str, at_root: bool, found: tuple[str, str | None, str] | None
) -> None:
    found = found or ("", "abc", path.removeprefix("/t/abc"))
    assert parted(path, at_root=at_root) == found


def asked(uri: str, **headers: str) -> HTTPServerRequest:
    return HTTPServerRequest(
        connection=SimpleNamespace(context=None),  # type: ignore[arg-type]
        start_line=RequestStartLine("GET", uri, "HTTP/1.1"),
        headers=HTTPHeaders({"Host": "h", **headers}),
    )


@given(
    token=st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/%?#")),
    at_root=st.booleans(),
    mount=st.sampled_from(["/jupyter", "", "/other", "//jupyter"]),
    rest=st.sampled_from(["", "/", "/api/kernels", "/nothing?a=/t/b"]),
)
def test_nothing_of_a_request_has_the_token_of_its_path(
    token: str, at_root: bool, mount: str, rest: str
) -> None:
    token = f"kbt_{token}"
    request = asked(f"{mount}/t/{token}{rest}", Authorization="token of-the-header")
    take(request, at_root=at_root)
    assert token not in f"{request.path} {request.uri} {request.query} {request!r}"
    header = request.headers["Authorization"]
    assert header in (f"Bearer {token}", "token of-the-header")
    assert (header == f"Bearer {token}") == (
        mount == "/jupyter" or (not mount and at_root and "nothing" not in rest)
    )


def test_a_request_without_a_token_in_its_path_stays_as_it_is() -> None:
    request = asked("/jupyter/api/kernels?token=abc", Authorization="token abc")
    take(request, at_root=True)
    assert (request.path, request.uri) == ("/jupyter/api/kernels", "/jupyter/api/kernels?token=abc")
    assert request.headers["Authorization"] == "token abc"


# Models


def session(**fields: Any) -> Any:
    plain: dict[str, Any] = {
        "name": "chat-42",
        "kernel": object(),
        "occupied": False,
        "lost_reason": "",
        "created": 0.0,
        "work": SimpleNamespace(last_used=1.5),
        "audience": SimpleNamespace(clients={1, 2}),
    }
    return SimpleNamespace(**plain | fields)


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({}, "idle"),
        ({"occupied": True}, "busy"),
        ({"lost_reason": "exit 3"}, "idle"),  # of the kernel before this one
        ({"kernel": None}, "starting"),
        ({"kernel": None, "lost_reason": "restart"}, "restarting"),
        ({"kernel": None, "lost_reason": "exit 3"}, "dead"),
    ],
)
def test_each_state_has_jupyters_word(fields: dict[str, Any], state: str) -> None:
    model = models.kernel_model(session(**fields), ID, "python3")
    assert model["execution_state"] == state
    assert model.get("reason") == ("exit 3" if state == "dead" else None)


def test_a_kernel_is_written_as_jupyter_writes_it() -> None:
    assert models.kernel_model(session(), ID, "python3") == {
        "id": ID,
        "name": "python3",
        "last_activity": "1970-01-01T00:00:01.500000Z",
        "execution_state": "idle",
        "connections": 2,
    }


def test_a_session_is_the_notebook_of_its_name() -> None:
    own = models.own_notebook(session(), ID)
    assert own == Notebook(ID, ID, "chat-42.ipynb", "chat-42.ipynb", "notebook")
    told = models.notebook_model(own, {"id": ID})
    assert told["notebook"] == {"path": "chat-42.ipynb", "name": "chat-42.ipynb"}
    console = models.notebook_model(Notebook(ID, ID, "p", "n", "console"), {"id": ID})
    assert "notebook" not in console


@pytest.mark.parametrize(
    ("profiles", "default", "languages", "found"),
    [
        (
            ["data", "python"],
            "python",
            {},
            {
                "python3": ("Python 3", "python"),
                "data": ("Python (data)", "python"),
                "python": ("Python (python)", "python"),
            },
        ),
        (
            ["bash"],
            "bash",
            {"bash": ("bash", "bash")},
            {"python3": ("Bash", "bash"), "bash": ("Bash (bash)", "bash")},
        ),
        (["python3"], "python3", {}, {"python3": ("Python (python3)", "python")}),
    ],
)
def test_the_default_profile_is_python3_too(
    profiles: list[str],
    default: str,
    languages: dict[str, tuple[str, str]],
    found: dict[str, tuple[str, str]],
) -> None:
    assert models.profile_specs(profiles, default, languages) == found


def test_who_may_what_is_told_of_what_is_known() -> None:
    asked_about = {"kernels": ["read", "write", "execute", "fly", 5], "terminals": ["read"], "x": 1}
    run, watch = Principal(scopes=frozenset({"run"})), Principal(scopes=frozenset({"watch"}))
    nothing: dict[str, list[str]] = {"terminals": [], "x": []}
    assert models.permissions(run, asked_about) == {
        "kernels": ["read", "write", "execute"],
        **nothing,
    }
    assert models.permissions(watch, asked_about) == {"kernels": ["read"], **nothing}


# Titles


def test_a_shelf_keeps_the_newest_and_each_tenant_has_its_own() -> None:
    titles = Titles(most=2, tenants=2)
    for number in range(3):
        titles.of("acme").call(f"k{number}", f"spec{number}")
        titles.of("acme").put(Notebook(f"n{number}", "k", f"p{number}", "", "notebook"))
    shelf = titles.of("acme")
    assert [shelf.spec(f"k{number}") for number in range(3)] == [None, "spec1", "spec2"]
    assert [one.id for one in shelf.notebooks()] == ["n1", "n2"]
    shelf.put(Notebook("n1", "k", "elsewhere", "", "notebook"))
    shelf.drop("n2")
    shelf.drop("n2")
    assert [one.path for one in shelf.notebooks()] == ["elsewhere"]
    assert titles.of("other").spec("k2") is None
    titles.of("acme")
    titles.of("third")  # and the one used longest ago is forgotten
    assert titles.of("acme").spec("k2") == "spec2"
    assert titles.of("other").spec("k2") is None


def test_a_shelf_is_bounded_in_bytes_and_the_oldest_go_first() -> None:
    shelf = Titles(most_bytes=20_000).of("acme")
    for number in range(4):
        shelf.put(Notebook(f"n{number}", "k", "p" * 5000, "", "notebook"))
        shelf.call(f"k{number}", "s" * 8000)
    assert [one.id for one in shelf.notebooks()] == ["n1", "n2", "n3"]
    assert [shelf.spec(f"k{number}") is not None for number in range(4)] == [False] * 2 + [True] * 2
    for _ in range(9):  # in the place of itself, it costs no more
        shelf.put(Notebook("n3", "k", "p" * 5000, "", "notebook"))
    assert [one.id for one in shelf.notebooks()] == ["n1", "n2", "n3"]
    shelf.put(Notebook("n4", "k", "p" * 30_000, "", "notebook"))
    assert [*shelf.notebooks()] == []
    shelf.put(Notebook("n5", "k", "p", "", "notebook"))
    assert [one.id for one in shelf.notebooks()] == ["n5"]


def test_a_table_is_changed_in_no_way_that_its_bounds_do_not_see() -> None:
    table = Table[str](3, most_bytes=10, size_of=len)
    for way in ("__setitem__", "__delitem__", "__ior__", "update", "setdefault", "pop", "clear"):
        assert not hasattr(table, way), way
    for key, value in [("a", "12345"), ("b", ""), ("a", "123"), ("c", "12345678")]:
        table.put(key, value)
    assert (table.values(), len(table)) == (["12345678"], 1)
    assert [table.get(key) for key in "abc"] == [None, None, "12345678"]
    table.put("d", "12")  # what has gone counts no more
    assert len(table) == 2


def test_a_table_whose_values_have_no_size_has_a_bound_on_their_number() -> None:
    table = Table[str](2)
    for key in "abc":
        table.put(key, key * 100_000)
    table.drop("b")
    table.drop("b")
    table.put("d", "d")
    assert [len(value) for value in table.values()] == [100_000, 1]


# Bodies


@pytest.mark.parametrize(
    ("data", "session_name"),
    [
        (b"", None),
        (b" \n", None),
        (b"null", None),
        (b'{"session": "", "env": {}}', None),
        (b'{"session": "a"}', "a"),
        (b'{"env": {"KERNEL_SESSION": "b"}}', "b"),
        (b'{"session": "a", "env": {"KERNEL_SESSION": "b"}}', "a"),
        (b'{"env": null, "unknown": [{}]}', None),
    ],
)
def test_a_body_names_a_session_in_either_way(data: bytes, session_name: str | None) -> None:
    assert kernel_body(data, BOUNDS).session_name() == session_name


def test_of_an_environment_only_the_kernels_own_is_taken() -> None:
    body = kernel_body(b'{"env": {"A": "1", "KERNEL_B": "2", "KERNEL_1 ODD": "3"}}', BOUNDS)
    configure = body.configure(BOUNDS)
    assert configure is not None
    assert configure.env == {"A": "1"}
    assert kernel_body(b'{"env": {"KERNEL_B": "2"}}', BOUNDS).configure(BOUNDS) is None


def test_older_clients_have_the_path_of_a_notebook_inside() -> None:
    body = notebook_body(b'{"notebook": {"path": "a.ipynb"}, "kernel": {}}', BOUNDS)
    assert body.notebook_path() == "a.ipynb"
    assert notebook_body(b'{"notebook": {"path": 5}}', BOUNDS).notebook_path() is None


@given(st.binary(max_size=300))
def test_any_bytes_are_a_body_or_refused_in_words(data: bytes) -> None:
    for read in (kernel_body, notebook_body):
        with suppress(BadFrame, BadMessage, TooLarge):
            assert isinstance(read(data, BOUNDS), KernelBody | NotebookBody)
