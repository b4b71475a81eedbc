"""Telnyx: SMS and MMS through the Messages API, RCS through an agent."""
