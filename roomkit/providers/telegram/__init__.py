"""Telegram: bots through the Bot API, by webhook or long polling."""
