"""ElevenLabs: streaming text to speech that tells when each character is spoken."""
