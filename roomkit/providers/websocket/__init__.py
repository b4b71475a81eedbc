"""Other people's WebSocket feeds as a source of inbound messages."""
