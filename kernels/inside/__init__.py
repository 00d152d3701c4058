"""What runs in the profile's interpreter: the fork server, and the kernel it forks.

This folder is loaded from its files under a private name, so that nothing of ours is on the
path of the code that runs here. It imports nothing of ours but its own siblings.
"""
