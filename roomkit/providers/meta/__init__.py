"""Meta: WhatsApp through the Cloud API, and Messenger."""
