"""The long proofs: what is promised holds in real processes that are killed. `python -m proofs --help`."""
