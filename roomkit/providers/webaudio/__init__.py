"""A browser's microphone and loudspeaker over a web socket."""
