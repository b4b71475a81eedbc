"""AgentKit backends as brains."""
