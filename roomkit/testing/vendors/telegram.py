"""A fake Telegram: takes the Bot API's methods as strictly as the real one, and hands out updates either way.

    fake = FakeTelegram()
    provider = TelegramProvider(fake.options(), transport=fake.transport())
    request = fake.text("hello", sender=5550123)          # a webhook, with the bot's secret
    fake.wait(fake.update(message=...))                    # the same for long polling

It can be slow (`delay_s`), refuse (`fail`), lose the answer after accepting (`lose_answer`), and repeat and reorder
(`disorder`) its webhooks. Needs the [server] extra.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from roomkit.models.delivery import WebhookRequest
from roomkit.providers.telegram.telegram import HEADER, TelegramOptions
from roomkit.testing.asgi import ConnectionCut, StreamingASGITransport

_SENT = {"chat_id", "message_thread_id", "reply_parameters", "reply_markup", "disable_notification"}
_WORDS = {"caption", "parse_mode"}
_AT = {"latitude", "longitude"}
_ONE = {"chat_id", "message_id"}
# What each method takes: (needed, allowed beside it).
_METHODS: Mapping[str, tuple[set[str], set[str]]] = {
    "sendMessage": ({"chat_id", "text"}, _SENT | {"parse_mode", "link_preview_options"}),
    "sendPhoto": ({"chat_id", "photo"}, _SENT | _WORDS),
    "sendAnimation": ({"chat_id", "animation"}, _SENT | _WORDS),
    "sendVideo": ({"chat_id", "video"}, _SENT | _WORDS),
    "sendVoice": ({"chat_id", "voice"}, _SENT | _WORDS),
    "sendAudio": ({"chat_id", "audio"}, _SENT | _WORDS),
    "sendDocument": ({"chat_id", "document"}, _SENT | _WORDS),
    "sendLocation": ({"chat_id", *_AT}, _SENT),
    "sendVenue": ({"chat_id", "title", "address", *_AT}, _SENT),
    "sendChatAction": ({"chat_id", "action"}, {"message_thread_id"}),
    "editMessageText": (_ONE | {"text"}, {"parse_mode", "reply_markup"}),
    "editMessageMedia": (_ONE | {"media"}, {"reply_markup"}),
    "deleteMessages": ({"chat_id", "message_ids"}, set()),
    "setMessageReaction": (_ONE, {"reaction", "is_big"}),
    "answerCallbackQuery": ({"callback_query_id"}, {"text", "show_alert"}),
    "getFile": ({"file_id"}, set()),
    "getUpdates": (set(), {"offset", "limit", "timeout", "allowed_updates"}),
    "setWebhook": ({"url"}, {"secret_token", "allowed_updates", "max_connections", "drop_pending_updates"}),
    "deleteWebhook": (set(), {"drop_pending_updates"}),
    "getWebhookInfo": (set(), set()),
}
_ACTIONS = {"typing", "upload_photo", "record_voice", "upload_document"}
_TAGS = re.compile(r"<(/?)([a-z-]+)(?:\s[^<>]*)?>")
_KNOWN_TAGS = {
    "b",
    "strong",
    "i",
    "em",
    "u",
    "ins",
    "s",
    "strike",
    "del",
    "code",
    "pre",
    "a",
    "blockquote",
    "tg-spoiler",
}


@dataclass(frozen=True, slots=True)
class FakeTelegramMessage:
    """A message that the fake has accepted: the method and its fields; `file` is what was uploaded."""

    message_id: int
    method: str
    fields: Mapping[str, Any]
    file: bytes | None = None

    @property
    def chat_id(self) -> Any:
        return self.fields["chat_id"]

    @property
    def text(self) -> str:
        return str(self.fields.get("text") or self.fields.get("caption") or "")


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    description: str
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])


class FakeTelegram:
    """One bot. `messages` is what was accepted, `calls` every method that was; chats in `blocked` have blocked it."""

    def __init__(
        self,
        *,
        token: str = "123456:fake-telegram-token-0123456789abcdef",  # noqa: S107 - a fake
        secret: str = "fake-telegram-secret",  # noqa: S107 - a fake
        webhook_url: str = "https://rooms.example/webhooks/telegram",
    ) -> None:
        self.token = token
        self.secret = secret
        self.webhook_url = webhook_url
        self.delay_s = 0.0
        self.messages: list[FakeTelegramMessage] = []
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
        self.blocked: set[int] = set()
        self.files: dict[str, bytes] = {}
        self.waiting: list[dict[str, Any]] = []
        """Updates for long polling that the bot has not confirmed."""
        self.webhook: str | None = None
        self._script: deque[_Refusal | str] = deque()
        self._poll: asyncio.Event = asyncio.Event()
        self._polls = 0
        self._count = 100
        self._update = 700_000

    def options(self, **more: Any) -> TelegramOptions:
        values: dict[str, Any] = {"bot_token": self.token, "webhook_secret": self.secret, **more}
        return TelegramOptions(**values)

    def transport(self) -> StreamingASGITransport:
        return StreamingASGITransport(self.app)

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/bot{token}/{method}", self._method, methods=["POST"]),
                Route("/file/bot{token}/{path:path}", self._file),
            ]
        )

    def fail(self, status: int, description: str = "scripted failure", **parameters: Any) -> None:
        """The next method is refused; `parameters` as Telegram gives them, e.g. `retry_after=3`."""
        self._script.append(_Refusal(status, description, parameters))

    def lose_answer(self) -> None:
        """The next method is done, but the connection breaks before the answer."""
        self._script.append("lose")

    def hang(self) -> None:
        """The next method is done, but the answer never comes."""
        self._script.append("hang")

    # -- updates ----------------------------------------------------------------------------------------

    def update(self, **kind: Any) -> dict[str, Any]:
        """An update of any kind: `update(message={...})`."""
        self._update += 1
        return {"update_id": self._update, **kind}

    def message(self, text: str | None = None, *, sender: int = 5550123, **more: Any) -> dict[str, Any]:
        """A message in a private chat."""
        self._count += 1
        person = {"id": sender, "is_bot": False, "first_name": "Ada", "last_name": "Byron", "language_code": "en"}
        chat = {"id": sender, "first_name": "Ada", "last_name": "Byron", "type": "private"}
        message = {"message_id": self._count, "from": person, "chat": chat, "date": 1893456000, **more}
        return message if text is None else {**message, "text": text}

    def text(self, text: str, *, sender: int = 5550123, **more: Any) -> WebhookRequest:
        return self.request(self.update(message=self.message(text, sender=sender, **more)))

    def file(self, data: bytes, **more: Any) -> dict[str, Any]:
        """A file that can be downloaded from here, as messages name it."""
        name = f"AgAD{hashlib.md5(data, usedforsecurity=False).hexdigest()}"
        self.files[name] = data
        return {"file_id": name, "file_unique_id": name[:12], "file_size": len(data), **more}

    def request(self, update: Mapping[str, Any]) -> WebhookRequest:
        """An update as a webhook, with the secret that was agreed upon."""
        headers = {"content-type": "application/json", HEADER: self.secret}
        return WebhookRequest("POST", self.webhook_url, headers, json.dumps(update).encode())

    def wait(self, *updates: dict[str, Any]) -> None:
        """Has these updates ready for long polling."""
        self.waiting.extend(updates)
        self._poll.set()

    @staticmethod
    def disorder(requests: Sequence[WebhookRequest], rng: random.Random, *, repeats: int = 2) -> list[WebhookRequest]:
        """The same webhooks as a bad day delivers them: each up to `repeats` times, in any order."""
        mixed = [request for request in requests for _ in range(rng.randint(1, repeats))]
        rng.shuffle(mixed)
        return mixed

    # -- the Bot API ------------------------------------------------------------------------------------

    async def _method(self, request: Request) -> Response:
        if request.path_params["token"] != self.token:
            return _problem(_Refusal(401, "Unauthorized"))
        method = str(request.path_params["method"])
        if method not in _METHODS:
            return _problem(_Refusal(404, "Not Found: method not found"))
        fields, upload = await _read(request)
        script = self._script.popleft() if self._script else None
        if refusal := script if isinstance(script, _Refusal) else self._objection(method, fields):
            return _problem(refusal)
        self.calls.append((method, {name: value for name, value in fields.items() if value is not upload}))
        result = await self._do(method, fields, upload)
        if isinstance(result, _Refusal):
            return _problem(result)
        await asyncio.sleep(1e9 if script == "hang" else self.delay_s)
        if script == "lose":
            raise ConnectionCut
        return JSONResponse({"ok": True, "result": result})

    def _objection(self, method: str, fields: Mapping[str, Any]) -> _Refusal | None:
        needed, allowed = _METHODS[method]
        if unknown := fields.keys() - needed - allowed:
            return _Refusal(400, f"Bad Request: {min(unknown)} is unknown")  # the real one ignores it: a bug of ours
        if missing := needed - fields.keys():
            return _Refusal(400, f"Bad Request: {min(missing)} is empty")
        chat = fields.get("chat_id")
        text, caption = str(fields.get("text", "")), str(fields.get("caption", ""))
        marked = fields.get("parse_mode") == "HTML"
        shown = _visible(text) if marked else text
        checks = (
            (chat in self.blocked, 403, "Forbidden: bot was blocked by the user"),
            ("chat_id" in fields and not isinstance(chat, int), 400, "Bad Request: chat not found"),
            (
                "text" in fields and method != "answerCallbackQuery" and not shown.strip(),
                400,
                "Bad Request: message text is empty",
            ),
            (len(shown) > 4096, 400, "Bad Request: message is too long"),
            (len(caption) > 1024, 400, "Bad Request: message caption is too long"),
            (marked and not _balanced(text or caption), 400, "Bad Request: can't parse entities: unclosed tag"),
            (fields.get("parse_mode") not in (None, "HTML"), 400, "Bad Request: unsupported parse_mode"),
            (not _good_markup(fields.get("reply_markup")), 400, "Bad Request: BUTTON_DATA_INVALID"),
            (not _good_reply(fields.get("reply_parameters")), 400, "Bad Request: reply_parameters"),
            (method == "sendChatAction" and fields.get("action") not in _ACTIONS, 400, "Bad Request: wrong action"),
        )
        return next((_Refusal(status, told) for wrong, status, told in checks if wrong), None)

    async def _do(self, method: str, fields: Mapping[str, Any], upload: bytes | None) -> Any:
        if method.startswith("send") and method != "sendChatAction":
            return self._accept(method, fields, upload)
        actions: dict[str, Callable[[Mapping[str, Any]], Any]] = {
            "editMessageText": self._edit,
            "editMessageMedia": self._edit,
            "setWebhook": self._set_webhook,
            "deleteWebhook": self._set_webhook,
            "getWebhookInfo": lambda _: {"url": self.webhook or "", "pending_update_count": len(self.waiting)},
            "getFile": self._get_file,
        }
        if method == "getUpdates":
            return await self._updates(fields)
        return actions[method](fields) if method in actions else True

    def _accept(self, method: str, fields: Mapping[str, Any], upload: bytes | None) -> dict[str, Any]:
        self._count += 1
        self.messages.append(FakeTelegramMessage(self._count, method, fields, upload))
        return {
            "message_id": self._count,
            "from": {
                "id": int(self.token.partition(":")[0]),
                "is_bot": True,
                "first_name": "Fake",
                "username": "fake_bot",
            },
            "chat": {"id": fields["chat_id"], "type": "private" if fields["chat_id"] > 0 else "supergroup"},
            "date": 1893456000,
        }

    def _edit(self, fields: Mapping[str, Any]) -> Any:
        old = next((one for one in self.messages if one.message_id == fields["message_id"]), None)
        if old is None:
            return _Refusal(400, "Bad Request: message to edit not found")
        if "text" in fields and "text" not in old.fields:
            return _Refusal(400, "Bad Request: there is no text in the message to edit")
        if all(
            old.fields.get(name) == value for name, value in fields.items() if name not in ("chat_id", "message_id")
        ):
            return _Refusal(400, "Bad Request: message is not modified")
        new = FakeTelegramMessage(old.message_id, old.method, {**old.fields, **fields}, old.file)
        self.messages[self.messages.index(old)] = new
        return {"message_id": old.message_id, "chat": {"id": fields["chat_id"], "type": "private"}, "date": 1893456000}

    def _set_webhook(self, fields: Mapping[str, Any]) -> bool:
        self.webhook = str(fields.get("url") or "") or None
        self._poll.set()
        return True

    def _get_file(self, fields: Mapping[str, Any]) -> Any:
        name = str(fields["file_id"])
        if name not in self.files:
            return _Refusal(400, "Bad Request: wrong file_id or the file is temporarily unavailable")
        return {"file_id": name, "file_unique_id": name[:12], "file_path": f"documents/{name}.bin"}

    async def _updates(self, fields: Mapping[str, Any]) -> Any:
        self._polls += 1
        mine = self._polls
        self._poll.set()
        await asyncio.sleep(0)
        offset = fields.get("offset")
        self._confirm(offset)
        deadline = asyncio.get_running_loop().time() + float(fields.get("timeout", 0))
        while self.webhook is None and mine == self._polls and not self.waiting:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return []
            self._poll.clear()
            try:
                async with asyncio.timeout(left):
                    await self._poll.wait()
            except TimeoutError:
                return []
            self._confirm(offset)
        if self.webhook is not None:
            return _Refusal(
                409, "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook first"
            )
        if mine != self._polls:
            return _Refusal(409, "Conflict: terminated by other getUpdates request")
        return self.waiting[: int(fields.get("limit", 100))]

    def _confirm(self, offset: int | None) -> None:
        """What is below the offset is forgotten, and never handed out."""
        if offset is not None:
            self.waiting = [one for one in self.waiting if one["update_id"] >= offset]

    async def _file(self, request: Request) -> Response:
        name = str(request.path_params["path"]).removeprefix("documents/").removesuffix(".bin")
        if request.path_params["token"] != self.token or name not in self.files:
            return Response(status_code=404)
        return Response(self.files[name], media_type="application/octet-stream")


async def _read(request: Request) -> tuple[dict[str, Any], bytes | None]:
    if request.headers.get("content-type", "").startswith("application/json"):
        return cast("dict[str, Any]", json.loads(await request.body())), None
    fields: dict[str, Any] = {}
    upload: bytes | None = None
    async with request.form() as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                fields[name] = upload = await value.read()
            elif name in ("chat_id", "message_thread_id"):
                fields[name] = int(value)
            else:
                fields[name] = json.loads(value) if name in ("reply_parameters", "reply_markup") else value
    return fields, upload


def _visible(html: str) -> str:
    return _TAGS.sub("", html)


def _balanced(html: str) -> bool:
    """Whether every mark is one that Telegram knows, closed in order, and nothing else looks like one."""
    stack: list[str] = []
    for match in _TAGS.finditer(html):
        if match[2] not in _KNOWN_TAGS:
            return False
        if not match[1]:
            stack.append(match[2])
        elif not stack or stack.pop() != match[2]:
            return False
    rest = _visible(html)
    return not stack and "<" not in rest and not re.search(r"&(?!lt;|gt;|amp;|quot;|#)", rest)


def _good_markup(markup: Any) -> bool:
    if markup is None:
        return True
    buttons = [button for row in markup["inline_keyboard"] for button in row]
    return all(
        one.get("text")
        and (("url" in one) != ("callback_data" in one))
        and len(one.get("callback_data", "").encode()) <= 64
        for one in buttons
    )


def _good_reply(reply: Any) -> bool:
    return reply is None or isinstance(reply.get("message_id"), int)


def _problem(refusal: _Refusal) -> JSONResponse:
    body: dict[str, Any] = {"ok": False, "error_code": refusal.status, "description": refusal.description}
    if refusal.parameters:
        body["parameters"] = dict(refusal.parameters)
    return JSONResponse(body, status_code=refusal.status)
