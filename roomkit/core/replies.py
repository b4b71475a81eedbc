"""Reply: pulls a brain's stream, shows it while it grows, checkpoints it, and ends as one committed event (D18)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from roomkit.core import messages
from roomkit.core.actor import Change, Entry, RoomActor
from roomkit.core.checkpoint import EVERY_CHARS, WORDS, Checkpoint
from roomkit.core.journal import ToolJournal
from roomkit.core.policy import effective_visibility
from roomkit.core.results import Settlement
from roomkit.core.state import key
from roomkit.core.streams import OpenStream
from roomkit.models.content import TextContent, valid, valid_text
from roomkit.models.event import EventDraft, EventSource, RoomEvent
from roomkit.models.hooks import BeforeCommit, Thought
from roomkit.models.stream import Ephemeral, ReplyEnd, ReplyPart, StreamStart, TextDelta, ThinkingDelta, ToolStep
from roomkit.ports.channel import ChannelOutput
from roomkit.ports.store import Record, RecordKey
from roomkit.runtime import monotonic
from roomkit.runtime.crashpoint import crashpoint

if TYPE_CHECKING:
    from roomkit.core.engine import Engine
    from roomkit.core.hooks import Outcome

_SENTENCE = re.compile(r"(?<=[.!?…])\s+|\n+")


class Reply:
    """One answer in the making. `id` is reserved for its event from the start."""

    def __init__(self, engine: Engine, actor: RoomActor, channel_id: str, cause: RoomEvent, *, depth: int) -> None:
        self.engine = engine
        self.actor = actor
        self.channel_id = channel_id
        self.cause = cause
        self.depth = depth
        self.id = engine.new_id()
        self.floor_generation = actor.state.room.floor.generation
        self.settlement: Settlement | None = None
        self.turn_rows: list[RecordKey] = []
        self.event: RoomEvent | None = None
        self.end_reason = "completed"
        self.error: str | None = None
        self.usage: dict[str, int] = {}
        self.metadata: dict[str, Any] = {}
        self.first_token_at: float | None = None
        self._held = self._half = self._unshown = ""
        self._veil = engine.redactions.stream(actor.tenant) if engine.redactions is not None else None
        self._stream: OpenStream | None = None
        self._stopped = False
        self.checkpoint = Checkpoint(actor, self._record)
        self.journal = ToolJournal(self)
        self._mode = "pass"
        self._blocked: tuple[str, str] | None = None
        self._sides: Outcome | None = None

    @property
    def text(self) -> str:
        """What was shown, and what the guards held back to the end or stopped."""
        return self._unshown if self._stream is None else self._stream.text + self._unshown

    @property
    def source(self) -> EventSource:
        binding = self.actor.state.bindings.get(self.channel_id)
        kind = binding.channel_type if binding else "ai"
        return EventSource.made(
            channel_id=self.channel_id,
            channel_type=kind,
            direction="outbound",
            participant_id=binding.participant_id if binding else None,
            provider=kind,
        )

    def rows(self) -> list[RecordKey]:
        """The rows that leave with the reply."""
        if not self.checkpoint.begun:
            return []
        tenant, own = self.actor.tenant, key(self.actor.room_id, self.id)
        segments = [RecordKey(WORDS, tenant, key(own, start)) for start in self.checkpoint.segments]
        return [RecordKey("stream", tenant, own), *segments]

    @property
    def over(self) -> bool:
        return self._stopped

    def ended(self, reason: str, event: RoomEvent | None) -> None:
        """The end is committed: nothing of this reply is shown or kept from here on."""
        self._stopped = True
        self.checkpoint.stop()
        self.event = event
        if event is None:
            self.actor.hub.fail(self.id, reason)

    def abandon(self) -> None:
        """Another process ends it: nothing of it is shown or written here any more."""
        self._stopped = True
        self.checkpoint.stop()

    # -- growing --------------------------------------------------------------------------------------------------

    async def pull(self, stream: AsyncIterator[ReplyPart]) -> None:
        """Takes the stream to its end; it is closed on every exit."""
        await self._begin()
        checkpoint, sentences = self.checkpoint, self._mode == "sentence"
        say = self._emit if self._mode == "pass" and self._veil is None else self._say
        async with aclosing(cast("Any", stream)) as parts:
            async for part in parts:
                if self._stopped:
                    break
                text = part.text if type(part) is TextDelta else _text_of(part)
                if text is not None:
                    say(text if text.isascii() and not self._half else self._whole(text))
                    if sentences:
                        await self._release(final=False)
                        if self._blocked:
                            break
                    elif checkpoint.unsaved >= EVERY_CHARS:
                        await checkpoint.save_quietly()
                elif isinstance(part, ToolStep):
                    await self.journal.step(part)
                elif isinstance(part, ThinkingDelta):
                    self._think(valid_text(part.text))
                else:
                    self._end(cast("ReplyEnd", part))
        if self._half and not self._blocked:
            self._say(valid_text(self._half))
        if self._veil is not None and not self._blocked:
            rest, self._veil = self._veil.close(), None
            self._say(rest)
        if self._held and not self._blocked:
            await self._release(final=True)

    async def _begin(self) -> None:
        await self.checkpoint.begin()
        if self.engine.hooks.guarded(BeforeCommit):
            self._mode = self.engine.hooks.stream_mode(self._moment(""))

    def _moment(self, text: str) -> BeforeCommit:
        binding = self.actor.state.bindings.get(self.channel_id)
        channel_type = binding.channel_type if binding else ""
        return BeforeCommit(self.actor.state.room, self._draft(text), self.channel_id, channel_type, "outbound")

    def _whole(self, delta: str) -> str:
        """Valid text: half a character at the end waits for its other half."""
        delta = self._half + delta
        cut = len(delta) - 1 if "\ud800" <= delta[-1:] <= "\udbff" else len(delta)
        self._half = delta[cut:]
        return valid_text(delta[:cut])

    def _say(self, delta: str) -> None:
        """Veils a delta, and shows it at once or holds it for the guards."""
        if delta and self.first_token_at is None:
            self.first_token_at = monotonic()
        if self._veil is not None:
            delta = self._veil.feed(delta)
        if self._mode != "pass":
            self._held += delta
        elif delta:
            self._emit(delta)

    async def _release(self, *, final: bool) -> None:
        """Lets go of whole sentences that the guards have passed; withheld text waits for the commit."""
        if self._mode == "withhold":
            if final:
                self._unshown, self._held = self._held, ""
            return
        cut = len(self._held) if final else _last_border(self._held)
        if cut <= 0:
            return
        sentence, self._held = self._held[:cut], self._held[cut:]
        outcome = await self.engine.hooks.run(self._moment(sentence))
        self._sides = outcome.joined(self._sides)
        if outcome.blocked_by:
            self._unshown = sentence
            self._blocked = (outcome.blocked_by, outcome.reason)
            return
        content = outcome.value.content
        self._emit(valid_text(content.text) if isinstance(content, TextContent) else sentence)

    def _emit(self, delta: str) -> None:
        if not delta or self._stopped:
            return
        self.actor.hub.chunk(self._stream or self._open(), delta)
        if self.checkpoint.begun:
            self.checkpoint.grew(len(delta))

    def _open(self) -> OpenStream:
        actor, bindings = self.actor, self.actor.state.bindings
        if self.first_token_at is None:
            self.first_token_at = monotonic()
        start = StreamStart.made(
            room_id=actor.room_id, stream_id=self.id, source=self.source, parent_event_id=self.cause.parent_event_id
        )
        visibility = effective_visibility("all", bindings.get(self.channel_id))
        stream = self._stream = OpenStream(start, visibility, bindings, self._silent)
        actor.hub.begin(stream)
        return stream

    def _silent(self) -> bool:
        """A muted brain goes on thinking, but nobody hears it."""
        state = self.actor.state
        binding = state.bindings.get(self.channel_id)
        return binding is None or binding.muted or not binding.can_write or not state.room.open or self._too_deep()

    def _too_deep(self) -> bool:
        return self.depth >= self.engine.options.max_chain_depth

    def _think(self, text: str) -> None:
        actor = self.actor
        if not actor.hub.idle:
            data = {"stream_id": self.id, "text": text}
            thought = Ephemeral(
                kind="thinking", room_id=actor.room_id, sender=self.channel_id, visibility="internal", data=data
            )
            actor.hub.ephemeral(thought, actor.state.bindings)
        if self.engine.hooks.heard(Thought):
            self.engine.hooks.tell(Thought(actor.tenant, actor.room_id, self.channel_id, text))

    def _end(self, end: ReplyEnd) -> None:
        self.end_reason, self.usage, self.error = valid_text(end.reason), dict(valid(end.usage)), end.error
        self.metadata.update(valid(end.metadata))

    def _record(self, start: int) -> Record:
        value = {
            "id": self.id,
            "channel": self.channel_id,
            "text": self._stream.text[start:] if self._stream is not None and self._mode != "withhold" else "",
            "start": start,
            "cause": self.cause.id,
            "cause_index": self.cause.index,
            "parent": self.cause.parent_event_id,
            "depth": self.depth,
            "turns": [row.key for row in self.turn_rows],
        }
        return Record("stream", self.actor.tenant, key(self.actor.room_id, self.id), value, self.actor.room_id)

    # -- the end --------------------------------------------------------------------------------------------------

    def _draft(self, text: str, **metadata: Any) -> EventDraft:
        return EventDraft.made(
            event_id=self.id,
            source=self.source,
            content=TextContent.made(text=text),
            chain_depth=self.depth,
            parent_event_id=self.cause.parent_event_id,
            correlation_id=self.cause.id,
            metadata={**self.metadata, **metadata},
        )

    async def close(self, output: ChannelOutput | None = None) -> None:
        """Commits the reply under the same gates as any other event; empty ones leave no message."""
        await self.checkpoint.hold()
        crashpoint("reply.before_commit")
        await self.actor.insist(self._commit_close, output)
        crashpoint("reply.after_commit")

    async def _commit_close(self, actor: RoomActor, output: ChannelOutput | None) -> None:
        if self._stopped:
            return
        rows, text = [*self.rows(), *self.turn_rows], self.text
        if not text:
            await messages.forget(actor, rows, output, self._sides)
            self.ended(self.end_reason, None)
            return
        metadata: dict[str, Any] = {"end_reason": self.end_reason}
        if self.usage:
            metadata["usage"] = self.usage
        if self.end_reason in ("error", "cancelled", "timeout", "interrupted"):
            metadata["interrupted"] = self.end_reason
        draft = self._draft(text, **metadata)
        event = await messages.submit_reply(
            actor, draft, self.floor_generation, rows, output, self.settlement, self.id, self._blocked, self._sides
        )
        self.ended("room_closed", event)

    async def cut(self, change: Change, reason: str) -> Entry | None:
        """Adds the reply as it stands, and the one answer of every open call, to somebody's commit; None when nothing
        was said yet. Words that were cut short pass the same gate as whole ones. Nothing is over before `ended`; if the
        commit fails, `checkpoint.go_on` lets the reply grow on."""
        await self.checkpoint.hold()
        self.journal.cancel(change, reason)
        change.delete.extend(self.rows())
        change.delete.extend(self.turn_rows)
        messages.add_sides(self.actor, change, self._sides)
        text = self.text if self._mode != "withhold" else ""
        if not text or not self.actor.state.room.open:
            return None
        draft = self._draft(text, end_reason="error" if self.error else "cancelled", interrupted=reason)
        return await messages.cut_short(self.actor, change, draft, self.floor_generation, self._blocked)

    async def close_interrupted(self, reason: str) -> None:
        """Ends the reply with what it has said so far; tool calls without an answer are closed as cancelled."""
        await self.actor.insist(self._commit_interrupted, reason)

    async def _commit_interrupted(self, actor: RoomActor, reason: str) -> None:
        if self._stopped:
            return
        change = Change(settlement=self.settlement)
        entry = await self.cut(change, reason)
        done = await actor.commit(change)
        event = done[change.entries.index(entry)] if entry is not None and isinstance(done, list) else None
        self.ended(reason, event)


def _text_of(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    return part.text if isinstance(part, TextDelta) else None


def _last_border(text: str) -> int:
    end = 0
    for match in _SENTENCE.finditer(text):
        end = match.end()
    return end
