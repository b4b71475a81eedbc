"""Finding a vendor's provider by name: `"twilio"` for a channel of type sms is `roomkit.providers.twilio.sms`."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from roomkit.errors import ConfigError


def find_provider(name: str, kind: str, **options: Any) -> Any:
    """Builds the provider `name` ("vendor" or "vendor:account") for a kind of port, the vendor file's name.

    The vendor's settings come from its own environment variables unless given as `options`. Distributions add vendors
    under the entry point group `roomkit.providers`. Raises `ConfigError` for a vendor or kind that is not there.
    """
    vendor, _, account = name.partition(":")
    package = f"roomkit.providers.{vendor}"
    if not vendor.isidentifier() or find_spec(package) is None:
        from importlib import metadata

        found = metadata.entry_points(group="roomkit.providers", name=vendor)
        if not found:
            raise ConfigError(f'provider "{vendor}" is not known; pass one as an object, or install the plug-in for it')
        package = next(iter(found)).value.partition(":")[0]
    if find_spec(f"{package}.{kind}") is None:
        raise ConfigError(f'provider "{vendor}" has nothing for {kind}; pass a provider as an object')
    return import_module(f"{package}.{kind}").provider(account or None, **options)
