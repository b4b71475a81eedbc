"""What outsiders implement: small protocols, each with a conformance kit in `roomkit.testing`."""
