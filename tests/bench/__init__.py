"""Our figures against the peers', measured side by side in one run: `python -m tests.bench`."""
