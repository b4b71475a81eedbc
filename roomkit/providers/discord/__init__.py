"""Discord: interactions (commands, buttons, forms) in, messages by the REST API out."""
