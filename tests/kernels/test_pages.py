"""Which memory of a zygote goes into large pages."""

from __future__ import annotations

import pytest

from kernels.inside.pages import LARGE, collapse, large

MAPPED = "7f0000100000-7f0000900000"


@pytest.mark.parametrize(
    ("line", "count"),
    [
        (f"{MAPPED} rw-p 00000000 00:00 0", 3),
        (f"{MAPPED} rw-p 00000000 00:00 0 [heap]", 3),
        ("7f0000000000-7f0000400000 rw-p 00000000 00:00 0", 2),
        ("7f0000100000-7f0000300000 rw-p 00000000 00:00 0", 0),
        (f"{MAPPED} r--p 00000000 00:00 0", 0),
        (f"{MAPPED} rw-s 00000000 00:00 0", 0),
        (f"{MAPPED} rw-p 00000000 08:01 4711 /usr/lib/libpython3.so", 0),
        (f"{MAPPED} rw-p 00000000 00:00 0 [stack]", 0),
    ],
)
def test_a_large_page_is_all_within_one_anonymous_mapping(line: str, count: int) -> None:
    first, end = (int(address, 16) for address in line.split(maxsplit=1)[0].split("-"))
    found = list(large(line))
    assert len(found) == count
    assert all(start % LARGE == 0 and first <= start and start + LARGE <= end for start in found)


def test_what_is_collapsed_is_as_it_was() -> None:
    kept = bytearray(b"\x01\x02\x03\x04" * (2 << 20))
    assert collapse() >= 0
    assert kept == b"\x01\x02\x03\x04" * (2 << 20)
