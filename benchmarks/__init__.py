"""The pinned workloads of roomkit, one file each: `python -m benchmarks --help`."""
