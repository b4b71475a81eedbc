"""Signs of life through Redis, for several processes on one store. Needs the [redis] extra."""

from roomkit.providers.redis.bus import RedisBus

__all__ = ["RedisBus"]
