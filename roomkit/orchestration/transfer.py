"""A warm transfer: a colleague is told what it is about, alone, and then has the caller, with the AI out of the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roomkit.core.catalogue import phrase
from roomkit.errors import RoomKitError
from roomkit.models.audio import SessionState, VoiceSession
from roomkit.models.event import EventType

if TYPE_CHECKING:
    from roomkit.channels.voice import VoiceChannel
    from roomkit.rooms import Rooms

MOST_CHARACTERS = 400
"""Nobody listens to more before they pick up."""


async def warm_transfer(
    rooms: Rooms, phone: VoiceChannel, room_id: str, to: VoiceSession, *, who: str, summary: str | None = None
) -> bool:
    """Puts the callers of a room through to `to`, a colleague's own call, as `who`.

    The callers hear that they are put through. `who` takes the floor, so the AI falls silent; the colleague hears
    `summary` alone (by default why a person was asked for, and what was said last) and cuts it short with a key; then
    they hear each other. False when the colleague hung up before that: the floor goes back and the room is in the
    queue, as it is when the room does not take the colleague's call (`StateError`). Raises `FloorTaken` when somebody
    else has the floor, before anybody has heard anything.
    """
    room = await rooms.get_room(room_id)
    language = phone.options.language or room.language
    about = summary or await _about(rooms, room_id, room.attention.reason if room.attention else "", language)
    await rooms.take_over(room_id, who)
    for caller in phone.sessions(room_id):
        await phone.interrupt(caller, reason="transfer")
        await phone.say(caller, phrase("call_transfer", language))
    to.participant_id = to.participant_id or who
    try:
        await phone.answer(to, room_id=room_id, briefing=phrase("call_briefing", language, summary=about))
    except RoomKitError:
        await _back(rooms, room_id, who, f"{who} could not be put through")
        raise
    if to.state is not SessionState.ENDED:
        return True
    await _back(rooms, room_id, who, f"{who} hung up before the transfer")
    return False


async def _back(rooms: Rooms, room_id: str, who: str, why: str) -> None:
    await rooms.release(room_id, who)
    await rooms.request_human(room_id, why, by=who)


async def _about(rooms: Rooms, room_id: str, reason: str, language: str) -> str:
    events = await rooms.events(room_id, limit=50, newest_first=True)
    said = [
        e.text
        for e in events
        if e.type is EventType.MESSAGE and e.text and e.source.direction == "inbound" and not e.blocked
    ]
    last = phrase("call_last_words", language, text=said[0][-MOST_CHARACTERS:]) if said else ""
    return " ".join(part for part in (f"{reason.rstrip('.')}." if reason else "", last) if part)
