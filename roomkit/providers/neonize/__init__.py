"""A personal WhatsApp account, linked as a device by neonize. Tested against neonize's own types, never live."""
