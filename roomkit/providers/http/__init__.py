"""Signed webhooks between roomkit and programs of one's own."""
