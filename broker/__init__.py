"""Which session owns which kernel, and the socket to it."""
