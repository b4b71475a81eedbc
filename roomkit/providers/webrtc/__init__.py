"""WebRTC calls by aiortc."""
