"""Sessions as Jupyter's clients see kernels: their names, their messages, and who gets which."""
