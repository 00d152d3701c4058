"""The faces of the broker: Tornado handlers, each a thin translation onto the service."""
