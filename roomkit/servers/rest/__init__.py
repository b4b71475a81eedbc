"""The REST API: one table of small functions (docs/reference/rest.md)."""

from roomkit.servers.rest import admin, desk, media, rooms, seats
from roomkit.servers.rest.api import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (*rooms.API, *seats.API, *desk.API, *media.API, *admin.API)
