"""Agents of OpenAI's Agents SDK as brains."""
