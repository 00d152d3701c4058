"""What is said of a file that is sent: nothing that a browser would act upon, and true ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.web.delivery import UNKNOWN, content_type, disposition, etag, requested_range


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.csv", "text/csv; charset=utf-8"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.PNG", "image/png"),
        ("a.json", "application/json"),
        ("a.mp3", "audio/mpeg"),
        ("a.html", UNKNOWN),
        ("a.htm", UNKNOWN),
        ("a.svg", UNKNOWN),
        ("a.svgz", UNKNOWN),
        ("a.js", UNKNOWN),
        ("a.mjs", UNKNOWN),
        ("a.css", UNKNOWN),
        ("a.xml", UNKNOWN),
        ("a.pdf", UNKNOWN),
        ("a.wasm", UNKNOWN),
        ("a.csv.gz", UNKNOWN),
        ("data:text/html,x", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_a_type_is_told_if_no_browser_runs_it(name: str, kind: str) -> None:
    assert content_type(name) == kind


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a b.txt", "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt"),
        ("é.txt", "attachment; filename=\"_.txt\"; filename*=UTF-8''%C3%A9.txt"),
        ('"\r\nX: y', "attachment; filename=\"___X_ y\"; filename*=UTF-8''%22%0D%0AX%3A%20y"),
        ("\udcff", "attachment; filename=\"_\"; filename*=UTF-8''%EF%BF%BD"),
    ],
)
def test_a_name_is_told_as_rfc_6266_has_it(name: str, told: str) -> None:
    assert disposition(name) == told


@given(st.text(st.characters(codec=None), max_size=255))
def test_no_name_adds_to_the_header(name: str) -> None:
    told = disposition(name.encode(errors="replace").decode())
    assert told.isascii()
    assert told.isprintable()
    assert told.count('"') == 2


@pytest.mark.parametrize(
    ("header", "size", "part"),
    [
        ("bytes=0-0", 10, (0, 1)),
        ("bytes=0-", 10, (0, 10)),
        ("bytes=9-", 10, (9, 10)),
        ("bytes=-4", 10, (6, 10)),
        ("bytes=-40", 10, (0, 10)),
        ("bytes=3-99", 10, (3, 10)),
        (" bytes = 3 - 4 ", 10, (3, 5)),
        ("bytes=5-4", 10, None),
        ("bytes=", 10, None),
        ("bytes=-", 10, None),
        ("bytes=0-1,2-3", 10, None),
        ("items=0-1", 10, None),
        ("bytes=a-b", 10, None),
        ("bytes=٣-", 10, None),
        ("bytes=0-" + "9" * 5000, 10, None),
    ],
)
def test_one_part_is_understood_and_the_rest_ignored(
    header: str, size: int, part: tuple[int, int] | None
) -> None:
    assert requested_range(header, size) == part


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=0-", 0), ("bytes=-0", 10), ("bytes=-1", 0)]
)
def test_a_part_behind_the_end_is_refused(header: str, size: int) -> None:
    with pytest.raises(ValueError, match=r"byte|end"):
        requested_range(header, size)


@given(
    st.text(max_size=40) | st.from_regex(r"bytes=\d{0,22}-\d{0,22}", fullmatch=True),
    st.integers(0, 2**63),
)
def test_a_part_always_lies_in_the_file(header: str, size: int) -> None:
    try:
        part = requested_range(header, size)
    except ValueError:
        return
    if part is not None:
        assert 0 <= part[0] < part[1] <= size


def test_versions_differ_with_size_time_and_file() -> None:
    assert len({etag(1, 2, 3), etag(2, 2, 3), etag(1, 3, 3), etag(1, 2, 4)}) == 4
