"""The face of a Jupyter server: its kernels API, on sessions of ours."""
