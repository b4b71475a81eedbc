"""Link: a call's way to its model when connections fail at the worst moment; on the mocks, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from roomkit.errors import StateError, Unavailable
from roomkit.models import realtime as rt
from roomkit.models.audio import SessionState, VoiceSession
from roomkit.models.delivery import InboundMessage
from roomkit.models.realtime import RealtimeConfig
from roomkit.ports.realtime import RealtimeTraits
from roomkit.testing import FakeChannel
from roomkit.voice.realtime.mock import MockRealtimeProvider, MockSession
from tests.channels.test_realtime import desk


class Slow(MockRealtimeProvider):
    """Each connection takes a second."""

    async def connect(self, config: RealtimeConfig, *, resume: str | None = None) -> MockSession:
        await asyncio.sleep(1)
        return await super().connect(config, resume=resume)


async def test_who_hangs_up_during_the_handshake_leaves_no_model_behind() -> None:
    async with desk(provider=Slow()) as it:
        session = VoiceSession("early", participant_id="caller")
        await it.line.accept(session, None)
        room = await it.kit.create_room()

        async def start() -> None:
            with pytest.raises(StateError):
                await it.channel.start_session(room.id, "caller", session)

        async with asyncio.TaskGroup() as group:
            group.create_task(start())
            await asyncio.sleep(0.5)
            it.line.disconnects(session)
        assert session.state is SessionState.ENDED
        assert len(it.provider.sessions) == 1
        assert it.provider.session.closed
        assert it.channel._rooms == {}


async def test_a_call_that_ends_while_it_moves_leaves_no_model_behind() -> None:
    provider = Slow(traits=RealtimeTraits(reconfigures=frozenset()))
    async with desk(provider=provider) as it:
        await it.call()

        async def change() -> None:
            with pytest.raises(StateError):
                await it.channel.reconfigure_session(it.session, voice="deep")

        async with asyncio.TaskGroup() as group:
            group.create_task(change())
            await asyncio.sleep(0.5)
            await it.channel.end_session(it.session)
        assert [session.closed for session in it.provider.sessions] == [True, True]


async def test_a_change_while_the_first_connection_is_made_leaves_no_model_behind() -> None:
    provider = Slow(traits=RealtimeTraits(reconfigures=frozenset()))
    async with desk(provider=provider) as it:
        it.room = (await it.kit.create_room()).id
        async with asyncio.TaskGroup() as group:
            group.create_task(it.call())
            await asyncio.sleep(0.5)
            (session,) = it.channel.sessions()
            await it.channel.reconfigure_session(session, voice="deep")
        assert it.model.config.voice == "deep"
        await it.channel.end_session(session)
        assert [each.closed for each in it.provider.sessions] == [True, True]


@pytest.mark.parametrize("first", ["reply", "complaint", "limits"])
async def test_a_model_that_dies_of_whatever_it_is_asked_is_not_asked_for_ever(first: str) -> None:
    words: dict[str, Any] = {
        "reply": rt.ReplyBegan("r"),
        "complaint": rt.Complaint(Unavailable("mock", "quota")),
        "limits": rt.LimitsTold("tokens", 0, 60.0),
    }

    class Dying(MockRealtimeProvider):
        async def connect(self, config: RealtimeConfig, *, resume: str | None = None) -> MockSession:
            session = await super().connect(config, resume=resume)
            if len(self.sessions) > 1:
                session.emit(words[first])
                session.breaks()
            return session

    async with desk(provider=Dying()) as it:
        await it.call()
        it.model.hears("hello")
        await asyncio.sleep(0.1)
        it.model.breaks()
        await asyncio.sleep(30)
        assert len(it.provider.sessions) == 6
        assert it.session.state is SessionState.ENDED


async def test_connections_that_end_while_nobody_speaks_end_no_call() -> None:
    async with desk() as it:
        await it.call()
        for _ in range(10):
            await asyncio.sleep(60)
            it.model.breaks()
        await asyncio.sleep(5)
        assert it.session.state is SessionState.ACTIVE
        assert len(it.provider.sessions) == 11


async def test_a_change_during_a_rollover_reaches_the_connection_that_stays() -> None:
    async with desk(provider=Slow(), system_prompt="sales") as it:
        await it.call()
        first = it.model
        first.emit(rt.GoingAway(10))
        await asyncio.sleep(0.3)
        await it.channel.reconfigure_session(it.session, system_prompt="support")
        await it.kit.take_over(it.room, "anna")
        await asyncio.sleep(2)
        assert it.model is not first
        assert it.model.config.system_prompt == "support"
        assert it.model.config.responds is False


async def test_a_text_that_comes_in_a_gap_is_told_once_and_answered_once() -> None:
    async with desk() as it:
        it.kit.register_channel(FakeChannel("sms", "sms"))
        await it.call()
        await it.kit.attach_channel(it.room, "sms")
        it.provider.refusals.extend([Unavailable("mock", "down")] * 3)
        it.model.breaks()
        await asyncio.sleep(0.5)
        message = InboundMessage.text("sms", "tom", "my number is 7", participant_id="tom")
        await it.kit.process_inbound(message, room_id=it.room)
        await asyncio.sleep(5)
        told = [turn.text for turn in it.model.config.history] + [each.text for each in it.model.of(rt.InjectText)]
        assert told == ["my number is 7"]
        assert len(it.model.of(rt.Respond)) == 1
