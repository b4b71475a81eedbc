"""The brain's machinery: a pure tool loop, its driver, and what goes into a prompt."""
