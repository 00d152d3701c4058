"""Bodies of cell magics, run as the lines of the cell that they stand in.

IPython gives a magic the text below its line. What the magic compiles of it would be code of no
file, with lines of its own: nobody could find in the cell what an error tells of.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

CALL = "get_ipython().run_cell_magic("
# As what `%%time` and `%%timeit` compile a body, and `%time` and `%timeit` their line.
TIMED = {"<timed exec>", "<timed eval>", "<magic-timeit>", "<magic-timeit-stmt>"}


@dataclass(slots=True)
class Body:
    """The text below the line of a cell magic that runs."""

    text: str
    above: int  # lines of the cell
    cell: str  # as it was written
    call: str  # what IPython makes of the cell
    name: str  # of the cell's file, or of that in which the magic's call stands
    code: str = ""  # the text as Python, once that is asked for, on its lines of the cell


def body_of(cell: str, call: str, outer: Body | None) -> Body | None:
    """Return the body of a cell, if it is a cell magic; or of a body, if that begins with one.

    `call` is the text as Python, on its lines of the cell; so is `cell` then, but as written.
    """
    start = call.lstrip("\n")
    if not start.startswith(CALL) or cell.lstrip().startswith(CALL):
        return None
    tree: Any = ast.parse(start)
    text = tree.body[0].value.args[2].value
    above = len(call) - len(start) + 1
    return Body(text, above, cell, call, outer.name if outer else "")


def mark(tree: Any, name: str) -> None:
    """Note in each of a body's statements whose they are: magics compile them by parts."""
    for statement in tree.body:
        statement.cell = name
        if isinstance(statement, ast.Expr):
            statement.value.cell = name  # type: ignore[attr-defined]


def name_of(tree: ast.AST, otherwise: str) -> str:
    """Return the name of the cell that a tree has a part of a body of."""
    return next((node.cell for node in ast.walk(tree) if hasattr(node, "cell")), otherwise)
