"""OpenAI, and every vendor that speaks its protocols. Needs the [openai] extra when a provider is first used."""
