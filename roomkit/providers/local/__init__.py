"""The microphone and loudspeaker of this machine."""
