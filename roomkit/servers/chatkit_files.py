"""Files of ChatKit's threads: their cards in the channel's vault, their bytes in the kit's blob store.

A file belongs to whoever brought it, and to one thread from the message on that it was sent with. Nobody else can
fetch, send or delete it through this door; in the room it is a file like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from pydantic import AnyUrl, TypeAdapter

from roomkit.errors import StateError, UsageError
from roomkit.protocols.chatkit.items import plain
from roomkit.protocols.chatkit.package import (
    Attachment,
    AttachmentCreateParams,
    AttachmentStore,
    AttachmentUploadDescriptor,
    FileAttachment,
    ImageAttachment,
    NotFoundError,
)
from roomkit.servers.multipart import FormFile, file_of
from roomkit.servers.problems import TooLarge, UnsupportedType
from roomkit.servers.rest.media import signed

if TYPE_CHECKING:
    from starlette.requests import Request

    from roomkit.kit import RoomKit
    from roomkit.ports.blob import BlobStore
    from roomkit.ports.channel import VaultPort
    from roomkit.rooms import Rooms
    from roomkit.servers.door import Door

BASE: ContextVar[str | None] = ContextVar("chatkit base", default=None)
"""Where the page that asks reaches the app: links begin with it."""
UPLOAD, FETCH = "chatkit-upload", "chatkit-file"
MOST_NAME, MOST_ATTACHMENTS = 200, 20
UNSENT, UNSENT_S, MOST_UNSENT = "unsent", 86_400.0, 50
HERE = "this file has been uploaded already"
_attachments: TypeAdapter[Any] = TypeAdapter(Attachment)


def _key(attachment_id: str, owner: str) -> str:
    return f"attachment:{attachment_id} {owner}"


class ThreadFiles:
    """What is known of each attachment: the package's own `attachment`, `size`, and `url` once it is here. Cards are
    kept under their owners' names, and are erased with them."""

    def __init__(self, kit: RoomKit, rooms: Rooms, channel_id: str) -> None:
        self.kit = kit
        self.rooms = rooms
        self._channel_id = channel_id
        self._lock = asyncio.Lock()

    async def card(self, attachment_id: str, owner: str) -> dict[str, Any]:
        """Raises `NotFoundError` unless there is such an attachment of this owner's."""
        kept = await self._vault.get(_key(attachment_id, owner))
        if kept is None or kept.get("attachment") is None:
            raise NotFoundError(f"attachment {attachment_id} is not there")
        return kept

    async def load(self, attachment_id: str, owner: str) -> Attachment:
        return _attachments.validate_python((await self.card(attachment_id, owner))["attachment"])

    async def save(self, attachment: Attachment, owner: str, **more: Any) -> None:
        key = _key(attachment.id, owner)
        kept = await self._vault.get(key) or {}
        await self._vault.put(key, {**kept, "attachment": attachment.model_dump(mode="json"), **more})

    async def begin(self, attachment: Attachment, owner: str, **more: Any) -> None:
        """A new one, whose bytes are still to come. What nobody has sent for a day is dropped here. Raises `StateError`
        where too many of this owner's wait to be sent."""
        who, now = self.kit.tokens.pseudonym("chatkit", owner), self.kit.engine.now().timestamp()
        async with self._lock:
            unsent = await self._unsent()
            for name in [name for name, one in unsent.items() if one["at"] < now - UNSENT_S]:
                await self.drop(unsent.pop(name).get("url"))
            if sum(one["by"] == who for one in unsent.values()) >= MOST_UNSENT:
                raise StateError(f"{MOST_UNSENT} files wait to be sent; send or delete some of them")
            unsent[attachment.id] = {"by": who, "at": now}
            await self._vault.put(UNSENT, {"files": unsent})
        await self.save(attachment, owner, **more)

    async def delete(self, attachment_id: str, owner: str) -> None:
        """Its bytes as well, also where it was sent. Nothing happens to what is somebody else's."""
        try:
            card = await self.card(attachment_id, owner)
        except NotFoundError:
            return
        await self._vault.put(_key(attachment_id, owner), {})
        await self.drop(card.get("url"))
        await self._settle(attachment_id, None)

    async def uploaded(self, attachment_id: str, url: str, owner: str) -> Attachment:
        """The file of an attachment has come, and is kept at `url`."""
        card = await self.card(attachment_id, owner)
        attachment = _attachments.validate_python({**card["attachment"], "upload_descriptor": None})
        await self.save(attachment, owner, url=url)
        await self._settle(attachment_id, url)
        return attachment

    async def sendable(self, attachment_ids: Sequence[str], owner: str, thread_id: str | None) -> None:
        """Raises `NotFoundError` for what is not the owner's, `StateError` for what has not come yet or was sent in
        another thread, and `UsageError` for too many."""
        if len(attachment_ids) > MOST_ATTACHMENTS:
            raise UsageError(f"a message has at most {MOST_ATTACHMENTS} attachments")
        for attachment_id in attachment_ids:
            card = await self.card(attachment_id, owner)
            if not card.get("url"):
                raise StateError(f"attachment {attachment_id} has not been uploaded yet; upload it first")
            if not await self._there(card["url"]):
                raise NotFoundError(f"attachment {attachment_id} is not there any more")
            if card["attachment"].get("thread_id") not in (None, thread_id):
                raise StateError(f"attachment {attachment_id} was sent in another thread; upload it again")

    async def urls(self, attachments: Sequence[Attachment], owner: str, room_id: str) -> dict[str, str]:
        """Where the bytes are that go with a message into a room, by id: those of our store become the room's."""
        found: dict[str, str] = {}
        for attachment in attachments:
            card = await self._vault.get(_key(attachment.id, owner))
            if card is None or not card.get("url"):
                continue
            url = await self._into(room_id, str(card["url"]))
            if url is None:
                continue
            found[attachment.id] = url
            if url != card["url"]:
                await self.save(attachment, owner, url=url)
                await self.drop(card["url"])
            await self._settle(attachment.id, None)
        return found

    async def drop(self, url: str | None) -> None:
        if url is not None and url.startswith("blob:"):
            await self.blobs.delete(self.rooms.tenant_id, url.removeprefix("blob:"))

    @property
    def blobs(self) -> BlobStore:
        return self.kit.blobs

    async def _into(self, room_id: str, url: str) -> str | None:
        """A file is uploaded before its thread is known, and rooms read only their own. None: it is another room's."""
        if not url.startswith("blob:"):
            return url
        tenant, blob_id = self.rooms.tenant_id, url.removeprefix("blob:")
        info = await self.blobs.info(tenant, blob_id)
        if info is None or info.room_id is not None:
            return url if info is not None and info.room_id == room_id else None
        data = self.blobs.read(tenant, blob_id)
        new = await self.blobs.put(tenant, data, mime_type=info.mime_type, filename=info.filename, room_id=room_id)
        return f"blob:{new.id}"

    async def _there(self, url: str) -> bool:
        blob_id = url.removeprefix("blob:")
        return blob_id == url or await self.blobs.info(self.rooms.tenant_id, blob_id) is not None

    async def _settle(self, attachment_id: str, url: str | None) -> None:
        """An attachment that waits to be sent has its bytes now; without `url` it waits no more."""
        async with self._lock:
            unsent = await self._unsent()
            if (one := unsent.pop(attachment_id, None)) is not None:
                if url is not None:
                    unsent[attachment_id] = {**one, "url": url}
                await self._vault.put(UNSENT, {"files": unsent})

    async def _unsent(self) -> dict[str, dict[str, Any]]:
        """By id: `at`, `url`, and `by`, a pseudonym, because this is kept when a person is erased."""
        return dict((await self._vault.get(UNSENT) or {}).get("files", {}))

    @property
    def _vault(self) -> VaultPort:
        port = self.kit.engine.channels[self._channel_id].port
        assert port is not None, "a registered channel has its port"
        return port.vault


