"""Speech-to-speech calls: the same audio parts as every call, with a model that hears and speaks by itself."""
