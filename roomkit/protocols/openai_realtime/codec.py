"""OpenAIRealtimeCodec: one session's state machine. JSON objects in, events out, JSON objects to be sent."""

from __future__ import annotations

import base64
import binascii
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from roomkit.errors import BadResponse, ProviderError, RateLimited, Refused, RemoteProtocolError, Unavailable
from roomkit.models import realtime as rt
from roomkit.models.ai import ToolCallPart, ToolSpec, Usage
from roomkit.models.audio import AudioFrame
from roomkit.models.realtime import PastTurn, RealtimeCommand, RealtimeConfig, RealtimeEvent
from roomkit.protocols.openai_realtime.session import RATE, item_of, session_of

JSON = dict[str, Any]
MIN_COMMIT_MS = 100
"""The vendor refuses to commit less sound than this."""
_MOST_KNOWN = 2_000
_OLD_NAMES = {
    "response.audio.delta": "response.output_audio.delta",
    "response.audio.done": "response.output_audio.done",
    "response.audio_transcript.delta": "response.output_audio_transcript.delta",
    "response.audio_transcript.done": "response.output_audio_transcript.done",
    "response.text.delta": "response.output_text.delta",
    "response.text.done": "response.output_text.done",
}
"""Compatible endpoints may still use the names of the beta."""
_HARMLESS = frozenset({"response_cancel_not_active", "conversation_already_has_active_response"})
_EXPIRED = frozenset({"session_expired"})


@dataclass(frozen=True, slots=True)
class WireTools:
    """The tools of a session as the vendor takes them; `ours` is the tool's own name for one of the vendor's."""

    listed: Sequence[JSON]
    ours: Callable[[str], str]


@dataclass(slots=True)
class _Item:
    """An item that the model says: how much of its sound has come, and in which part of its content."""

    response_id: str
    received_ms: float = 0.0
    part: int = 0
    text: str | None = None
    cut: bool = False


