"""What needs more than the hard dependencies is left out where only those are installed (the other Pythons)."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("opentelemetry") else ["test_tracing.py"]
