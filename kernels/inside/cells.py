"""Cells made ready to run: what IPython looks for in each, looked for only where it can be.

It takes a cell apart into tokens, in Python, three times, and compiles it once more: 2 ms for fifty
lines, to find magics, a last semicolon and an `await` that hardly any of them has.
"""

from __future__ import annotations

import os
import re
import struct
from typing import Any

from ipykernel.compiler import XCachingCompiler, get_tmp_directory, get_tmp_hash_seed
from ipykernel.displayhook import ZMQShellDisplayHook
from IPython.core.inputtransformer2 import TransformerManager

# `x?` anywhere; a line that begins as a command does; `x = %magic`, `x = !command`. Each of these
# may be plain Python as well: then IPython looks closer.
_COMMAND = re.compile(r"\?|(?:\A|\n)[^\S\n]*[!%,;/]|=[\s\\]*[!%]")

_WORD = 0xFFFFFFFF
_MULTIPLIER = 0x5BD1E995  # MurmurHash2's


class Transformer(TransformerManager):
    """IPython's transformations of a cell."""

    _known = tuple(TransformerManager().token_transformers)

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


class DisplayHook(ZMQShellDisplayHook):
    """Shows what a cell's last expression gives."""

    @staticmethod
    def semicolon_at_end_of_expression(expression: str) -> bool:
        """Tell whether the last token is a semicolon."""
        if ";" not in expression:
            return False
        return bool(ZMQShellDisplayHook.semicolon_at_end_of_expression(expression))


class Compiler(XCachingCompiler):
    """Names each cell as debuggers do, who know it by a hash of its source."""

    def get_code_name(self, raw_code: str, code: str, number: int) -> str:
        """Return the name of the file that the cell would be."""
        name = os.environ.get("IPYKERNEL_CELL_NAME")
        if name is None:
            name = f"{get_tmp_directory()}{os.sep}{murmur2(raw_code, get_tmp_hash_seed())}.py"
        return name


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
