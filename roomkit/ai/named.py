"""Providers by name: "openai:gpt-4.1" is the module `roomkit.providers.openai.ai`, found only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

from roomkit.errors import UsageError
from roomkit.ports.ai import AIProvider


def provider_named(name: str) -> AIProvider:
    """The provider for "vendor" or "vendor:model". Raises `UsageError` when there is no such vendor, and whatever its
    own configuration asks for (a missing key, a missing extra)."""
    vendor, _, model = name.partition(":")
    module: Any = None
    if vendor.isidentifier():
        if find_spec(f"roomkit.providers.{vendor}.ai" if _is_package(vendor) else "roomkit.providers." + vendor):
            module = import_module(f"roomkit.providers.{vendor}.ai")
        else:
            from importlib.metadata import entry_points

            for entry in entry_points(group="roomkit.providers", name=vendor):
                module = import_module(f"{entry.load().__name__}.ai")
                break
    if module is None or not hasattr(module, "provider"):
        raise UsageError(f'there is no AI provider "{vendor}"; write "vendor:model", for example "openai:gpt-4.1"')
    return cast("AIProvider", module.provider(model or None))


def _is_package(vendor: str) -> bool:
    spec = find_spec(f"roomkit.providers.{vendor}")
    return spec is not None and spec.submodule_search_locations is not None
