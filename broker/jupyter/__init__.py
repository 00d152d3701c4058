"""Sessions as Jupyter's clients know them: as kernels."""
