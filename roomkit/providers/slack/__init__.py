"""Slack: the Events API, interactive messages and slash commands in; the Web API out."""