class OpenAIRealtimeCodec:
    """One session. `receive` takes a server event, `send` a command; both may leave client events in `to_send`."""

    def __init__(
        self,
        config: RealtimeConfig,
        *,
        tools: Callable[[Sequence[ToolSpec]], WireTools],
        transcription_model: str | None = "gpt-4o-mini-transcribe",
        vendor: str = "openai",
    ) -> None:
        self._config = config
        self._make_tools = tools
        self._tools = tools(config.tools)
        self._transcription = transcription_model
        self._vendor = vendor
        self._out: list[JSON] = []
        self._numbers = itertools.count(1)
        self._seen: dict[str, None] = {}
        self._items: dict[str, _Item] = {}
        self._partial: dict[str, str] = {}
        self._calls: dict[str, str] = {}
        """Calls without an answer, and the response that asked."""
        self._setting_up = ""
        self._ready = False
        self._active = ""
        self._creating = ""
        """Our `response.create` that has no response yet."""
        self._asked = ""
        """The last of them; a refusal may come after a response that is not its own has begun."""
        self._wanted = False
        self._server_cancels = False
        self._appended_ms = 0.0

    # -- what the adapter asks ------------------------------------------------------------------------

    @property
    def owes(self) -> bool:
        """The vendor has something to tell: a response was asked for or is under way."""
        return bool(self._creating or self._active) or not self._ready

    def to_send(self) -> list[str]:
        """What is to be sent now, in order."""
        out, self._out = self._out, []
        return [json.dumps(message, ensure_ascii=False, separators=(",", ":")) for message in out]

    # -- commands -------------------------------------------------------------------------------------

    def send(self, command: RealtimeCommand) -> None:
        match command:
            case rt.AppendAudio(pcm=pcm):
                self._appended_ms += len(pcm) * 500 / RATE
                self._say("input_audio_buffer.append", audio=base64.b64encode(pcm).decode())
            case rt.UserSpeech(speaking=speaking):
                if not speaking:
                    self._commit()
            case rt.InjectText(text=text, role=role, respond=respond):
                self._say("conversation.item.create", item=item_of(PastTurn(role, text)))
                if respond:
                    self._respond()
            case rt.ToolAnswer():
                self._answer(command)
            case rt.CutReply(item_id=item_id, played_ms=played_ms):
                self._cut(item_id, played_ms)
            case rt.Respond():
                self._respond()
            case rt.ForgetInput():
                self._appended_ms = 0
                self._say("input_audio_buffer.clear")
            case rt.Reconfigure(config=config):
                self._config, self._tools = config, self._make_tools(config.tools)
                self._update()

    def _say(self, kind: str, **fields: Any) -> str:
        name = f"rk_{next(self._numbers)}"
        self._out.append({"type": kind, "event_id": name, **fields})
        return name

    def _update(self) -> str:
        session = session_of(self._config, self._tools.listed, transcription_model=self._transcription)
        return self._say("session.update", session=session)

    def _commit(self) -> None:
        """With our own VAD: what was said is complete."""
        if self._appended_ms < MIN_COMMIT_MS:
            self._say("input_audio_buffer.clear")
        else:
            self._say("input_audio_buffer.commit")
            if self._config.responds:
                self._respond()
        self._appended_ms = 0

    def _respond(self) -> None:
        """One response at a time: another one is asked for when this is over."""
        if self._active or self._creating:
            self._wanted = True
        else:
            self._wanted = False
            self._creating = self._asked = self._say("response.create")

    def _answer(self, answer: rt.ToolAnswer) -> None:
        response = self._calls.pop(answer.call_id, None)
        if response is None:
            return
        item = {"type": "function_call_output", "call_id": answer.call_id, "output": answer.output}
        self._say("conversation.item.create", item=item)
        if response not in self._calls.values() and (self._wanted or not answer.silent):
            self._respond()

    def _cut(self, item_id: str | None, played_ms: int) -> None:
        if self._active and not self._server_cancels:
            self._say("response.cancel", response_id=self._active)
            self._server_cancels = True
        item = self._items.get(item_id or "")
        if item is None or item.cut or not item.received_ms:
            return
        item.cut = True
        # Never beyond what has come: that would be an error.
        end = max(0, min(played_ms, int(item.received_ms)))
        self._say("conversation.item.truncate", item_id=item_id, content_index=item.part, audio_end_ms=end)

    # -- server events --------------------------------------------------------------------------------

    def receive(self, data: str | bytes) -> list[RealtimeEvent]:
        """Raises `ProviderError` for what ends the session, `RemoteProtocolError` for what is no event."""
        event = _read(data)
        name = event.get("event_id")
        if isinstance(name, str) and name:
            if name in self._seen:
                return []
            self._seen[name] = None
            if len(self._seen) > _MOST_KNOWN:
                del self._seen[next(iter(self._seen))]
        kind = _OLD_NAMES.get(str(event.get("type")), str(event.get("type")))
        try:
            return self._event(kind, event)
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
            raise RemoteProtocolError(
                f"{kind} is not what the vendor documents ({error!r})", offending=event
            ) from error

    def _event(self, kind: str, event: JSON) -> list[RealtimeEvent]:
        match kind.partition("."):
            case ("session", _, rest):
                return self._session(rest, event)
            case ("error", _, _):
                return self._error(event["error"])
            case ("input_audio_buffer", _, rest):
                return self._input(rest, event)
            case ("conversation", _, rest):
                return self._conversation(rest, event)
            case ("response", _, rest):
                return self._response(rest, event)
            case ("rate_limits", _, _):
                return [_limit(each) for each in cast("list[JSON]", event["rate_limits"])]
            case _:
                return []  # the vendor adds kinds without notice

    def _session(self, rest: str, event: JSON) -> list[RealtimeEvent]:
        if rest == "created" and not self._setting_up:
            self._setting_up = self._update()
            for turn in self._config.history:
                self._say("conversation.item.create", item=item_of(turn))
        elif rest == "updated" and not self._ready:
            self._ready = True
            return [rt.SessionReady(str(event["session"].get("id") or ""))]
        return []

    def _error(self, error: JSON) -> list[RealtimeEvent]:
        code, message = str(error.get("code") or ""), str(error.get("message") or "no reason given")
        about = error.get("event_id")
        if about is not None and about == self._asked:
            self._asked = self._creating = ""
            if code == "conversation_already_has_active_response":  # the server's own was there first
                self._respond()
        if code in _HARMLESS or "cancel" in code:
            return []
        told = self._told(error, message, code)
        if code in _EXPIRED:
            raise Unavailable(self._vendor, message, code=code)
        if not self._ready and (about is None or about == self._setting_up):
            raise told
        return [rt.Complaint(told)]

    def _told(self, error: Mapping[str, Any], message: str, code: str) -> ProviderError:
        kind = str(error.get("type") or "")
        if "rate_limit" in code or "rate_limit" in kind:
            return RateLimited(self._vendor, message, code=code or kind)
        if kind == "server_error" or code == "server_error":
            return Unavailable(self._vendor, message, code=code or kind)
        if code == "content_filter":
            return Refused(self._vendor, message, code=code)
        return BadResponse(self._vendor, message, code=code or kind or None)

    def _input(self, rest: str, event: JSON) -> list[RealtimeEvent]:
        item_id = str(event.get("item_id") or "")
        match rest:
            case "speech_started":
                if self._active and self._config.interruptible:
                    self._server_cancels = True
                return [rt.SpeechBegan(item_id)]
            case "speech_stopped":
                return [rt.SpeechStopped(item_id)]
            case "committed":
                self._appended_ms = 0
                return [rt.SpeechStopped(item_id)] if self._config.own_vad else []
            case _:
                return []

    def _conversation(self, rest: str, event: JSON) -> list[RealtimeEvent]:
        item_id = str(event.get("item_id") or "")
        match rest:
            case "item.input_audio_transcription.delta":
                text = self._partial[item_id] = self._partial.get(item_id, "") + str(event.get("delta") or "")
                return [rt.UserText(item_id, text, final=False)]
            case "item.input_audio_transcription.completed":
                self._partial.pop(item_id, None)
                return [rt.UserText(item_id, str(event["transcript"]))]
            case "item.input_audio_transcription.failed":
                self._partial.pop(item_id, None)
                return [rt.UserTextFailed(item_id, str(event["error"].get("message") or ""))]
            case _:
                return []

    def _response(self, rest: str, event: JSON) -> list[RealtimeEvent]:
        if rest == "created":
            if not self._creating:  # the server's own answers what we would have asked for, too
                self._wanted = False
            self._active, self._creating, self._server_cancels = str(event["response"]["id"]), "", False
            return [rt.ReplyBegan(self._active)]
        if rest == "done":
            return self._done(event["response"])
        reply, item_id = str(event.get("response_id") or ""), str(event.get("item_id") or "")
        match rest:
            case "output_audio.delta":
                pcm = base64.b64decode(event["delta"], validate=True)
                item = self._item(reply, item_id)
                frame = AudioFrame(pcm, RATE, round(item.received_ms * RATE / 1000))
                item.received_ms += frame.duration_ms
                item.part = int(event.get("content_index") or 0)
                return [rt.ReplyAudio(reply, item_id, frame)]
            case "output_audio_transcript.delta" | "output_text.delta":
                return [rt.ReplyText(reply, item_id, str(event["delta"]))]
            case "output_audio_transcript.done":
                self._item(reply, item_id).text = str(event["transcript"])
            case "output_text.done":
                self._item(reply, item_id).text = str(event["text"])
            case "output_item.done":
                return self._item_done(reply, event["item"])
            case _:
                pass
        return []

    def _item(self, reply: str, item_id: str) -> _Item:
        item = self._items.get(item_id)
        if item is None:
            item = self._items[item_id] = _Item(reply)
            if len(self._items) > _MOST_KNOWN:
                del self._items[next(iter(self._items))]
        return item

    def _item_done(self, reply: str, told: JSON) -> list[RealtimeEvent]:
        if told.get("type") != "message":
            return []
        item_id = str(told["id"])
        text = self._items[item_id].text if item_id in self._items else None
        return [rt.ReplySaid(reply, item_id, text if told.get("status") == "completed" else None)]

    def _done(self, response: JSON) -> list[RealtimeEvent]:
        reply, status = str(response["id"]), str(response.get("status") or "completed")
        if reply == self._active:
            self._active, self._server_cancels = "", False
        events: list[RealtimeEvent] = []
        if status == "completed":  # a reply that was cut off has asked for nothing
            output = cast("list[JSON]", response.get("output") or [])
            asked = [item for item in output if item.get("type") == "function_call"]
            events += [rt.ToolAsked(reply, self._call(reply, item)) for item in asked]
        details = _object(response.get("status_details"))
        error = _object(details.get("error"))
        reason = str(details.get("reason") or error.get("message") or error.get("code") or "")
        if status == "failed":
            events.append(rt.Complaint(self._told(error, reason or "the reply failed", str(error.get("code") or ""))))
        known = status if status in ("completed", "cancelled", "failed", "incomplete") else "incomplete"
        events.append(rt.ReplyOver(reply, cast("Any", known), reason, _usage(_object(response.get("usage")))))
        if self._wanted and not self._active and not self._creating and reply not in self._calls.values():
            self._respond()  # else with the last answer to what it has asked for
        return events

    def _call(self, reply: str, item: JSON) -> ToolCallPart:
        call_id, raw = str(item["call_id"]), str(item.get("arguments") or "{}")
        self._calls[call_id] = reply
        try:
            arguments: Any = json.loads(raw)
        except (ValueError, RecursionError):
            arguments = None
        name = self._tools.ours(str(item["name"]))
        if isinstance(arguments, dict):
            return ToolCallPart(call_id=call_id, name=name, arguments=cast("JSON", arguments))
        return ToolCallPart(call_id=call_id, name=name, arguments={}, malformed=raw)


def _limit(told: JSON) -> rt.LimitsTold:
    remaining, reset_s = int(told.get("remaining") or 0), float(told.get("reset_seconds") or 0)
    return rt.LimitsTold(str(told.get("name")), remaining, reset_s)


def _usage(told: JSON) -> Usage:
    cached = int(_object(told.get("input_token_details")).get("cached_tokens") or 0)
    return Usage(int(told.get("input_tokens") or 0), int(told.get("output_tokens") or 0), cached)


def _object(value: Any) -> JSON:
    return cast("JSON", value) if isinstance(value, dict) else {}


def _read(data: str | bytes) -> JSON:
    try:
        event: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("a server event is no JSON", offending=data[:200]) from error
    if not isinstance(event, dict) or not isinstance(cast("JSON", event).get("type"), str):
        raise RemoteProtocolError("a server event is an object with a type", offending=data[:200])
    return cast("JSON", event)
