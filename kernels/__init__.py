"""Sandboxed IPython processes you can talk to."""
