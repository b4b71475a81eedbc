"""RTVI, the protocol between Pipecat's clients and a bot. Pure: messages in, messages out.

Source: the public clients (`@pipecat-ai/client-js`, which speaks 2.1.0) and the packages of the server side (2.2.0).
The protobuf frames of the WebSocket transport need the [rtvi] extra.
"""
