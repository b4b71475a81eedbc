"""Elastic Email: letters through its REST API v4, its notifications, and letters that its inbound routes post."""
