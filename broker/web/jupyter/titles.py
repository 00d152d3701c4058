"""What Jupyter's clients call things: a kernel's kernelspec, a notebook's path. Pure.

Kept in memory and bounded, for each tenant apart; whatever is forgotten is called by its own name
again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

MOST = 1000  # kernels, and notebooks, of one tenant
TENANTS = 1000
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Notebook:
    """A session as Jupyter has it: a document with a kernel."""

    id: str
    kernel: str  # the id
    path: str
    name: str
    type: str


class Shelf:
    """What the clients of one tenant call things; the oldest are forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._specs: OrderedDict[str, str] = OrderedDict()
        self._notebooks: OrderedDict[str, Notebook] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Shelf: {len(self._specs)} kernels, {len(self._notebooks)} notebooks>"

    def call(self, kernel_id: str, spec: str) -> None:
        """Note by which kernelspec a kernel was asked for."""
        _put(self._specs, kernel_id, spec, self._most)

    def spec(self, kernel_id: str) -> str | None:
        """Return by which kernelspec a kernel was asked for last, if that is known."""
        return self._specs.get(kernel_id)

    def put(self, notebook: Notebook) -> None:
        """Note a notebook, in the place of the one with its id."""
        _put(self._notebooks, notebook.id, notebook, self._most)

    def drop(self, notebook_id: str) -> None:
        """Forget a notebook, if it is known."""
        self._notebooks.pop(notebook_id, None)

    def get(self, notebook_id: str) -> Notebook | None:
        """Return the notebook of that id."""
        return self._notebooks.get(notebook_id)

    def notebooks(self) -> Iterator[Notebook]:
        """Return all of them, oldest first."""
        return iter([*self._notebooks.values()])


class Titles:
    """The shelves of all tenants; the one used longest ago is forgotten."""

    def __init__(self, most: int = MOST, tenants: int = TENANTS) -> None:
        self._most = most
        self._tenants = tenants
        self._shelves: OrderedDict[str, Shelf] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Titles: {len(self._shelves)} tenants>"

    def of(self, tenant: str) -> Shelf:
        """Return a tenant's shelf."""
        shelf = self._shelves.get(tenant) or Shelf(self._most)
        _put(self._shelves, tenant, shelf, self._tenants)
        return shelf


def _put(table: OrderedDict[str, V], key: str, value: V, most: int) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > most:
        table.popitem(last=False)
