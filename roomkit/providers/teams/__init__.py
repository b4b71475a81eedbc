"""Microsoft Teams, by the Bot Framework: activities in and out through the Bot Connector."""
