"""Other people's server-sent events as a source of inbound messages."""
