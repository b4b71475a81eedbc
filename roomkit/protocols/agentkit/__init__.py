"""Rapida's AgentKit, a gRPC protocol by which a voice platform asks an agent what to say. Pure: frames in, frames out.

Source: the public package `rapida-python` and its documentation; field numbers are compared with its descriptors in
tests. Needs the [agentkit] extra.
"""
