"""What Jupyter's clients post: JSON of known fields; unknown ones are none of our business. Pure.

Each mistake raises BadFrame, BadMessage or TooLarge, and nothing else is ever raised.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from broker.errors import BadFrame
from broker.faults import Bounds
from broker.loading import load_json
from broker.parsing import body_of
from broker.requests import MAX_ENV_VALUE, MAX_INPUTS, Configure, OpenBody

OF_THE_SERVER = "KERNEL_"  # such variables are for a server, and no kernel's environment
SESSION = "KERNEL_SESSION"  # names the session, where a client can send nothing else

SpecName = Annotated[str, msgspec.Meta(max_length=128)]
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
SessionName = Annotated[str, msgspec.Meta(max_length=128)]
Path = Annotated[str, msgspec.Meta(max_length=4096)]
Kind = Annotated[str, msgspec.Meta(max_length=128)]
Variable = Annotated[str, msgspec.Meta(max_length=256)]
Value = Annotated[str, msgspec.Meta(max_length=MAX_ENV_VALUE)]
Environment = Annotated[dict[Variable, Value], msgspec.Meta(max_length=MAX_INPUTS)]
S = TypeVar("S", bound=msgspec.Struct)


class KernelBody(msgspec.Struct, frozen=True, kw_only=True):
    """What is posted for a kernel; `session` is ours: the chat session that it is to be."""

    name: SpecName | None = None
    path: Path | None = None
    kernel_id: Id | None = None
    env: Environment | None = None
    session: SessionName | None = None

    def session_name(self) -> str | None:
        """Return which session is asked for by its name."""
        return self.session or (self.env or {}).get(SESSION) or None

    def configure(self, bounds: Bounds) -> Configure | None:
        """Return the environment it asks for, if it does. Raises BadMessage."""
        env = {
            name: value
            for name, value in (self.env or {}).items()
            if not name.startswith(OF_THE_SERVER)
        }
        return body_of({"env": env}, OpenBody, bounds).configure("-") if env else None


class KernelOf(msgspec.Struct, frozen=True, kw_only=True):
    """The kernel of a notebook: one there is, or the kernelspec of one that is to be."""

    id: Id | None = None
    name: SpecName | None = None


class NotebookBody(msgspec.Struct, frozen=True, kw_only=True):
    """What is posted for a notebook, or changed of one."""

    path: Path | None = None
    name: Path | None = None
    type: Kind | None = None
    kernel: KernelOf | None = None
    notebook: dict[str, object] | None = None  # older clients: the path, and the name, in here

    def notebook_path(self) -> str | None:
        """Return the path, wherever it stands."""
        inner = (self.notebook or {}).get("path")
        return self.path or (inner[:4096] if isinstance(inner, str) else None)


def kernel_body(data: bytes, bounds: Bounds) -> KernelBody:
    """Return what was posted for a kernel; nothing at all asks for nothing special."""
    return _body(data, KernelBody, bounds)


def notebook_body(data: bytes, bounds: Bounds) -> NotebookBody:
    """Return what was posted for a notebook."""
    if not data.strip():
        raise BadFrame('the body is empty; expected JSON such as {"path": "a.ipynb", …}')
    return _body(data, NotebookBody, bounds)


def _body(data: bytes, struct: type[S], bounds: Bounds) -> S:
    message = load_json(data, bounds) if data.strip() else {}
    return body_of({} if message is None else message, struct, bounds)
