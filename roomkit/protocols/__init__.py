"""Wire protocols as sans-IO codecs: one folder per wire, `messages.py` and `codec.py` in each."""
