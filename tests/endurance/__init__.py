"""What a broker is to bear for long, or in masses: soak, overload, fuzz, opens and closes.

`python -m tests.endurance` runs all of it at full length; the test suite runs each for a moment.
"""
