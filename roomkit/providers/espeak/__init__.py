"""eSpeak NG and Flite: text to speech without a network, a process per sentence."""
