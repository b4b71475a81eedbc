"""How much longer than on an idle machine things may take: limits of time grow with the load per core, and say so."""

from __future__ import annotations

import os

_longest = [1.0]


def patience() -> float:
    """The factor now."""
    factor = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    _longest[0] = max(_longest[0], factor)
    return factor


def longest_patience() -> float:
    """The greatest factor since this was called last."""
    longest, _longest[0] = _longest[0], 1.0
    return longest
