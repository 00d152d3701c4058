"""Shut a process in: one file for each kernel feature, and `recipe` for their order.

Runs in the zygote, in whichever interpreter a profile names, before any thread starts: standard
library only, and nothing of ours but this folder.
"""
