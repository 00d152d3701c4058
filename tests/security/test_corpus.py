"""Hostile code, run for real: none of it gets out, and nobody beside it notices."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.security.conftest import Outcome, Target
from tests.security.corpus import CATEGORIES, Snippet, prelude, snippets
from tests.system.peer import ask_until, execute

LEVELS = ("full", "standard")
MOST_TEXT = 2 << 20  # bytes of one answer's streams: a mebibyte each, and what is said about more
SNIPPETS = snippets()
CASES = [
    pytest.param(level, name, id=f"{level}-{snippet.category}-{name}")
    for level in LEVELS
    for name, snippet in SNIPPETS.items()
    if level in snippet.levels
]
BARE = [name for name, snippet in SNIPPETS.items() if snippet.bare]


def is_safe(snippet: Snippet, outcome: Outcome) -> bool:
    """Tell whether an outcome is one that the snippet calls safe."""
    if is_lost(outcome):
        return any(re.fullmatch(reason, outcome.reason) for reason in snippet.ends) or (
            snippet.may_time_out and outcome.reason == "timeout"
        )
    if outcome.status == "timeout":
        return snippet.may_time_out
    if outcome.status == "error":
        assert outcome.answer["error"], outcome.answer
        name = outcome.answer["error"]["name"]
        return any(re.fullmatch(each, name) for each in snippet.errors)
    return outcome.verdict.startswith("SAFE")


def is_lost(outcome: Outcome) -> bool:
    """Tell whether the kernel ended, or may have."""
    return bool(outcome.reason) and outcome.status in ("lost", "timeout")


def breaks_its_own_kernel(snippet: Snippet, outcome: Outcome) -> bool:
    """Tell whether a kernel lives on that was harmed by its own code, and may do as it likes."""
    return ".*" in snippet.ends and not is_lost(outcome)


@pytest.mark.parametrize(("level", "name"), CASES)
def test_an_attack_fails_and_nobody_beside_it_notices(
    level: str,
    name: str,
    request: pytest.FixtureRequest,
    attack_session: Callable[[Target], str],
) -> None:
    target: Target = request.getfixturevalue(f"{level}_target")
    snippet = SNIPPETS[name]
    session = attack_session(target) if snippet.alone else target.shared
    outcome = target.run(snippet, session)
    assert is_safe(snippet, outcome), outcome.told
    assert len(outcome.answer["stdout"]) + len(outcome.answer["stderr"]) < MOST_TEXT
    host_name = target.host["neighbour"]["host"]
    assert target.neighbour_says() == f"generation 1: {host_name}"
    if snippet.alone and not breaks_its_own_kernel(snippet, outcome):
        again = execute(target.broker, session, "20 * 2 + 2")
        assert again["result"] == {"text/plain": "42"}, again
        lost = again["generation"] - outcome.answer["generation"]
        assert lost == 1 if outcome.status == "lost" else lost in (0, 1)


@pytest.mark.parametrize("name", BARE)
def test_an_attack_that_does_no_harm_succeeds_without_a_sandbox(
    name: str, bare_target: Target
) -> None:
    outcome = bare_target.run(SNIPPETS[name], bare_target.shared)
    assert outcome.verdict.startswith("UNSAFE"), outcome.told


@pytest.mark.parametrize("level", LEVELS)
def test_what_a_cell_left_running_ends_with_its_session(
    level: str, request: pytest.FixtureRequest, attack_session: Callable[[Target], str]
) -> None:
    target: Target = request.getfixturevalue(f"{level}_target")
    session = attack_session(target)
    target.run(SNIPPETS["stay_behind"], session)
    word = target.host["for_ever"]
    ask_until(lambda: len(running(word)) >= 5, "five programs that run on")
    target.end(session)
    ask_until(lambda: not running(word), "the end of what was left running")


def running(word: str) -> list[int]:
    """Return the processes of this host with a word among their arguments."""
    listed = psutil.process_iter(["cmdline"])
    return [process.pid for process in listed if word in (process.info["cmdline"] or [])]


def test_every_snippet_says_what_it_tries_and_uses_only_what_it_is_sent_with() -> None:
    assert len(SNIPPETS) >= 170
    assert {snippet.category for snippet in SNIPPETS.values()} == set(CATEGORIES)
    for snippet in SNIPPETS.values():
        assert snippet.line.endswith("."), snippet.name
        code = snippet.cell({})
        compile(code, snippet.name, "exec")
        assert "tests." not in code


def test_the_prelude_needs_the_standard_library_alone() -> None:
    text = Path(str(inspect.getsourcefile(prelude))).read_text()
    imported = set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE))
    assert imported <= {"ctypes", "errno", "os", "platform", "re", "typing"}
