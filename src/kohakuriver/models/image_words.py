"""Words about images that one part writes and another one looks for."""

TRIED_AGAIN = "trying again in"
"""In the progress of a pull whose registry is busy or away."""
