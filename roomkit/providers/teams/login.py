"""The token that a bot calls the Bot Connector with: fetched with the app's secret, kept until it is nearly over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from roomkit.errors import BadResponse, Unauthorized
from roomkit.net.client import error_from_response, vendor_errors
from roomkit.net.redaction import register_secret
from roomkit.providers.vendor_json import json_answer
from roomkit.runtime import bounded, monotonic

if TYPE_CHECKING:
    import httpx2

EARLY_S = 300.0


class Login:
    """One app's way in. Whoever comes while a token is being fetched waits for the same one."""

    def __init__(self, client: httpx2.AsyncClient, url: str, form: dict[str, str], timeout_s: float) -> None:
        self._client = client
        self._url = url
        self._form = form
        self._timeout_s = timeout_s
        self._token: str | None = None
        self._until = 0.0
        self._lock = asyncio.Lock()

    async def token(self) -> str:
        """Raises `Unauthorized` when the app's id or secret are not right."""
        if self._token is None or monotonic() >= self._until:
            async with self._lock:
                if self._token is None or monotonic() >= self._until:
                    self._token, self._until = await self._fetch()
        return self._token

    def refused(self, token: str) -> None:
        """Forgets a token that the service does not take."""
        if token == self._token:
            self._token = None

    async def _fetch(self) -> tuple[str, float]:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        with vendor_errors("teams"):
            request = self._client.post(self._url, content=urlencode(self._form).encode(), headers=headers)
            response = await bounded(request, self._timeout_s, "teams")
        answer = json_answer(response)
        if not response.is_success:
            code = str(answer.get("error") or "")[:100] or None
            if response.status_code in {400, 401, 403}:
                raise Unauthorized("teams", f"the app's id or password is refused ({code})", status=400, code=code)
            raise error_from_response("teams", response, code=code)
        token, lasts = answer.get("access_token"), answer.get("expires_in")
        if not isinstance(token, str) or not token or not isinstance(lasts, int | float | str):
            raise BadResponse("teams", "the login gives no token", status=response.status_code)
        try:
            seconds = float(lasts)
        except ValueError:
            seconds = 0.0
        register_secret(token)
        return token, monotonic() + max(seconds - EARLY_S, seconds / 2)
