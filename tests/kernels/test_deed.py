"""What is written on a kernel survives every end of its writer, and every other content is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.deed import NAME, Deed


@given(st.lists(st.builds(Deed, st.text(), st.text()), min_size=1, max_size=4))
def test_the_last_one_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, deeds: list[Deed]
) -> None:
    directory = tmp_path_factory.mktemp("kernel")
    for deed in deeds:
        deed.write(directory)
        assert Deed.read(directory) == deed


@given(st.binary())
def test_any_bytes_are_a_deed_or_none(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    directory = tmp_path_factory.mktemp("kernel")
    (directory / NAME).write_bytes(data)
    deed = Deed.read(directory)
    assert deed is None or isinstance(deed, Deed)


@pytest.mark.parametrize(
    "text", ["[]", "[1]", '["a", "b", "c"]', "1", "{}", '"ab"', "[[1], 2]", ""]
)
def test_what_we_did_not_write_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    assert Deed.read(tmp_path) is None


def test_nothing_is_written_through_a_link_or_read_by_others(tmp_path: Path) -> None:
    assert Deed.read(tmp_path) is None
    (tmp_path / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        Deed("k", "a").write(tmp_path)
    os.unlink(tmp_path / NAME)
    Deed("k", "a").write(tmp_path)
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
