"""The `broker` command: serve, and ask a server that runs."""

from .group import main

__all__ = ["main"]
