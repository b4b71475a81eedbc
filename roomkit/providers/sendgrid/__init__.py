"""SendGrid: email through the Mail Send API, its signed Event Webhook, and letters from Inbound Parse."""
