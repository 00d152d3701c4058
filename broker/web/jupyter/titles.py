"""What Jupyter's clients call things: a kernel's kernelspec, a notebook's path. Pure.

Kept in memory and bounded, for each tenant apart; whatever is forgotten is called by its own name
again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

MOST = 1000  # kernels, and notebooks, of one tenant,
MOST_BYTES = 512 << 10  # and the bytes of these, and of those
ENTRY = 256  # bytes that each costs beside its texts
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


class Table(Generic[V]):
    """What is called by ids, within a bound on its number; the oldest go first.

    And on its bytes, where there is one: `size_of` tells those of each.
    """

    def __init__(
        self,
        most: int,
        *,
        most_bytes: int | None = None,
        size_of: Callable[[V], int] = lambda _: 0,
    ) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._size_of = size_of
        self._values: dict[str, V] = {}
        self._sizes: dict[str, int] = {}
        self._size = 0

    def __repr__(self) -> str:
        return f"<Table: {len(self)} of {self._most}, {self._size:,} bytes>"

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> V | None:
        """Return a value, if it is known."""
        return self._values.get(key)

    def values(self) -> list[V]:
        """Return all of them, oldest first."""
        return [*self._values.values()]

    def put(self, key: str, value: V) -> None:
        """Note a value, in the place of the one that its key had."""
        self.drop(key)
        self._values[key], self._sizes[key] = value, self._size_of(value)
        self._size += self._sizes[key]
        while len(self) > self._most or self._is_heavy:
            self.drop(next(iter(self._values)))

    def drop(self, key: str) -> None:
        """Forget a value, if there is one."""
        if key in self._values:
            del self._values[key]
            self._size -= self._sizes.pop(key)

    @property
    def _is_heavy(self) -> bool:
        return self._most_bytes is not None and self._size > self._most_bytes


class Shelf:
    """What the clients of one tenant call things; the oldest are forgotten."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._specs = Table[str](most, most_bytes=most_bytes, size_of=_text_size)
        self._notebooks = Table[Notebook](most, most_bytes=most_bytes, size_of=_notebook_size)

    def __repr__(self) -> str:
        return f"<Shelf: {len(self._specs)} kernels, {len(self._notebooks)} notebooks>"

    def call(self, kernel_id: str, spec: str) -> None:
        """Note by which kernelspec a kernel was asked for."""
        self._specs.put(kernel_id, spec)

    def spec(self, kernel_id: str) -> str | None:
        """Return by which kernelspec a kernel was asked for last, if that is known."""
        return self._specs.get(kernel_id)

    def put(self, notebook: Notebook) -> None:
        """Note a notebook, in the place of the one with its id."""
        self._notebooks.put(notebook.id, notebook)

    def drop(self, notebook_id: str) -> None:
        """Forget a notebook, if it is known."""
        self._notebooks.drop(notebook_id)

    def get(self, notebook_id: str) -> Notebook | None:
        """Return the notebook of that id."""
        return self._notebooks.get(notebook_id)

    def notebooks(self) -> Iterator[Notebook]:
        """Return all of them, oldest first."""
        return iter(self._notebooks.values())


class Titles:
    """The shelves of all tenants; the one used longest ago is forgotten."""

    def __init__(
        self, most: int = MOST, tenants: int = TENANTS, most_bytes: int = MOST_BYTES
    ) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._shelves = Table[Shelf](tenants)

    def __repr__(self) -> str:
        return f"<Titles: {len(self._shelves)} tenants>"

    def of(self, tenant: str) -> Shelf:
        """Return a tenant's shelf."""
        shelf = self._shelves.get(tenant) or Shelf(self._most, self._most_bytes)
        self._shelves.put(tenant, shelf)
        return shelf


def _text_size(text: str) -> int:
    return ENTRY + sys.getsizeof(text)


def _notebook_size(notebook: Notebook) -> int:
    texts = notebook.id, notebook.kernel, notebook.path, notebook.name, notebook.type
    return ENTRY + sum(map(sys.getsizeof, texts))
