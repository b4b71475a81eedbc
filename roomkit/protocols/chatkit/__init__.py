"""OpenAI's ChatKit: threads and items as views of rooms and events. Pure. Needs the [chatkit] extra.

Source: the public package `openai-chatkit`, whose types these are.
"""
