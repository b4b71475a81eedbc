"""Sinch: SMS and MMS through the SMS REST API."""
