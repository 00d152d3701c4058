"""Labels stay few, whatever a reason says."""

from __future__ import annotations

import pytest

from broker.metrics import exit_class


@pytest.mark.parametrize(
    ("reason", "label"),
    [
        ("exit 3", "exit"),
        ("signal SIGSEGV", "signal"),
        ("unknown", "unknown"),
        ("oom", "oom"),
        ("timeout", "timeout"),
        ("cpu", "cpu"),
        ("killed by operator", "killed"),
        ("bad_frame", "bad_frame"),
        ("restart", "restart"),
        ("idle", "idle"),
        ("whatever somebody wrote", "other"),
        ("", "other"),
        (" ", "other"),
    ],
)
def test_each_reason_counts_under_one_of_a_fixed_set(reason: str, label: str) -> None:
    assert exit_class(reason) == label
