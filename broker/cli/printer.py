"""Prints an execution's events as a REPL would: each stream on its own descriptor, as it comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TextIO

from .markup import plain_of
from .screen import RESET, still
from .text import size

EXIT = {"ok": 0, "timeout": 124, "interrupted": 130, "cancelled": 130, "lost": 137}
SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "image/svg+xml": "svg", "image/gif": "gif"}


def exit_status(status: str) -> int:
    """Return what `broker run` exits with after an execution of this status."""
    return EXIT.get(status, 1)


class Printer:
    """Prints events to two streams; images are noted, and written to `images` when it is given."""

    def __init__(self, out: TextIO, err: TextIO, images: Path | None = None) -> None:
        self._out = out
        self._err = err
        self._images = images
        self._generation = 0
        self._open_line = False  # stdout's last line has no end yet

    def event(self, event: dict[str, Any]) -> None:
        """Print one event."""
        match event.get("type"):
            case "session":
                self._session(event)
            case "stream":
                self._stream(str(event.get("name")), str(event.get("text", "")))
            case "display" | "result":
                self._rich(event.get("data", {}))
            case "error":
                lines = event.get("traceback") or [f"{event.get('name')}: {event.get('message')}"]
                self.note("\n".join(map(str, lines)))
            case "done":
                self._done(event)

    def note(self, line: str) -> None:
        """Print a line on stderr, after a line break where stdout stands in mid-line."""
        is_drawn = self._err.isatty()
        if self._open_line and (self._err is self._out or (is_drawn and self._out.isatty())):
            self.end_line()
        self._out.flush()
        self._err.write(f"{RESET if is_drawn else ''}{line}\n")
        self._err.flush()

    def end_line(self) -> None:
        """End stdout's line if it is open."""
        if self._open_line:
            self._write("\n")

    def _write(self, text: str) -> None:
        if text:
            self._out.write(text)
            self._out.flush()
            self._open_line = not text.endswith("\n")

    def _stream(self, name: str, text: str) -> None:
        if name == "stderr" and self._err is not self._out:
            self._err.write(text)
            self._err.flush()
        else:
            self._write(text)

    def _session(self, event: dict[str, Any]) -> None:
        """Tell of a new generation; the end of the one before it is the same news."""
        generation = int(event.get("generation") or 0)
        earlier, self._generation = self._generation, max(generation, self._generation)
        state = str(event.get("state"))
        if generation <= earlier or (not earlier and state not in ("lost", "restored")):
            return
        told = "restored" if state == "restored" else "lost"
        why = f": {still(str(event['reason']))}" if event.get("reason") else ""
        names = still(", ".join(map(str, event.get("lost") or ())))
        self.note(
            f"broker: generation {generation}, state {told}{why}"
            + (f" (gone: {names})" if names else "")
        )

    def _rich(self, data: dict[str, Any]) -> None:
        self.end_line()
        images = [mime for mime in data if mime.startswith("image/")]
        for mime in images:
            self._write(self._image(mime, data[mime]) + "\n")
        if not images and (text := plain_of(data)) is not None:
            self._write(f"{text}\n")
        elif not images and data:
            self._write(f"[{still(', '.join(data))}]\n")

    def _image(self, mime: str, value: object) -> str:
        from broker.client.result import image_bytes

        content = value.encode() if isinstance(value, str) and "svg" in mime else image_bytes(value)
        if content is None:
            return f"[{still(mime)}, unreadable]"
        note = f"{still(mime)} {size(len(content))}"
        if self._images is not None:
            note += f" in {save(self._images, mime, content)}"
        return f"[{note}]"

    def _done(self, event: dict[str, Any]) -> None:
        cut = event.get("truncated")
        if cut:
            where = f"; more of it is in {still(str(cut['file']))}" if cut.get("file") else ""
            shown, total = size(cut.get("shown")), size(cut.get("total"))
            self.note(f"broker: output cut, {shown} of {total} shown{where}")
        status, reason = event.get("status"), event.get("reason")
        if status not in ("ok", "error", "interrupted", "cancelled"):
            told = f": {reason}" if reason and reason != status else ""
            self.note(f"broker: {still(f'{status}{told}')}")


def save(directory: Path, mime: str, content: bytes) -> Path:
    """Write an image under the next free number and return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    suffix = SUFFIXES.get(mime, "bin")
    number = 1
    while True:
        path = directory / f"image-{number:03}.{suffix}"
        try:
            with path.open("xb") as file:
                file.write(content)
        except FileExistsError:
            number += 1
        else:
            return path
