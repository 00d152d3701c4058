"""Questions about a session's names and variables, answered beside whatever runs.

They come over the control channel, so that neither a cell that runs has to end nor the next one to
wait, and a thread of their own answers them one after another. What the user's objects run there
prints nothing and has little time: first it is stopped by an exception, and if that does not help,
for C code sees none, the thread is left to itself and another one takes its place.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from jupyter_client.session import DELIM

from . import variables
from .completing import IPCompleter
from .raising import raise_in

REQUEST = b'"question_request"'
EACH = 0.15  # s that one variable's own code may take
LIMIT = 1.0  # s that one answer may take
GRACE = 0.2  # s from a stop until a thread is given up
MOST_LEFT = 3  # threads that never came back; with more, nothing is answered until one does
MOST_WAITING = 32
MAX_MATCHES = 1000
MAX_MATCH = 1000  # characters
MAX_TEXT = 64 << 10  # characters of what is found out about one name

Json = dict[str, Any]
BUSY = {"status": "busy"}  # too much is asked already
LATE = {**BUSY}  # nothing was found in time; who asks within the kernel tells the two apart


class Stopped(BaseException):
    """Raised where a question's time is up."""


class Question:
    """One question on its way. The answer grows while it is worked on."""

    def __init__(
        self,
        content: Json,
        reply: Callable[[Json], None],
        work: Callable[[], Json | None] | None = None,
        seconds: float = LIMIT,
    ) -> None:
        self.content = content
        self.reply = reply
        self.work = work  # that finds the answer, if it is no client's question
        self.seconds = seconds  # that this may take
        self.answer: Json | None = None  # as good as it is by now
        self.done = False
        self._lock = threading.Lock()
        self._until = 0.0  # monotonic s, of what may be stopped now
        self._thread = 0  # which may be stopped now

    def limited(self, function: Callable[[], None], seconds: float) -> None:
        """Run a function for at most so long. Whatever it raises is dropped."""
        with suppress(BaseException):  # the user's own, or our stop
            with self._lock:
                self._until = time.monotonic() + seconds
                self._thread = threading.get_ident()
            try:
                function()
            finally:
                with self._lock:
                    self._thread = 0

    def stop_if_late(self) -> float:
        """Stop what has had its time; return in how many seconds to look again."""
        with self._lock:
            left = self._until - time.monotonic()
            if not self._thread or left > 0:
                return max(left, EACH / 2)
            raise_in(self._thread, Stopped)
            self._thread = 0  # once: the next one might hit what comes after
            return EACH / 2


class Worker(threading.Thread):
    """Works on one question at a time, and ends with None for one; `silent` for as long."""

    def __init__(
        self,
        work: Callable[[Question], None],
        ended: Callable[[Worker], None],
        silent: set[int | None],
    ) -> None:
        super().__init__(name="questions", daemon=True)
        # As ipykernel's own: a debugger would trace it, and a first look at a table took 3.9 s.
        self.pydev_do_not_trace = self.is_pydev_daemon_thread = True
        self._silent = silent
        self.questions: SimpleQueue[Question | None] = SimpleQueue()
        self._work = work
        self._ended = ended

    def run(self) -> None:
        """Work until told to end."""
        own = threading.get_ident()
        self._silent.add(own)
        try:
            while (question := self.questions.get()) is not None:
                with suppress(BaseException):  # a stop that came late
                    self._work(question)
                self._ended(self)
        finally:
            self._silent.discard(own)  # which a thread of the user's may have next


