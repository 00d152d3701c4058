"""A cell that has put something else in the place of our streams is told how it went."""

from __future__ import annotations

import pytest

from tests.kernels.talk import Talk

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("value", ["None", "3"])
async def test_an_error_is_told_whatever_stands_for_a_stream(
    talk: Talk, name: str, value: str
) -> None:
    await talk.run(f"import sys\nkept, sys.{name} = sys.{name}, {value}")
    said = await talk.run("1 / 0")
    assert [content["ename"] for content in said.contents("error")] == ["ZeroDivisionError"]
    await talk.run(f"sys.{name} = kept")
    assert await talk.value("1 + 1") == "2"
