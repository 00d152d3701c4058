"""What the client says of connections that are slow, or lost and made anew."""

from __future__ import annotations

import click

from .screen import still


def tell_of_outages() -> None:
    """Print it on stderr."""
    import logging

    class Echo(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            click.echo(f"broker: {still(record.getMessage())}", err=True)

    logger = logging.getLogger("broker.client")
    logger.handlers, logger.propagate = [Echo()], False
