"""Anthropic's Claude. Needs the [anthropic] extra when a provider is first used."""