class RoomAttachments(AttachmentStore[Any]):
    """The package's attachment store, for both of its strategies: in two phases (`attachments.create`, then the form to
    the link that it returned) and direct (the form to `POST /files`). Types and sizes are those of `ServerOptions`."""

    def __init__(self, files: ThreadFiles, user_of: Callable[[Any], str]) -> None:
        self.files = files
        self._user_of = user_of
        self.door: Door | None = None
        """The app's; without one nothing can be uploaded."""

    async def create_attachment(self, input: AttachmentCreateParams, context: Any) -> Attachment:
        if self.door is None:
            raise NotImplementedError("uploads need chatkit_app")
        if input.size < 1:
            raise UsageError("the file is empty")
        self._check(self.door, input.mime_type, input.size)
        owner = self._user_of(context)
        attachment = self._made(input.name, input.mime_type, owner)
        await self.files.begin(attachment, owner, size=input.size)
        where = AttachmentUploadDescriptor(url=self._link(UPLOAD, attachment.id, owner), method="POST")
        return attachment.model_copy(update={"upload_descriptor": where})

    async def delete_attachment(self, attachment_id: str, context: Any) -> None:
        """The package has its store delete the rest. Raises `NotFoundError` for what is somebody else's."""
        await self.files.card(attachment_id, self._user_of(context))

    async def upload(self, request: Request, attachment_id: str) -> Attachment:
        """The second phase, by the link of the first. Raises `AccessDenied`, `NotFoundError`, what `file_of` raises."""
        assert self.door is not None, "there is an app"
        owner = self.owner(UPLOAD, attachment_id, request)
        card = await self.files.card(attachment_id, owner)
        if card.get("url"):
            raise StateError(HERE)
        form = await file_of(request, min(int(card["size"]), self.door.options.media_bytes))
        url = await self._put(form, card["attachment"]["mime_type"])
        try:
            if (await self.files.card(attachment_id, owner)).get("url"):
                raise StateError(HERE)
            return self.fresh(await self.files.uploaded(attachment_id, url, owner), owner)
        except BaseException:
            await self.files.drop(url)  # It was deleted meanwhile, or came twice at once.
            raise

    async def direct(self, request: Request, context: Any) -> Attachment:
        """The form alone: card and bytes at once."""
        assert self.door is not None, "there is an app"
        form = await file_of(request, self.door.options.media_bytes)
        self._check(self.door, form.mime_type, 0)
        owner = self._user_of(context)
        attachment = self._made(form.filename or "file", form.mime_type, owner)
        await self.files.begin(attachment, owner)
        try:
            return await self.files.uploaded(attachment.id, await self._put(form, form.mime_type), owner)
        except BaseException:
            await self.files.delete(attachment.id, owner)
            raise

    def fresh(self, attachment: Attachment, owner: str) -> Attachment:
        """With a preview that works now: its links expire."""
        if self.door is None or BASE.get() is None or not isinstance(attachment, ImageAttachment):
            return attachment
        return attachment.model_copy(update={"preview_url": self._link(FETCH, attachment.id, owner)})

    def link(self, url: str) -> str | None:
        """Where a page fetches a file of a room: of our own by a link that expires."""
        if not url.startswith("blob:") or self.door is None or (base := BASE.get()) is None:
            return plain(url)
        tenant, blob_id = self.files.rooms.tenant_id, url.removeprefix("blob:")
        return f"{base}{signed(self.door, blob_id, tenant, self.door.options.media_link_s)[0]}"

    def owner(self, purpose: str, attachment_id: str, request: Request) -> str:
        """Whose attachment it is, by a link of ours. Raises `AccessDenied` for any other."""
        assert self.door is not None, "there is an app"
        query = request.query_params
        owner, expires = query.get("o", ""), query.get("e", "")
        number = float(expires) if expires.isascii() and expires.isdecimal() and len(expires) < 15 else 0.0
        self.door.kit.tokens.check(purpose, self._claim(attachment_id, owner), number, query.get("s", ""))
        return owner

    async def _put(self, form: FormFile, mime_type: str) -> str:
        tenant = self.files.rooms.tenant_id
        info = await self.files.blobs.put(tenant, form.data, mime_type=mime_type, filename=form.filename)
        return f"blob:{info.id}"

    def _check(self, door: Door, mime_type: str, size: int) -> None:
        if mime_type.partition(";")[0].strip().lower() not in door.options.media_types:
            raise UnsupportedType(f'files of type "{mime_type[:80]}" are not accepted')
        if size > door.options.media_bytes:
            raise TooLarge(f"a file has at most {door.options.media_bytes} bytes")

    def _made(self, name: str, mime_type: str, owner: str) -> Attachment:
        attachment_id = f"atc_{self.files.kit.engine.new_id()}"
        if mime_type.startswith("image/"):
            preview = self._link(FETCH, attachment_id, owner)
            return ImageAttachment(id=attachment_id, name=name[:MOST_NAME], mime_type=mime_type, preview_url=preview)
        return FileAttachment(id=attachment_id, name=name[:MOST_NAME], mime_type=mime_type)

    def _link(self, purpose: str, attachment_id: str, owner: str) -> AnyUrl:
        assert self.door is not None, "there is an app"
        expires_at = float(int(self.door.now() + self.door.options.media_link_s))
        proof = self.door.kit.tokens.sign(purpose, self._claim(attachment_id, owner), expires_at)
        base = BASE.get() or self.door.options.base_url or "http://localhost"
        return AnyUrl(f"{base}/files/{attachment_id}?{urlencode({'o': owner, 'e': int(expires_at), 's': proof})}")

    def _claim(self, attachment_id: str, owner: str) -> str:
        return f"{self.files.rooms.tenant_id}\n{attachment_id}\n{owner}"


__all__ = ["RoomAttachments", "ThreadFiles"]