class Questions:
    """Takes a kernel's questions. All but the work itself is the control thread's."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._worker: Worker | None = None
        self._left: set[Worker] = set()  # those that were given up
        self._current: Question | None = None
        self._waiting: deque[Question] = deque()
        self._completer: Any = None
        self._loop: Any = None

    def serve(self, frames: list[bytes]) -> bool:
        """Take a request if it is a question; tell whether it is."""
        try:
            if REQUEST not in frames[frames.index(DELIM) + 2]:
                return False
            session = self._kernel.session
            idents, parts = session.feed_identities(frames)
            message = session.deserialize(parts)
            content = message["content"]
            if message["msg_type"] != "question_request" or type(content) is not dict:
                return False
        except (ValueError, TypeError, KeyError, IndexError):
            return False  # no message, as the kernel will find

        def reply(answer: Json) -> None:
            session.send(self._kernel.control_stream, "question_reply", answer, message, idents)

        self._take(Question(content, reply))
        return True

    async def find(self, work: Callable[[], Json | None], seconds: float) -> Json:
        """Return the answer that `work` finds, by the user's objects.

        LATE itself if that takes too long, BUSY itself if there is no room.
        """
        answered: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._take(Question({}, answered.set_result, work, seconds))
        return await answered

    def _take(self, question: Question) -> None:
        self._loop = asyncio.get_running_loop()
        if len(self._waiting) >= MOST_WAITING or len(self._left) > MOST_LEFT:
            question.reply(BUSY)
            return
        self._waiting.append(question)
        self._next()

    def _next(self) -> None:
        while self._current is None and self._waiting:
            question = self._waiting.popleft()
            if self._worker is None:
                worker = Worker(self._work, self._worked, self._kernel.iopub_socket.silent)
                try:
                    worker.start()
                except RuntimeError:  # the user's own have taken all threads that there may be
                    question.reply(BUSY)
                    continue
                self._worker = worker
            self._current = question
            self._worker.questions.put(question)
            self._look(question, time.monotonic() + question.seconds)

    def _look(self, question: Question, end: float) -> None:
        """Stop what takes too long, and in the end whoever does not stop."""
        if question is not self._current:
            return
        left = question.stop_if_late()
        late = time.monotonic() - end
        if late > GRACE and self._worker is not None:
            self._left.add(self._worker)
            self._worker.questions.put(None)
            self._worker = None
            self._finish(question)
        else:
            self._loop.call_later(min(left, max(-late, EACH / 2)), self._look, question, end)

    def _finish(self, question: Question) -> None:
        self._current = None
        question.done = True
        question.reply(LATE if question.answer is None else question.answer)
        self._next()

    # The thread's own

    def _worked(self, worker: Worker) -> None:
        self._loop.call_soon_threadsafe(self._came_back, worker)

    def _came_back(self, worker: Worker) -> None:
        if worker in self._left:
            self._left.discard(worker)
        elif self._current is not None:
            self._finish(self._current)

    def _work(self, question: Question) -> None:
        kind = question.content.get("kind")
        if question.work is not None:
            question.limited(lambda: self._find(question), question.seconds)
        elif kind == "variables":
            self._tell_variables(question)
        elif kind == "complete":
            question.limited(lambda: self._complete(question), LIMIT)
        elif kind == "inspect":
            question.limited(lambda: self._inspect(question), LIMIT)
        else:
            question.answer = {"status": "error", "message": "no such question"}

    def _find(self, question: Question) -> None:
        if question.work is not None:
            question.answer = question.work()

    def _tell_variables(self, question: Question) -> None:
        shell = self._kernel.shell
        namespace, names = shell.user_ns, question.content.get("names")
        missing: list[str] = []
        if isinstance(names, list):
            wanted = [name for name in names if type(name) is str]
            found = [(name, namespace[name]) for name in wanted if name in namespace]
            there = {name for name, _ in found}
            missing = [name for name in wanted if name not in there]
        else:
            found = variables.listed(namespace, shell.user_ns_hidden)
        most = question.content.get("max")
        kept = found[: most if isinstance(most, int) else 200]
        rows, unsure = [], []
        for name, value in kept:
            row, more = variables.describe(name, value)
            rows.append(row)
            if more:
                unsure.append((row, value))
        answer: Json = {"status": "ok", "variables": rows}
        if len(found) > len(kept):
            answer["more"] = len(found) - len(kept)
        if missing:
            answer["missing"] = missing
        question.answer = answer
        until = time.monotonic() + LIMIT - EACH
        for at, (row, value) in enumerate(unsure):
            if question.done or time.monotonic() > until:
                break
            own = dict(row)  # the answer may leave while this one is filled

            def tell(own: Json = own, value: Any = value) -> None:
                variables.tell(own, value)

            question.limited(tell, EACH)
            if type(own.get("preview")) is str:
                rows[rows.index(row, at)] = own

    def _complete(self, question: Question) -> None:
        code, cursor = _place(question.content)
        question.answer = _matches([], cursor, cursor)
        before = code[:cursor]
        line = before.count("\n")
        column = len(before) - (before.rfind("\n") + 1)
        results = self._own_completer()._complete(
            full_text=code, cursor_line=line, cursor_pos=column
        )
        found: list[tuple[int, str, str]] = []
        for result in results.values():
            fragment = result.get("matched_fragment", "")
            start = cursor - len(fragment) if before.endswith(fragment) else cursor
            each = result.get("completions") or ()
            found += [
                (start, one.text, one.type if isinstance(one.type, str) else "")
                for one in each
                if isinstance(getattr(one, "text", None), str) and len(one.text) <= MAX_MATCH
            ]
        first = min((start for start, _, _ in found), default=cursor)
        unique: dict[str, str] = {}
        for start, text, kind in found:
            whole = code[first:start] + text
            unique[whole] = unique.get(whole) or kind
        from IPython.core.completer import completions_sorting_key

        pairs = [(text, unique[text]) for text in sorted(unique, key=completions_sorting_key)]
        question.answer = _matches(pairs, first, cursor)

    def _own_completer(self) -> Any:
        # Not the shell's: that keeps what it is at, and may be at something for a cell.
        if self._completer is None:
            shell = self._kernel.shell
            self._completer = IPCompleter(
                shell=shell,
                namespace=shell.user_ns,
                global_namespace=shell.user_global_ns,
                parent=shell,
            )
            self._completer.use_jedi = False
            self._completer.custom_completers = shell.Completer.custom_completers
        return self._completer

    def _inspect(self, question: Question) -> None:
        from IPython.utils.tokenutil import token_at_cursor

        code, cursor = _place(question.content)
        question.answer = {"status": "ok", "found": False, "data": {}}
        shell = self._kernel.shell
        name = token_at_cursor(code, cursor)
        info = shell._object_find(name)
        if not info.found:
            return
        question.answer = None  # found, and nothing to say yet
        bundle = shell.inspector._get_info(info.obj, name, info=info, detail_level=0)
        text = bundle.get("text/plain", "")
        if isinstance(text, str):
            data = {"text/plain": str.__getitem__(text, slice(MAX_TEXT))}
            question.answer = {"status": "ok", "found": True, "data": data}


def _place(content: Json) -> tuple[str, int]:
    """Return the code and the cursor of a question, which is in it."""
    code, cursor = content.get("code"), content.get("cursor")
    code = code if isinstance(code, str) else ""
    return code, min(max(0, cursor), len(code)) if isinstance(cursor, int) else len(code)


def _matches(pairs: list[tuple[str, str]], start: int, end: int) -> Json:
    return {
        "status": "ok",
        "matches": [text for text, _ in pairs[:MAX_MATCHES]],
        "types": [kind for _, kind in pairs[:MAX_MATCHES]],
        "cursor_start": start,
        "cursor_end": end,
    }
