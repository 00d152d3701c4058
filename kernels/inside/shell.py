"""IPython's shell as kernels have it: nothing kept that nobody asked for, nothing done twice."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core.formatters import DisplayFormatter, PlainTextFormatter
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Instance, Type, observe

from .cells import Compiler, DisplayHook, Transformer, may_await
from .completing import IPCompleter
from .displays import Displays
from .formatters import add_form
from .streams import CellStream, flush
from .tracebacks import cell_line, forget_own_frames, has_group, native_lines, text_of, users_part

PLAIN = {int, float, bool, complex, str, bytes, list, dict, tuple, set, frozenset, range}


def _is_wanted(mime: str, include: Any, exclude: Any) -> bool:
    return (not include or mime in include) and (not exclude or mime not in exclude)


class PlainFirst(DisplayFormatter):
    """Shows a number, a text or a container as text, without asking every other formatter first.

    None of them knows these types, unless somebody has taught it to.
    """

    def format(self, obj: Any, include: Any = None, exclude: Any = None) -> Any:
        """Return a MIME bundle and its metadata."""
        if include or exclude or type(obj) not in PLAIN or self._is_taught(type(obj).__mro__):
            data, metadata = super().format(obj, include=include, exclude=exclude)
            if data:
                add_form(obj, data, lambda mime: _is_wanted(mime, include, exclude))
            return data, metadata
        text = self.formatters["text/plain"](obj)
        return ({} if text is None else {"text/plain": text}), {}

    def _is_taught(self, kinds: tuple[type, ...]) -> bool:
        special = self.ipython_display_formatter, self.mimebundle_formatter
        for formatter in (*self.formatters.values(), *special):
            if type(formatter) is PlainTextFormatter:
                continue
            if type(formatter).__module__ != DisplayFormatter.__module__:
                return True
            printers, deferred = formatter.type_printers, formatter.deferred_printers
            if any(kind in printers or ("builtins", kind.__name__) in deferred for kind in kinds):
                return True
        return False


class Shell(ZMQInteractiveShell):
    """The shell, with `!cmd` through the captured descriptors instead of a terminal."""

    # A pty would turn line ends into CRLF, and a sandbox has no /dev/pts.
    system = InteractiveShell.system_raw
    displayhook_class = Type(DisplayHook)
    display_pub_class = Type(Displays)
    input_transformer_manager = Instance(Transformer, ())
    tells_interrupt = False  # a second one now would only keep the first from being told
    _transformed: tuple[str | None, str] = (None, "")
    _awaits: tuple[str | None, bool] = (None, False)
    told_error: dict[str, Any] | None = None  # the last one of the cell that runs

    def init_display_formatter(self) -> None:
        """Make what turns results into MIME bundles."""
        self.display_formatter = PlainFirst(parent=self)
        self.configurables.append(self.display_formatter)  # type: ignore[arg-type]

    def init_completer(self) -> None:
        """Make what completes, which fails in silence."""
        super().init_completer()
        before: Any = self.Completer
        self.Completer = IPCompleter(
            shell=self,
            namespace=self.user_ns,
            global_namespace=self.user_global_ns,
            parent=self,
        )
        self.Completer.custom_completers = before.custom_completers
        configurables: list[Any] = self.configurables
        configurables[configurables.index(before)] = self.Completer

    def init_display_pub(self) -> None:
        """Make what publishes displays, and remember it."""
        super().init_display_pub()
        self._publisher: Any = self.display_pub

    def init_displayhook(self) -> None:
        """Make what shows results, and remember it."""
        super().init_displayhook()
        self._hook: Any = self.displayhook

    def set_parent(self, parent: dict[str, Any]) -> None:
        """Note what is served from now on, with all that shows things: ours, whatever stands there.

        A cell may have put something else in its place. What can do its work stays.
        """
        try:
            super().set_parent(parent)
        except Exception:
            self._put_back(parent)
        for stream in CellStream.budget.streams.values():
            if stream is not sys.stdout and stream is not sys.stderr:
                stream.set_parent(parent)

    def _put_back(self, parent: dict[str, Any]) -> None:
        if not callable(getattr(getattr(self, "display_pub", None), "publish", None)):
            self.display_pub = self._publisher
        if not hasattr(getattr(self, "displayhook", None), "set_parent"):
            self.displayhook = self._hook
        for each in (self._publisher, self._hook, *CellStream.budget.streams.values()):
            each.set_parent(parent)

    @observe("ipython_dir")
    def _ipython_dir_changed(self, change: Any) -> None:
        """Make no directory: whoever writes into it makes it."""

    @property
    def keeps_outputs(self) -> bool:
        """Tell whether outputs are kept for `Out` and `%notebook`."""
        return bool(self.cache_size)

    @contextmanager
    def _tee(self, channel: Any) -> Iterator[None]:
        # IPython would keep every piece of text of the session, and slow each write for it.
        if self.keeps_outputs:
            with super()._tee(channel):
                yield
        else:
            yield

    def transform_cell(self, raw_cell: str) -> str:
        """Return the cell as Python; asked twice for each cell, it answers the same."""
        raw, transformed = self._transformed
        if raw is not raw_cell:
            transformed = super().transform_cell(raw_cell)
            compiler = self.compile
            if isinstance(compiler, Compiler) and ("%%" in raw_cell or compiler.body is not None):
                transformed = compiler.place(raw_cell, transformed)
            self._transformed = raw_cell, transformed
        return transformed

    def should_run_async(self, raw_cell: str, **options: Any) -> bool:
        """Tell whether the cell awaits at its top level; asked twice likewise."""
        raw, answer = self._awaits
        if raw is not raw_cell or options.get("preprocessing_exc_tuple"):
            answer = may_await(options.get("transformed_cell") or raw_cell) and bool(
                super().should_run_async(raw_cell, **options)
            )
            self._awaits = raw_cell, answer
        return answer

    async def run_ast_nodes(
        self,
        nodelist: list[Any],
        cell_name: str,
        interactivity: str = "last_expr",
        compiler: Any = compile,
        result: Any = None,
    ) -> Any:
        """Run a cell's statements: in one piece those before the one that shows its value.

        IPython compiles and runs each by itself. It still does where one cannot be compiled, so
        that those before it have run, and where one awaits, which needs flags of the compiler's.
        In one piece they are as in a script: equal constants are one object, and the compiler
        warns before the first statement runs.
        """
        before = nodelist
        if interactivity == "last" or (nodelist and isinstance(nodelist[-1], ast.Expr)):
            before = nodelist[:-1]
        if interactivity in ("last", "last_expr") and len(before) > 1 and not self._awaits[1]:
            try:
                code = compiler(ast.Module(before, []), cell_name, "exec")
            except Exception:
                code = None
            except BaseException as error:  # interrupted; told as IPython tells it
                if result:
                    result.error_before_exec = error
                self.showtraceback()
                return True
            if code is not None:
                if await self.run_code(code, result):
                    return True
                nodelist = nodelist[len(before) :]
        return await super().run_ast_nodes(nodelist, cell_name, interactivity, compiler, result)

    def _format_exception_for_storage(self, *args: Any, **options: Any) -> Any:
        # For a history of errors that is not kept either, formatted once more.
        return super()._format_exception_for_storage(*args, **options) if self.keeps_outputs else {}

    def showtraceback(self, exc_tuple: Any = None, *args: Any, **options: Any) -> None:
        """Show an error, where it happened in the user's code."""
        error = exc_tuple[1] if exc_tuple else sys.exc_info()[1]
        forget_own_frames(error)
        self.tells_interrupt = isinstance(error, KeyboardInterrupt)
        try:
            self._tell(error, exc_tuple, *args, **options)
        finally:
            self.tells_interrupt = False

    def _tell(
        self, error: BaseException | None, exc_tuple: Any, *args: Any, **options: Any
    ) -> None:
        if error is not None and has_group(error):  # IPython prints these, and sends no error
            self._showtraceback(type(error), error, native_lines(error))
            return
        if isinstance(error, SyntaxError):  # of these, IPython shows the outermost frame as well
            error.__traceback__ = users_part(error)
        told = self.told_error
        super().showtraceback(exc_tuple, *args, **options)
        if error is not None and self.told_error is told:  # it printed something, at the most
            self._showtraceback(type(error), error, native_lines(error))

    def _showtraceback(self, etype: Any, evalue: Any, stb: list[str]) -> None:
        """Send an error, as ipykernel does; with the line of the cell that it came from."""
        flush()
        CellStream.budget.here.catch_up()
        hook = self._hook
        if getattr(hook, "msg", None) is not None:  # raised while a result was made text
            self._last_traceback_during_displayhook = True
        self.told_error = {
            "traceback": stb,
            "ename": str(etype.__name__),
            "evalue": text_of(evalue),
            "line": cell_line(evalue),
        }
        topic = hook.topic and hook.topic.replace(b"execute_result", b"error")
        parent = hook.parent_header
        hook.session.send(hook.pub_socket, "error", self.told_error, parent, ident=topic)
        self._last_traceback = stb

    def forget_outputs(self) -> None:
        """Drop what was kept of the cell: its results and errors only if they are not wanted."""
        self._publisher.end()
        self._transformed, self._awaits, self.told_error = (None, ""), (None, False), None
        if isinstance(self.compile, Compiler):
            self.compile.body = None
        history = self.history_manager
        if not self.keeps_outputs and history is not None:
            for name in ("outputs", "output_hist_reprs", "exceptions"):
                getattr(history, name, {}).clear()
