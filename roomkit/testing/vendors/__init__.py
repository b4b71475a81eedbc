"""Fake vendors: small ASGI apps which check every request against the vendor's own types and answer from a script.

Give `FakeOpenAI().transport()` to a provider as `transport=`, or serve `fake.app` on a socket. Nothing here is imported
before it is used, because the vendors' SDKs are large.
"""
