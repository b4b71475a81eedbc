"""PocketSphinx: speech to text without a network, in a process of its own."""
