"""Twilio: SMS, MMS and RCS through the Messages API."""
