"""Completion that says nothing of what goes wrong in it: IPython prints a traceback for that.

What is completed has code of its own, which may raise anything, and be stopped for its slowness.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from IPython.core import completer


class IPCompleter(completer.IPCompleter):
    """IPython's, by whose name it is configured. A matcher that fails has found nothing."""

    _is_stopped = False

    @property
    def matchers(self) -> list[Any]:
        """Return what finds matches; once one was stopped, the rest find none."""
        self._is_stopped = False
        return [self._quiet(each) for each in super().matchers]

    def _quiet(self, matcher: Callable[[Any], Any]) -> Callable[[Any], Any]:
        is_old = getattr(matcher, "matcher_api_version", 1) == 1
        nothing: Any = [] if is_old else {"completions": []}

        @functools.wraps(matcher)
        def quiet(asked: Any) -> Any:
            if self._is_stopped:
                return nothing
            try:
                return matcher(asked)
            except Exception:
                return nothing
            except BaseException:  # an interrupt, or the end of its time
                self._is_stopped = True
                return nothing

        return quiet
