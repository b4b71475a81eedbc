"""The embedded stand-in for a language model: no network, no key, the same answer every time."""
