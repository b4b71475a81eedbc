"""Agents of Google's Agent Development Kit as brains."""
