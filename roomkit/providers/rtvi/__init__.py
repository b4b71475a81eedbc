"""The sound of RTVI's clients."""
