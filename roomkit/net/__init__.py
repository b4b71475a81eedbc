"""Outgoing traffic: HTTP clients, safe fetching of foreign URLs, retry, circuit breakers and rate limits.

Names load on first use, so that importing this package costs nothing and needs no HTTP library. `retry` the function
lives in the module of the same name: `from roomkit.net.retry import RetryPolicy, retry`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roomkit.net.breaker import BreakerChange, BreakerOpen, BreakerOptions, Breakers, BreakerState
    from roomkit.net.client import ClientOptions, error_from_response, http_client, parse_retry_after, vendor_errors
    from roomkit.net.ratelimit import RateLimiter, TokenBucket
    from roomkit.net.redaction import redact, redact_logs, register_secret
    from roomkit.net.retry import RetryPolicy
    from roomkit.net.room_client import NotSent, RoomClient
    from roomkit.net.ssrf import Credentials, Fetched, Fetcher, FetchPolicy, Resolver, fetch
    from roomkit.net.tokens import Tokens
    from roomkit.net.transport import GuardedTransport

_HOME = {
    "BreakerChange": "breaker",
    "BreakerOpen": "breaker",
    "BreakerOptions": "breaker",
    "BreakerState": "breaker",
    "Breakers": "breaker",
    "ClientOptions": "client",
    "Credentials": "ssrf",
    "FetchPolicy": "ssrf",
    "Fetched": "ssrf",
    "Fetcher": "ssrf",
    "GuardedTransport": "transport",
    "NotSent": "room_client",
    "RateLimiter": "ratelimit",
    "Resolver": "ssrf",
    "RetryPolicy": "retry",
    "RoomClient": "room_client",
    "Tokens": "tokens",
    "TokenBucket": "ratelimit",
    "error_from_response": "client",
    "fetch": "ssrf",
    "http_client": "client",
    "parse_retry_after": "client",
    "redact": "redaction",
    "redact_logs": "redaction",
    "register_secret": "redaction",
    "vendor_errors": "client",
}
__all__ = [
    "BreakerChange",
    "BreakerOpen",
    "BreakerOptions",
    "BreakerState",
    "Breakers",
    "ClientOptions",
    "Credentials",
    "FetchPolicy",
    "Fetched",
    "Fetcher",
    "GuardedTransport",
    "NotSent",
    "RateLimiter",
    "Resolver",
    "RetryPolicy",
    "RoomClient",
    "TokenBucket",
    "Tokens",
    "error_from_response",
    "fetch",
    "http_client",
    "parse_retry_after",
    "redact",
    "redact_logs",
    "register_secret",
    "vendor_errors",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
