"""What we use of the package, in one place: it warns of its own classes while it defines them."""

from __future__ import annotations

import warnings

from roomkit.errors import MissingExtra

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    try:
        from chatkit.errors import (
            CustomStreamError,
        )
        from chatkit.server import (
            ChatKitServer,
            StreamingResult,
        )
        from chatkit.store import (
            AttachmentStore,
            NotFoundError,
            Store,
        )
        from chatkit.types import (
            AssistantMessageContent,
            AssistantMessageContentPartAdded,
            AssistantMessageContentPartDone,
            AssistantMessageContentPartTextDelta,
            AssistantMessageItem,
            Attachment,
            AttachmentCreateParams,
            AttachmentUploadDescriptor,
            ClientToolCallItem,
            ClosedStatus,
            FileAttachment,
            HiddenContextItem,
            ImageAttachment,
            LockedStatus,
            Page,
            ProgressUpdateEvent,
            SDKHiddenContextItem,
            ThreadItem,
            ThreadItemAddedEvent,
            ThreadItemDoneEvent,
            ThreadItemRemovedEvent,
            ThreadItemReplacedEvent,
            ThreadItemUpdatedEvent,
            ThreadMetadata,
            ThreadStreamEvent,
            UserMessageItem,
            UserMessageTextContent,
            WidgetItem,
        )
    except ImportError as error:
        raise MissingExtra("ChatKit's door", "openai-chatkit", "chatkit") from error

__all__ = [
    "AssistantMessageContent",
    "AssistantMessageContentPartAdded",
    "AssistantMessageContentPartDone",
    "AssistantMessageContentPartTextDelta",
    "AssistantMessageItem",
    "Attachment",
    "AttachmentCreateParams",
    "AttachmentStore",
    "AttachmentUploadDescriptor",
    "ChatKitServer",
    "ClientToolCallItem",
    "ClosedStatus",
    "CustomStreamError",
    "FileAttachment",
    "HiddenContextItem",
    "ImageAttachment",
    "LockedStatus",
    "NotFoundError",
    "Page",
    "ProgressUpdateEvent",
    "SDKHiddenContextItem",
    "Store",
    "StreamingResult",
    "ThreadItem",
    "ThreadItemAddedEvent",
    "ThreadItemDoneEvent",
    "ThreadItemRemovedEvent",
    "ThreadItemReplacedEvent",
    "ThreadItemUpdatedEvent",
    "ThreadMetadata",
    "ThreadStreamEvent",
    "UserMessageItem",
    "UserMessageTextContent",
    "WidgetItem",
]
