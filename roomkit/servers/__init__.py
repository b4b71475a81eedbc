"""The doors other people knock on: REST, the room socket, webhooks, pages, metrics (the [server] extra)."""
