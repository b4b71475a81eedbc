"""eSpeak NG: text to speech without a network in a hundred languages, a process per sentence."""
