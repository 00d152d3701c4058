"""The generated parts of the documents are up to date, and no document points nowhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from broker import deadline, drain, resumption
from broker.metrics import exit_class

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "deploy/docs").glob("*.md")),
]


def test_the_generated_parts_are_what_the_code_says() -> None:
    told = subprocess.run(
        [sys.executable, str(ROOT / "deploy/docs/generate.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_of_ours_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_every_test_that_the_readme_names_for_a_guarantee_is_there() -> None:
    guarantees = (
        (ROOT / "README.md").read_text().partition("## Guarantees")[2].partition("\n## ")[0]
    )
    promises, _, _ = guarantees.partition("Not guaranteed:")
    for promise in promises.split("\n- ")[1:]:
        named = re.findall(r"`([\w/]+\.py)`", promise)
        assert named, promise
        for name in named:
            path = ROOT / name if "/" in name else ROOT / "tests/system" / name
            assert path.exists(), name


@pytest.mark.parametrize("reason", [deadline.KILLED, drain.REASON, resumption.UNTOLD])
def test_every_reason_has_its_row_in_the_protocols_table(reason: str) -> None:
    text = (ROOT / "deploy/docs/protocol.md").read_text()
    table = text.partition("| reason | means |")[2].partition("\n\n")[0]
    assert f"`{reason}`" in table


@pytest.mark.parametrize("reason", [deadline.KILLED, drain.REASON])
def test_every_reason_that_a_kernel_ends_for_is_counted_by_its_name(reason: str) -> None:
    assert exit_class(reason) == reason
