"""The interactive prompt of `broker run`."""

from __future__ import annotations

import codeop
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from .printer import Printer, exit_status

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import History
    from prompt_toolkit.input import Input
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.lexers import Lexer

    from broker.client import Session

LEAVE = {"exit", "quit", "exit()", "quit()"}


def converse(
    session: Session, printer: Printer, timeout: float | None, around: Mapping[str, Any]
) -> int:
    """Read and run code until Ctrl-D; returns the exit status."""
    from prompt_toolkit.patch_stdout import patch_stdout

    from broker.client import BrokerError, user_state_dir

    from .group import RefusedByBroker
    from .run import execute

    session.attach()  # a refusal is told before a prompt is
    prompt = make_prompt(user_state_dir() / "history")
    click.echo(f"session {session.name}; Ctrl-C interrupts, Ctrl-D leaves", err=True)

    def line() -> str:
        with patch_stdout(raw=True):  # what is said meanwhile stands above the prompt
            return prompt.prompt(">>> ")

    for code in typed(line):
        try:
            execute(session, printer, code, timeout, around)
        except KeyboardInterrupt:
            return exit_status("interrupted")
        except BrokerError as error:
            RefusedByBroker(type(error).__name__, error.message).show()
        printer.end_line()
    return 0


def typed(read: Callable[[], str]) -> Iterator[str]:
    """Yield code until Ctrl-D, or a word that leaves; Ctrl-C and empty lines are nothing."""
    while True:
        try:
            code = read()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if code.strip() in LEAVE:
            return
        if code.strip():
            yield code


def is_complete(text: str) -> bool:
    """Say whether Enter should run the text rather than add a line, by the REPL's own rule.

    A block ends with an empty line. What cannot become valid by going on is complete: the
    kernel says what is wrong with it, or knows it for one of its own commands.
    """
    lines = text.split("\n")
    if len(lines) > 1 and not lines[-1].strip():
        # Enter has indented this line for what might follow: it is empty all the same.
        text = "\n".join([*lines[:-1], ""])
    first = text.lstrip()
    if first.startswith("%%"):
        return not lines[-1].strip()
    if first.startswith(("%", "!", "?")) or first.rstrip().endswith("?"):
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape is the kernel's to warn of
        try:
            return codeop.compile_command(text, symbol="single") is not None
        except (SyntaxError, ValueError, OverflowError):
            pass
        try:  # several statements at once, pasted: more only while the last block is open
            is_whole = codeop.compile_command(text, symbol="exec") is not None
        except (SyntaxError, ValueError, OverflowError):
            return True
    return is_whole and not (lines[-1].strip() and lines[-1][0] in " \t")


def indent_after(line: str) -> str:
    """Return the indentation of the line that follows."""
    own = line[: len(line) - len(line.lstrip())]
    return own + "    " if line.partition("#")[0].rstrip().endswith(":") else own


def make_prompt(
    history: Path | History, completer: Completer | None = None, **terminal: Any
) -> PromptSession[str]:
    """Return a prompt with history, editing of several lines and colours.

    With a completer, which may take its time, Tab behind a word completes it.
    """
    from prompt_toolkit import PromptSession

    if "input" not in terminal and sys.stdin.isatty():
        terminal["input"] = keys_of(sys.stdin)
    return PromptSession(
        multiline=True,
        history=open_history(history) if isinstance(history, Path) else history,
        lexer=python_lexer(),
        key_bindings=bindings(completes=completer is not None),
        prompt_continuation="... ",
        completer=completer,
        complete_while_typing=False,
        complete_in_thread=True,
        **terminal,
    )


def keys_of(stdin: TextIO) -> Input:
    """Return the keys of a terminal, which stay ours while something is printed above the prompt.

    prompt_toolkit gives the terminal its lines back meanwhile: Ctrl-D would be lost, and whatever
    else is typed shown twice. So nothing that is run above the prompt can ask for a line.
    """
    from prompt_toolkit.input.vt100 import Vt100Input

    class Keys(Vt100Input):
        def cooked_mode(self) -> AbstractContextManager[None]:
            return nullcontext()

    return Keys(stdin)


def bindings(*, completes: bool = False) -> KeyBindings:
    """Return what Enter and Tab do."""
    from prompt_toolkit.filters import has_selection, is_searching
    from prompt_toolkit.key_binding import KeyBindings

    made = KeyBindings()

    @made.add("enter", filter=~has_selection & ~is_searching)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None  # chosen; another Enter runs it
            return
        below = buffer.document.text_after_cursor.strip()
        if not below and is_complete(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n" + indent_after(buffer.document.current_line_before_cursor))

    @made.add("tab")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if not completes or not buffer.document.current_line_before_cursor.strip():
            buffer.insert_text("    ")
        elif buffer.complete_state:
            buffer.complete_next()
        else:
            buffer.start_completion(insert_common_part=True)

    return made


def open_history(path: Path) -> History:
    """Return the history kept in a file of the user's alone, or in memory where none can be."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


def python_lexer() -> Lexer | None:
    """Return a lexer for Python where pygments is installed."""
    try:
        from prompt_toolkit.lexers import PygmentsLexer
        from pygments.lexers.python import PythonLexer  # type: ignore[import-untyped]
    except ImportError:
        return None
    return PygmentsLexer(PythonLexer)
