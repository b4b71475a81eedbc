"""TwilioMediaBackend: phone calls by Twilio Media Streams.

Point the number's voice webhook at `POST /voice/{channel}` of `kit.asgi(public_url=...)`. The answer connects the call
to the web socket of the same address, with a ticket that is good for one connection within a minute; the upgrade must
be signed by Twilio as well.

When the socket closes, Twilio waits two seconds and asks the webhook again. A call that we hung up ends then; one whose
server went away is connected again, and its session has `metadata["again"]`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from html import escape
from typing import Any, Literal

from roomkit.dsp.conceal import Concealer
from roomkit.dsp.framing import Reblock
from roomkit.dsp.g711 import pcm_to_ulaw, ulaw_to_pcm
from roomkit.errors import AccessDenied, ConfigError, ProtocolError, SessionEnded
from roomkit.models.audio import FRAME_MS, AudioFrame, DtmfDigit, VoiceSession
from roomkit.models.delivery import WebhookReply, WebhookRequest
from roomkit.net.redaction import register_secret
from roomkit.ports.audio import BackendTraits, SocketLine
from roomkit.protocols.twilio_media import Digit, Mark, Media, Start, Stop, TwilioMedia
from roomkit.providers.live_audio import LiveBackend, LiveCall
from roomkit.providers.twilio.signature import TwilioKeys, form_of
from roomkit.providers.twilio.sms import TwilioOptions, options_from_env
from roomkit.runtime import Clock, Scope, SystemClock, bounded

log = logging.getLogger(__name__)
RATE = 8_000
FRAME = RATE * FRAME_MS // 1000
TICKET_S = 60
_AGAIN = "again=1"
_XML = '<?xml version="1.0" encoding="UTF-8"?>'
MARK_EVERY = RATE // 10
"""A mark every 100 ms: in between the clock says what has sounded."""
START_S = 10.0
MOST_USED = 10_000
MOST_CONCEALED = 3
AGAIN_S = 2
MOST_AGAIN = 10
"""So often is one call connected anew; a stream that fails each time must not ring for ever."""


class _Wire:
    """One stream: its codec, its socket, and what is needed to make frames of what comes."""

    def __init__(self, line: SocketLine) -> None:
        self.line = line
        self.codec = TwilioMedia()
        self.frames = Reblock(FRAME * 2)
        self.concealer = Concealer(RATE)
        self.marked = 0


class TwilioMediaBackend(LiveBackend[_Wire]):
    """A `VoiceBackend` for phone calls; `entry` is Twilio's own. Raises `ConfigError` without an auth token.

    `reconnect=False` lets a call end with its stream. Only the process that hung up knows that it did: where several
    serve one number and hang up by themselves, that is the setting."""

    entry: Literal["vendor"] = "vendor"

    def __init__(self, options: TwilioOptions, *, clock: Clock | None = None, reconnect: bool = True) -> None:
        super().__init__(BackendTraits(rate=RATE, native_dtmf=True, marks=True))
        if not options.auth_token:
            raise ConfigError("TwilioMediaBackend needs auth_token= to know Twilio by: set TWILIO_AUTH_TOKEN")
        register_secret(options.auth_token, *options.shared_keys.values())
        self._account = options.account_sid
        self._keys = TwilioKeys((options.auth_token,), options.shared_keys)
        self._secret = hashlib.sha256(b"roomkit media stream\0" + options.auth_token.encode()).digest()
        self._clock: Clock = clock or SystemClock()
        self._used: OrderedDict[str, None] = OrderedDict()
        self._reconnect = reconnect
        self._left: OrderedDict[str, int] = OrderedDict()
        """How often each call may still be connected anew; 0 for one that we have hung up."""

    # -- the door ---------------------------------------------------------------------------------------

    def reply(self, request: WebhookRequest, stream_url: str) -> WebhookReply:
        """TwiML that connects the call to `stream_url`."""
        self._keys.verify(request)
        told = dict(form_of(request))
        call = told.get("CallSid", "")
        if not call:
            raise ProtocolError("a call's webhook names the call (CallSid)")
        if not stream_url.startswith(("ws://", "wss://")):
            raise ConfigError("Twilio has to know where to connect: kit.asgi(public_url=...)")
        query = request.url.partition("?")[2]
        again = _AGAIN in query.split("&")
        back = request.url if again else f"{request.url}{'&' if query else '?'}{_AGAIN}"
        if again and not self._once_more(call):
            return WebhookReply(200, f"{_XML}<Response><Hangup/></Response>".encode(), "text/xml")
        values = {"ticket": self._ticket(call), "from": told.get("From", ""), "to": told.get("To", "")}
        if again:
            values["again"] = "1"
        parameters = "".join(f'<Parameter name="{name}" value="{escape(value)}"/>' for name, value in values.items())
        connect = f'<Connect><Stream url="{escape(stream_url)}">{parameters}</Stream></Connect>'
        later = f'<Pause length="{AGAIN_S}"/><Redirect method="POST">{escape(back)}</Redirect>'
        twiml = f"{_XML}<Response>{connect}{later if self._reconnect else ''}</Response>"
        return WebhookReply(200, twiml.encode(), "text/xml")

    def _once_more(self, call: str) -> bool:
        left = self._left.get(call, MOST_AGAIN)
        self._note_left(call, max(left - 1, 0))
        return left > 0

    def _note_left(self, call: str, left: int) -> None:
        self._left[call] = left
        self._left.move_to_end(call)
        if len(self._left) > MOST_USED:
            self._left.popitem(last=False)

    def admit(self, request: WebhookRequest) -> None:
        """The upgrade is signed over the address of the web socket; some of Twilio sign it as https."""
        try:
            self._keys.verify(request)
        except AccessDenied:
            self._keys.verify(replace(request, url=request.url.replace("ws", "http", 1)))

    def _ticket(self, call: str) -> str:
        until = int(self._clock.now().timestamp()) + TICKET_S
        told = f"{until}.{secrets.token_hex(8)}"
        return f"{told}.{self._seal(call, told)}"

    def _seal(self, call: str, told: str) -> str:
        digest = hmac.new(self._secret, f"{call}\0{told}".encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def _redeem(self, start: Start) -> None:
        """Raises `AccessDenied` unless the ticket is ours, of this call, fresh, and new."""
        told, _, seal = start.parameters.get("ticket", "").rpartition(".")
        until, _, nonce = told.partition(".")
        if not hmac.compare_digest(seal.encode(), self._seal(start.call_sid, told).encode()):
            raise AccessDenied("twilio stream: the ticket is not ours")
        if int(until) < self._clock.now().timestamp() or nonce in self._used:
            raise AccessDenied("twilio stream: the ticket is used or too old")
        if self._account and start.account_sid and start.account_sid != self._account:
            raise AccessDenied("twilio stream: the call is another account's")
        self._used[nonce] = None
        if len(self._used) > MOST_USED:
            self._used.popitem(last=False)

    # -- one call -----------------------------------------------------------------------------------------

    async def serve(self, line: SocketLine, session: VoiceSession, answer: Callable[[], Awaitable[None]]) -> None:
        """Carries one stream until it ends. Raises `AccessDenied` for one that we did not ask for, `ProtocolError` for
        one that is no Media Stream."""
        wire = _Wire(line)
        start = await bounded(self._started(wire), START_S, "waiting for the start of a stream")
        if start is None:
            return
        self._redeem(start)
        told = start.parameters
        session.metadata |= {
            "call_sid": start.call_sid,
            "stream_sid": start.stream_sid,
            "from": told.get("from", ""),
            "to": told.get("to", ""),
        }
        if told.get("again"):
            session.metadata["again"] = True
        call = self.opened(session, wire)
        async with Scope(f"stream {start.stream_sid}") as scope:
            try:
                scope.spawn(self.introduce(call, answer), name="answer")
                while (message := await line.receive()) is not None and self._hear(call, message):
                    pass
            except SessionEnded:
                pass
            finally:
                self.gone(call)
                await scope.drain(5)

    @staticmethod
    async def _started(wire: _Wire) -> Start | None:
        while (message := await wire.line.receive()) is not None:
            match wire.codec.receive(message):
                case Start() as start:
                    return start
                case Stop():
                    return None
                case _:
                    pass
        return None

    def _hear(self, call: LiveCall[_Wire], message: str | bytes) -> bool:
        """Whether the call goes on."""
        match call.wire.codec.receive(message):
            case Media() as media:
                self._media(call, media)
            case Digit(digit):
                if not call.session.listen_only:
                    self.tell("dtmf", call.session, DtmfDigit(digit, call.position))
            case Mark(name):
                epoch, _, position = name.partition(".")
                if epoch.isdecimal() and position.isdecimal():
                    call.sound.confirm(int(epoch), int(position))
            case Stop():
                return False
            case _:
                pass
        return True

    def _media(self, call: LiveCall[_Wire], media: Media) -> None:
        wire = call.wire
        if media.missing:
            for _ in range(min(media.missing, MOST_CONCEALED)):
                self.take(call, wire.concealer.lost(FRAME))
            call.position += max(media.missing - MOST_CONCEALED, 0) * FRAME
        for pcm in wire.frames.push(ulaw_to_pcm(media.payload)):
            self.take(call, wire.concealer.good(pcm))

    # -- our voice ----------------------------------------------------------------------------------------

    async def put(self, call: LiveCall[_Wire], frame: AudioFrame) -> None:
        wire, sound = call.wire, call.sound
        await wire.line.send(wire.codec.media(pcm_to_ulaw(frame.pcm)))
        first = sound.played() + frame.samples >= sound.sent
        if first or sound.position - wire.marked >= MARK_EVERY:
            wire.marked = sound.position
            await wire.line.send(wire.codec.mark(f"{sound.epoch}.{sound.position}"))

    async def forget(self, call: LiveCall[_Wire], epoch: int) -> None:
        call.wire.marked = 0
        await call.wire.line.send(call.wire.codec.clear())

    async def leave(self, call: LiveCall[_Wire]) -> None:
        self._note_left(str(call.session.metadata.get("call_sid", "")), 0)
        await call.wire.line.close(1000, "hung up")


def provider(account: str | None = None, **options: Any) -> TwilioMediaBackend:
    """The backend with Twilio's own environment variables (TWILIO_AUTH_TOKEN) for what `options` leave out."""
    return TwilioMediaBackend(options_from_env(account, **options))
