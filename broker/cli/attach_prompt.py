"""The prompt of `broker attach`: it completes by what the session knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from prompt_toolkit.completion import Completer, Completion
from prompt_toolkit.history import InMemoryHistory

from .prompt import make_prompt
from .screen import calm

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.document import Document

    from broker.client import BrokerError, Session

MOST = 500  # completions that are shown


class Completions(Completer):
    """How code may go on, as the session's kernel says, also while it runs something."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterator[Completion]:
        """Yield them; none where the kernel cannot tell now."""
        from broker.client import BrokerError

        at = document.cursor_position
        try:
            told = self._session.complete(document.text, at)
        except BrokerError:
            return
        types = told.get("types") or []
        start = max(0, min(int(told["cursor_start"]), at))
        for number, match in enumerate(told["matches"][:MOST]):
            kind = types[number] if number < len(types) else ""
            yield Completion(calm(str(match)), start - at, display_meta=calm(str(kind or "")))


class Lines:
    """Reads what one types, until the end: Ctrl-D, or that of the session."""

    def __init__(self, session: Session, codes: list[str], **terminal: Any) -> None:
        # What has run is at hand, and nothing of it goes into a file of one's own.
        self._history = InMemoryHistory(codes)
        self._prompt: PromptSession[str] = make_prompt(
            self._history, Completions(session), **terminal
        )
        self.over: BrokerError | None = None

    def read(self, words: Callable[[], str]) -> str:
        """Return what was typed. Raises EOFError at the end, and KeyboardInterrupt at Ctrl-C."""
        if self.over is not None:
            raise EOFError
        return self._prompt.prompt(words)

    def remember(self, code: str) -> None:
        """Have code of somebody else's at hand as well."""
        self._history.append_string(code)

    def end(self, error: BrokerError) -> None:
        """End the reading: there is no session any more. From any thread."""
        self.over = error
        app = self._prompt.app
        loop = app.loop
        if app.is_running and loop is not None:
            loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        if self._prompt.app.is_running and not self._prompt.app.is_done:
            self._prompt.app.exit(exception=EOFError)

    def renew(self) -> None:
        """Show the prompt's words as they are by now. From any thread."""
        self._prompt.app.invalidate()
