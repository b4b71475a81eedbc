"""Guests: one folder per vendor, found by name (`"openai:gpt-..."`) and imported only when used."""
