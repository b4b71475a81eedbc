"""SDK clients are built once, off the loop; vendors' errors never repeat a key; refused parameters are recognised."""

from __future__ import annotations

import asyncio
import threading

import pytest

from roomkit.errors import BadResponse, ConfigError, ContextOverflow, MissingExtra, RateLimited
from roomkit.providers.sdk import LazyClient, read_key, rejected_parameter, vendor_error


async def test_many_first_uses_build_one_client_in_a_thread() -> None:
    built: list[str] = []

    def build() -> object:
        built.append(threading.current_thread().name)
        return object()

    lazy = LazyClient("Vendor", "vendor", build)
    assert lazy.built is None
    clients = await asyncio.gather(lazy.get(), lazy.get(), lazy.get())
    assert len({id(client) for client in clients}) == 1
    assert built == ["vendor-sdk"]
    assert lazy.built is clients[0]


async def test_a_cancelled_first_use_cancels_nobody_else() -> None:
    go = threading.Event()

    def build() -> str:
        go.wait(10)
        return "client"

    lazy = LazyClient("Vendor", "vendor", build)
    first = asyncio.ensure_future(lazy.get())
    second = asyncio.ensure_future(lazy.get())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    go.set()
    assert await second == "client"
    assert first.cancelled()


async def test_a_missing_sdk_names_the_extra_and_is_tried_again() -> None:
    installed = False

    def build() -> str:
        if not installed:
            raise ImportError("no module named vendor")
        return "client"

    lazy = LazyClient("VendorProvider", "vendor", build)
    with pytest.raises(MissingExtra, match=r"VendorProvider needs the vendor SDK: .*\[vendor\] extra"):
        await lazy.get()
    installed = True
    assert await lazy.get() == "client"


def test_keys_come_from_the_argument_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENDOR_KEY", "from-environment")
    assert read_key("V", "given-key", "VENDOR_KEY") == "given-key"
    assert read_key("V", None, "VENDOR_KEY") == "from-environment"
    monkeypatch.delenv("VENDOR_KEY")
    assert read_key("V", None, "VENDOR_KEY", required=False) is None
    with pytest.raises(ConfigError, match="V needs an API key: set VENDOR_KEY or pass api_key="):
        read_key("V", None, "VENDOR_KEY")


def test_no_error_repeats_a_key() -> None:
    key = read_key("V", "very-secret-vendor-key", None)
    for code in ("context_length_exceeded", "rate_limit_exceeded", "unknown"):
        assert str(key) not in str(vendor_error("v", f"the key {key} is bad", code=code))


@pytest.mark.parametrize(
    "code,message,kind",
    [
        ("context_length_exceeded", "", ContextOverflow),
        (None, "This model's maximum context length is 8192 tokens.", ContextOverflow),
        ("rate_limit_error", "Too many tokens per minute: the context window is fine.", RateLimited),
        (None, "", BadResponse),
    ],
)
def test_kinds_by_code_and_message(code: str | None, message: str, kind: type[Exception]) -> None:
    assert type(vendor_error("v", message, code=code)) is kind


@pytest.mark.parametrize(
    "message,told,name",
    [
        ("Unsupported value: 'temperature' does not support 0.1 with this model.", "temperature", "temperature"),
        ("`temperature` is deprecated for this model", None, "temperature"),
        ("extra_field: Extra inputs are not permitted", None, None),
        ("Your organization must be verified for this.", "reasoning.summary", "reasoning.summary"),
        ("Unsupported parameter: 'reasoning.effort'", "reasoning.effort", "reasoning"),
        ("Unsupported parameter: 'top_temperature'", None, None),
        ("temperature must be between 0 and 2", "temperature", None),
        ("Unsupported parameter: 'store'", "store", None),  # was not sent
    ],
)
def test_what_a_vendor_refuses(message: str, told: str | None, name: str | None) -> None:
    sent = {"temperature": 0.1, "reasoning": {"summary": "auto"}}
    droppable = {"temperature", "reasoning", "reasoning.summary", "store"}
    assert rejected_parameter(message, told, sent, droppable) == name
