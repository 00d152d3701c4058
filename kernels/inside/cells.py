"""Cells made ready to run: what IPython looks for in each, looked for only where it can be.

It takes a cell apart into tokens, in Python, three times, and compiles it once more: 2 ms for fifty
lines, to find magics, a last semicolon and an `await` that hardly any of them has.
"""

from __future__ import annotations

import ast
import os
import re
import struct
from typing import Any

from ipykernel.compiler import XCachingCompiler, get_tmp_directory, get_tmp_hash_seed
from ipykernel.displayhook import ZMQShellDisplayHook
from IPython.core.inputtransformer2 import TransformerManager, leading_empty_lines

from .magics import TIMED, Body, body_of, mark, name_of
from .places import CELLS
from .streams import CellStream, flush

# `x?` anywhere; a line that begins as a command does; `x = %magic`, `x = !command`. Each of these
# may be plain Python as well: then IPython looks closer.
_COMMAND = re.compile(r"\?|(?:\A|\n)[^\S\n]*[!%,;/]|=[\s\\]*[!%]")

_WORD = 0xFFFFFFFF
_MULTIPLIER = 0x5BD1E995  # MurmurHash2's


class Transformer(TransformerManager):
    """IPython's transformations of a cell, which here leave every line where it is."""

    _known = tuple(TransformerManager().token_transformers)

    def transform_cell(self, cell: str) -> str:
        """Return the cell as Python, with the blank lines that it begins with."""
        code = super().transform_cell(cell)
        # The debugger has IPython keep them while it is attached.
        if cell[:1].isspace() and leading_empty_lines in self.cleanup_transforms:
            code = "\n" * cell[: len(cell) - len(cell.lstrip())].count("\n") + code
        return code

    def do_token_transforms(self, lines: list[str]) -> list[str]:
        """Return the lines as Python."""
        text = "".join(lines)
        if (
            tuple(self.token_transformers) == self._known
            and not _COMMAND.search(text)
            and text.count("\n") == len(lines)  # else they end in what Python takes for no end
        ):
            return lines
        return super().do_token_transforms(lines)  # type: ignore[no-any-return]

    def do_one_token_transform(self, lines: list[str]) -> tuple[bool, list[str]]:
        """Transform what comes first: a command over several lines becomes one, and blank ones."""
        changed, after = super().do_one_token_transform(lines)
        if missing := len(lines) - len(after):
            at = next((i for i, line in enumerate(after) if line != lines[i]), 0) + 1
            after = [*after[:at], *["\n"] * missing, *after[at:]]
        return changed, after


class DisplayHook(ZMQShellDisplayHook):
    """Shows what a cell's last expression gives."""

    @staticmethod
    def semicolon_at_end_of_expression(expression: str) -> bool:
        """Tell whether the last token is a semicolon."""
        if ";" not in expression:
            return False
        return bool(ZMQShellDisplayHook.semicolon_at_end_of_expression(expression))

    def finish_displayhook(self) -> None:
        """Send the result, after all that was printed before it."""
        flush()
        CellStream.budget.here.catch_up()
        message = self.msg
        if message and message["content"]["data"] and self.session:
            for hook in self._hooks:
                message = hook(message)
                if message is None:
                    break
            else:
                self.session.send(self.pub_socket, message, ident=self.topic)
        self.msg = None


class Compiler(XCachingCompiler):
    """Names each cell as debuggers do, who know it by a hash of its source."""

    body: Body | None = None  # of the cell magic that runs

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._filename_map = CELLS

    def get_code_name(self, raw_code: str, code: str, number: int) -> str:
        """Return the name of the file that the cell would be."""
        name = os.environ.get("IPYKERNEL_CELL_NAME")
        if name is None:
            name = f"{get_tmp_directory()}{os.sep}{murmur2(raw_code, get_tmp_hash_seed())}.py"
        return name

    def place(self, raw_code: str, code: str) -> str:
        """Return Python code on the lines of the cell that it was made of, or was in the body of.

        What has neither `%%` in it nor comes while a magic runs need not be asked about.
        """
        body = self.body
        if body is not None and raw_code == body.text:
            lines = "\n" * body.above
            raw_code, code = lines + raw_code, lines + code
            body.code = code
        if "%%" in raw_code:
            self.body = body_of(raw_code, code, body) or body
        return code

    def cache(self, transformed_code: str, number: int = 0, raw_code: str | None = None) -> str:
        """Name a cell, and keep its source: of a cell magic as it was written."""
        body = self.body
        if body is None or transformed_code != body.call:
            return str(super().cache(transformed_code, number, raw_code))
        body.name = str(super().cache(body.cell, number, raw_code))
        return body.name

    def ast_parse(self, source: str, filename: str = "<unknown>", symbol: str = "exec") -> Any:
        """Parse code; what a magic has parsed of its body is the cell's."""
        body = self.body
        if body is None or source is not body.code or filename != "<unknown>":
            return super().ast_parse(source, filename, symbol)
        tree = super().ast_parse(source, body.name, symbol)
        mark(tree, body.name)
        return tree

    def __call__(self, source: Any, filename: str, symbol: str, **options: Any) -> Any:
        """Compile code; that of a magic's body is the cell's."""
        if filename in TIMED and isinstance(source, ast.AST):
            filename = name_of(source, filename)
        return super().__call__(source, filename, symbol, **options)


def may_await(cell: str) -> bool:
    """Tell whether a cell has one of the two words without which nothing awaits."""
    return "await" in cell or "async" in cell


def murmur2(text: str, seed: int) -> int:
    """Return the MurmurHash2 of a text in UTF-8: ipykernel's, in a third of the time.

    Raises UnicodeEncodeError.
    """
    data = text.encode()
    size = len(data)
    words: Any = struct.unpack_from(f"<{size // 4}I", data)
    hashed = seed ^ size
    for word in words:
        mixed = word * _MULTIPLIER & _WORD
        mixed = (mixed ^ mixed >> 24) * _MULTIPLIER & _WORD
        hashed = hashed * _MULTIPLIER & _WORD ^ mixed
    if size % 4:
        hashed ^= int.from_bytes(data[size & ~3 :], "little")
        hashed = hashed * _MULTIPLIER & _WORD
    hashed = (hashed ^ hashed >> 13) * _MULTIPLIER & _WORD
    return hashed ^ hashed >> 15
