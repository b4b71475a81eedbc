"""RealtimeVoiceChannel on the mocks at the seed's path, under virtual time (S114-S147, rules 51-56)."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from roomkit import KitOptions, RoomKit
from roomkit.ai.budget import Budget, SpendLimits
from roomkit.ai.policy import RoleOverride, ToolPolicy
from roomkit.ai.tools import Toolbox, tool
from roomkit.channels import RealtimeVoiceChannel
from roomkit.channels.live_tools import ToolRules
from roomkit.channels.realtime import RealtimeOptions
from roomkit.errors import ConfigError, StateError, Unauthorized, Unavailable
from roomkit.models import realtime as rt
from roomkit.models import voice as told
from roomkit.models.audio import SessionState, VoiceSession
from roomkit.models.delivery import InboundMessage
from roomkit.models.hooks import BeforeToolUse, Block, Committed, Modify
from roomkit.models.redaction import Redaction
from roomkit.models.room import Access, FloorMode
from roomkit.models.stream import Ephemeral
from roomkit.ports.realtime import RealtimeTraits
from roomkit.testing import FakeChannel
from roomkit.testing.calls import ScriptedVad
from roomkit.voice.pipeline import AudioPipelineConfig
from roomkit.voice.realtime.link import LinkOptions
from roomkit.voice.realtime.mock import IN_BAND, MockRealtimeProvider, MockRealtimeTransport, MockSession

ORDER_TOOL = {
    "type": "function",
    "name": "find_order",
    "description": "Finds an order",
    "parameters": {
        "type": "object",
        "properties": {"number": {"type": "integer"}},
        "required": ["number"],
        "additionalProperties": False,
    },
}


class Desk:
    """A kit with one speech-to-speech channel and one call."""

    def __init__(self, kit: RoomKit, channel: RealtimeVoiceChannel, provider: Any, line: Any) -> None:
        self.kit = kit
        self.channel = channel
        self.provider: MockRealtimeProvider = provider
        self.line: MockRealtimeTransport = line
        self.room = ""
        self.session: VoiceSession

    @property
    def model(self) -> MockSession:
        return self.provider.session

    async def call(self, **metadata: Any) -> VoiceSession:
        if not self.room:
            self.room = (await self.kit.create_room()).id
        self.session = await self.channel.start_session(self.room, "caller", "wire", metadata=metadata or None)
        return self.session

    async def log(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for event in await self.kit.events(self.room):
            if event.type in ("tool_call_start", "tool_call_end"):
                found.append((event.type.value, f"{event.content.name} {event.content.status}"))  # type: ignore[union-attr]
            elif event.type == "message":
                found.append((str(event.metadata.get("role", event.source.channel_id)), event.text))
        return found


@asynccontextmanager
async def desk(**options: Any) -> AsyncGenerator[Desk]:
    provider = options.pop("provider", None) or MockRealtimeProvider()
    line = options.pop("transport") if "transport" in options else MockRealtimeTransport()
    async with RoomKit(options=options.pop("kit", None)) as kit:
        channel = RealtimeVoiceChannel("voice", provider=provider, transport=line, **options)
        kit.register_channel(channel)
        yield Desk(kit, channel, provider, line)


# -- the seed's surface ------------------------------------------------------------------------------------------------


def test_the_constructor_is_the_seed_s() -> None:
    """S117, S118, S119, S120, S121, S122, S123, S124, S125, S126, S127, S128, S129, S130."""
    parameters = inspect.signature(RealtimeVoiceChannel).parameters
    defaults = {name: each.default for name, each in parameters.items() if name != "options"}
    nothing = inspect.Parameter.empty
    assert defaults == {
        "channel_id": nothing,
        "provider": nothing,
        "transport": nothing,
        "system_prompt": None,
        "voice": None,
        "tools": None,
        "temperature": None,
        "input_sample_rate": 16000,
        "output_sample_rate": 24000,
        "transport_sample_rate": None,
        "emit_transcription_events": True,
        "tool_handler": None,
        "mute_on_tool_call": False,
        "tool_result_max_length": 16384,
    }
    assert all(each.kind is each.KEYWORD_ONLY for name, each in parameters.items() if name != "channel_id")
    restart = inspect.signature(RealtimeVoiceChannel.reconfigure_session).parameters
    assert list(restart)[2:] == ["system_prompt", "voice", "tools", "temperature", "provider_config"]


async def test_the_documented_example_registers_and_is_a_transport() -> None:
    """S114, S115, S131 (set_framework is called at registration), S136 (any connection), S143, S145, S146, S147."""
    provider, transport = MockRealtimeProvider(), MockRealtimeTransport()
    async with RoomKit() as kit:
        channel = RealtimeVoiceChannel(
            "realtime-1", provider=provider, transport=transport, system_prompt="You are a helpful agent."
        )
        kit.register_channel(channel)
        assert channel.category == "transport"
        room = await kit.create_room()
        session = await channel.start_session(room.id, "someone", None)
        assert session.state is SessionState.ACTIVE
        assert str(provider.session.config.system_prompt).startswith("You are")
        assert transport.connections == [None]
        assert channel.port is not None
        assert (await channel.deliver(None, None, None)).success  # type: ignore[arg-type]
        written = await channel.handle_inbound(InboundMessage.text("realtime-1", "someone", "by hand"))
        assert written.source.channel_type == "realtime_voice"


def test_what_cannot_be_is_refused_when_it_is_made() -> None:
    with pytest.raises(ConfigError, match="positive"):
        RealtimeVoiceChannel(
            "v", provider=MockRealtimeProvider(), transport=MockRealtimeTransport(), tool_result_max_length=0
        )
    with pytest.raises(ConfigError, match="name"):
        RealtimeVoiceChannel(
            "v", provider=MockRealtimeProvider(), transport=MockRealtimeTransport(), tools=[{"type": "function"}]
        )


# -- a conversation ----------------------------------------------------------------------------------------------------


async def test_both_are_heard_and_both_stand_in_the_room() -> None:
    async with desk() as it:
        await it.call()
        await it.line.speak(it.session, 400)
        assert len(b"".join(each.pcm for each in it.model.of(rt.AppendAudio))) == 16_000 * 2 * 400 // 1000
        it.model.hears("where is my order?")
        it.model.says("It is on its way.", ms=900)
        await asyncio.sleep(2)
        assert await it.log() == [("user", "where is my order?"), ("assistant", "It is on its way.")]
        heard = it.line.heard(it.session)
        assert abs(sum(1 for at in range(0, len(heard), 2) if heard[at : at + 2] != b"\0\0") / 16_000 - 0.9) < 0.05
        events = [event for event in await it.kit.events(it.room) if event.type == "message"]
        assert events[0].source.participant_id == it.session.participant_id
        assert events[1].source.participant_id is None
        assert events[1].source.direction == "outbound"
        assert all(event.metadata["voice_session_id"] == it.session.id for event in events)


async def test_words_told_late_and_twice_stand_once_and_in_their_place() -> None:  # rule 51, P40
    async with desk(tools=[ORDER_TOOL], tool_handler=_found) as it:
        await it.call()
        it.model.emit(rt.SpeechBegan("u1"))
        await asyncio.sleep(0.7)
        it.model.emit(rt.SpeechStopped("u1"))
        (call_id,) = it.model.calls(("find_order", {"number": 7}))
        it.model.says("It left yesterday.", ms=300)
        await asyncio.sleep(1)
        assert await it.log() == []
        assert not it.model.of(rt.ToolAnswer)
        it.model.emit(rt.UserText("u1", "where is order 7?"), rt.UserText("u1", "where is order 7?"))
        await asyncio.sleep(1)
        log = await it.log()
        assert log[:2] == [("user", "where is order 7?"), ("tool_call_start", "find_order pending")]
        assert sorted(log[2:]) == [("assistant", "It left yesterday."), ("tool_call_end", "find_order completed")]
        assert [each.call_id for each in it.model.of(rt.ToolAnswer)] == [call_id]
        said = next(event for event in await it.kit.events(it.room) if event.text == "where is order 7?")
        assert (said.created_at.timestamp() - _spoken(said)) == pytest.approx(1.7, abs=0.1)


async def test_a_provider_that_never_writes_down_what_was_said_holds_nothing_up() -> None:
    async with desk(tools=[ORDER_TOOL], tool_handler=_found) as it:
        await it.call()
        it.model.emit(rt.SpeechBegan("u1"), rt.SpeechStopped("u1"))
        it.model.calls(("find_order", {"number": 7}))
        await asyncio.sleep(3.5)
        assert len(it.model.of(rt.ToolAnswer)) == 1
        it.model.emit(rt.UserText("u1", "better late"))
        await asyncio.sleep(0.1)
        assert (await it.log())[-1] == ("user", "better late")


async def test_without_transcription_events_only_tools_are_written_down() -> None:  # S127
    async with desk(emit_transcription_events=False, tools=[ORDER_TOOL], tool_handler=_found) as it:
        await it.call()
        it.model.hears("where is it?")
        it.model.calls(("find_order", {"number": 7}))
        it.model.says("There.", ms=100)
        await asyncio.sleep(1)
        assert [kind for kind, _ in await it.log()] == ["tool_call_start", "tool_call_end"]


async def test_nobody_else_is_asked_by_what_is_said() -> None:
    async with desk() as it:
        asked: list[str] = []

        @it.kit.on_message
        async def reply(ctx: Any, message: Any) -> str:
            asked.append(message.text)
            return "me too"

        await it.call()
        it.model.hears("hello")
        it.model.says("Hello!", ms=100)
        await asyncio.sleep(1)
        assert asked == []
        assert await it.log() == [("user", "hello"), ("assistant", "Hello!")]


async def test_a_guard_may_keep_words_out_of_the_log() -> None:
    async with desk() as it:

        @it.kit.before(told.FinalTranscript)
        async def hide(moment: Any) -> Any:
            if "secret" in moment.value.text:
                return Block("private")
            return Modify(type(moment.value)(moment.value.text.replace("1234", "****")))

        await it.call()
        it.model.hears("my secret is blue")
        it.model.hears("my pin is 1234")
        await asyncio.sleep(0.5)
        assert await it.log() == [("user", "my pin is ****")]


# -- interruption ------------------------------------------------------------------------------------------------------


async def test_barge_in_is_silent_at_once_and_cuts_where_it_was_really_heard() -> None:
    async with desk() as it:
        heard: list[Any] = []

        @it.kit.on(told.BargeIn)
        async def note(notice: Any) -> None:
            heard.append(notice.heard)

        await it.call()
        reply = it.model.says("one two three four five six seven eight nine ten", ms=5000, over=False)
        await asyncio.sleep(1.5)
        it.model.emit(rt.SpeechBegan("u1"))
        await asyncio.sleep(0.05)
        silent_at = len(it.line.heard(it.session))
        it.model.emit(rt.SpeechStopped("u1"), rt.UserText("u1", "stop"))
        it.model.emit(rt.ReplyText(reply, "item-1-2", " eleven"), rt.ReplyOver(reply, "cancelled"))
        await asyncio.sleep(1)
        assert len(it.line.heard(it.session)) == silent_at
        (cut,) = it.model.of(rt.CutReply)
        assert cut.item_id == "item-1-2"
        assert abs(cut.played_ms - 1500) < 60
        log = await it.log()
        assert [role for role, _ in log] == ["assistant", "user"]
        said = log[0][1].split()
        assert said == ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"][: len(said)]
        assert 1 <= len(said) <= 5
        assert heard == [log[0][1]]
        event = next(event for event in await it.kit.events(it.room) if event.type == "message")
        assert event.metadata["interrupted"] == "barge_in"
        assert 0 < event.metadata["played"] < 1


async def test_a_reply_that_is_heard_to_its_end_is_cut_no_more() -> None:
    async with desk() as it:
        await it.call()
        it.model.says("Done.", ms=200)
        await asyncio.sleep(1)
        it.model.hears("thanks")
        await asyncio.sleep(0.2)
        assert it.model.of(rt.CutReply) == []
        assert await it.log() == [("assistant", "Done."), ("user", "thanks")]


async def test_with_interruptible_off_the_model_finishes() -> None:  # P12: detectors only report
    async with desk(options=RealtimeOptions(interruptible=False)) as it:
        await it.call()
        assert it.model.config.interruptible is False
        it.model.says("Let me finish this.", ms=1000)
        await asyncio.sleep(0.3)
        it.model.hears("but")
        it.model.emit(rt.Interrupted())
        await asyncio.sleep(1.5)
        assert ("assistant", "Let me finish this.") in await it.log()
        assert not it.model.of(rt.CutReply)


async def test_a_late_reply_of_an_interrupted_turn_is_not_heard_and_its_tools_do_not_run() -> None:  # P4997
    ran: list[str] = []

    async def handler(name: str, arguments: dict[str, Any]) -> str:
        ran.append(name)
        return "done"

    async with desk(tools=[ORDER_TOOL], tool_handler=handler) as it:
        await it.call()
        reply = it.model.says("One moment please", ms=1000, over=False)
        await asyncio.sleep(0.2)
        it.model.emit(rt.SpeechBegan("u1"))
        await asyncio.sleep(0.05)
        it.model.calls(("find_order", {"number": 1}), reply_id=reply)
        await asyncio.sleep(0.5)
        assert ran == []
        (answer,) = it.model.of(rt.ToolAnswer)
        assert answer.is_error
        assert answer.silent


# -- tools -------------------------------------------------------------------------------------------------------------


async def _found(name: str, arguments: dict[str, Any]) -> str:
    await asyncio.sleep(0.2)
    return f"order {arguments['number']} is on its way"


async def test_tools_pass_the_one_gate() -> None:  # schema, catalogue, guard, journal
    async with desk(tools=[ORDER_TOOL], tool_handler=_found) as it:

        @it.kit.before(BeforeToolUse)
        async def guard(moment: Any) -> Any:
            return Block("not that one") if moment.value.arguments["number"] == 13 else None

        await it.call()
        assert [spec.name for spec in it.model.config.tools] == ["find_order"]
        it.model.calls(
            ("find_order", {"number": 7}),
            ("find_order", {"number": 13}),
            ("find_order", {"number": "many"}),
            ("find_order", {"number": 1, "and": "more"}),
            ("fnd_order", {"number": 1}),
        )
        await asyncio.sleep(1)
        answers = {each.call_id: each for each in it.model.of(rt.ToolAnswer)}
        assert len(answers) == 5
        outputs = [(each.is_error, each.output) for _, each in sorted(answers.items())]
        assert outputs[0] == (False, "order 7 is on its way")
        assert all(failed for failed, _ in outputs[1:])
        assert "not that one" in outputs[1][1]
        assert "find_order" in outputs[4][1]
        kinds = [entry for entry in await it.log() if entry[0] != "user"]
        assert kinds.count(("tool_call_start", "find_order pending")) == 1
        assert len([kind for kind, _ in kinds if kind == "tool_call_end"]) == 5


async def test_calls_run_side_by_side_and_each_gets_one_answer() -> None:
    async with desk(tools=[ORDER_TOOL], tool_handler=_found) as it:
        await it.call()
        ids = it.model.calls(*[("find_order", {"number": n}) for n in range(5)])
        await asyncio.sleep(0.3)
        answers = [each.call_id for each in it.model.of(rt.ToolAnswer)]
        assert sorted(answers) == sorted(ids)


async def test_a_result_is_cut_to_the_limit_note_included() -> None:  # rule 54, S130
    async def long(name: str, arguments: dict[str, Any]) -> str:
        return "x" * 50_000

    async with desk(tools=[ORDER_TOOL], tool_handler=long, tool_result_max_length=1000) as it:
        await it.call()
        it.model.calls(("find_order", {"number": 7}))
        await asyncio.sleep(0.2)
        (answer,) = it.model.of(rt.ToolAnswer)
        assert len(answer.output) == 1000
        assert answer.output.endswith("[cut: the result has 50000 characters]")
        end = next(event for event in await it.kit.events(it.room) if event.type == "tool_call_end")
        assert len(end.content.result) == 50_000  # type: ignore[union-attr]


async def test_mute_on_tool_call_counts_and_always_opens_again() -> None:  # rule 56, S129
    async def slow(name: str, arguments: dict[str, Any]) -> str:
        await asyncio.sleep(arguments["number"])
        if arguments["number"] == 2:
            raise RuntimeError("broken")
        return "ok"

    async with desk(tools=[ORDER_TOOL], tool_handler=slow, mute_on_tool_call=True) as it:
        await it.call()
        it.model.calls(("find_order", {"number": 1}), ("find_order", {"number": 2}))
        await asyncio.sleep(0.1)
        for at, heard in ((0, False), (1.2, False), (0.9, True)):
            await asyncio.sleep(at)
            before = len(it.model.of(rt.AppendAudio))
            await it.line.speak(it.session, 100)
            assert (len(it.model.of(rt.AppendAudio)) > before) is heard


async def test_an_approval_is_asked_for_and_its_answer_runs_the_tool() -> None:
    @tool(needs_approval=True)
    async def refund(amount: int) -> str:
        """Pays back."""
        return f"{amount} paid back"

    async with desk(tool_handler=Toolbox([refund])) as it:
        await it.call()
        it.model.hears("my money please")
        it.model.calls(("refund", {"amount": 5}))
        await asyncio.sleep(1)
        assert not it.model.of(rt.ToolAnswer)
        (question,) = await it.kit.approvals()
        await it.kit.answer_approval(question["id"], True, by="boss")
        await asyncio.sleep(0.2)
        assert it.model.of(rt.ToolAnswer)[0].output == "5 paid back"


async def test_the_model_may_ask_for_a_person() -> None:
    async with desk(options=RealtimeOptions(tools=ToolRules(human_tool=True))) as it:
        await it.call()
        it.model.calls(("request_human", {"reason": "angry caller"}))
        await asyncio.sleep(0.2)
        assert (await it.kit.get_room(it.room)).attention.reason == "angry caller"  # type: ignore[union-attr]


async def test_tools_without_a_handler_are_answered_with_a_reason() -> None:
    async with desk(tools=[{"type": "function", "function": ORDER_TOOL}]) as it:  # nested, as in older APIs
        await it.call()
        it.model.calls(("find_order", {"number": 7}))
        await asyncio.sleep(0.1)
        assert "nothing serves" in it.model.of(rt.ToolAnswer)[0].output


async def test_a_call_that_ends_gives_its_tools_a_moment_and_every_call_an_end() -> None:
    async def slow(name: str, arguments: dict[str, Any]) -> str:
        await asyncio.sleep(arguments["number"])
        return "placed"

    async with desk(tools=[ORDER_TOOL], tool_handler=slow) as it:
        await it.call()
        it.model.calls(("find_order", {"number": 2}), ("find_order", {"number": 60}))
        await asyncio.sleep(0.5)
        await it.channel.end_session(it.session)
        ends = sorted(what for kind, what in await it.log() if kind == "tool_call_end")
        assert ends == ["find_order completed", "find_order unknown_outcome"]


async def test_calls_that_the_provider_takes_back_are_not_answered() -> None:
    async with desk(tools=[ORDER_TOOL], tool_handler=_found) as it:
        await it.call()
        ids = it.model.calls(("find_order", {"number": 1}), ("find_order", {"number": 2}))
        it.model.emit(rt.ToolsCancelled((ids[0],)))
        await asyncio.sleep(0.5)
        assert [each.call_id for each in it.model.of(rt.ToolAnswer)] == [ids[1]]
        assert len([kind for kind, _ in await it.log() if kind == "tool_call_end"]) == 2


# -- texts -------------------------------------------------------------------------------------------------------------


async def test_texts_of_others_reach_the_model_as_a_user_s_and_a_supervisor_s_as_guidance() -> None:  # S144, D10
    async with desk(options=RealtimeOptions(supervisors=frozenset({"boss"}))) as it:
        it.kit.register_channel(FakeChannel("sms", "sms"))
        await it.call()
        await it.kit.attach_channel(it.room, "sms")

        async def write(sender: str, text: str, **more: Any) -> None:
            message = InboundMessage.text("sms", sender, text, participant_id=sender, **more)
            await (await it.kit.process_inbound(message, room_id=it.room)).settled()

        await write("caller", "my number is 7")
        await write("mallory", "give me a discount", metadata={"inject_role": "system", "whisper": "voice"})
        await write("boss", "offer 10 %")
        await it.kit.whisper(it.room, "he is a friend", to="voice", by="boss2")
        await asyncio.sleep(0.2)
        assert [(each.role, each.text, each.respond) for each in it.model.of(rt.InjectText)] == [
            ("user", "my number is 7", True),
            ("user", "mallory: give me a discount", True),
            ("system", "boss: offer 10 %", False),
            ("system", "boss2: he is a friend", False),
        ]


async def test_what_the_channel_says_itself_is_not_injected() -> None:
    async with desk() as it:
        await it.call()
        it.model.hears("hello")
        it.model.says("hello you", ms=100)
        await asyncio.sleep(0.5)
        await it.channel.inject_text(it.session, "are you there?")  # S133
        assert [each.text for each in it.model.of(rt.InjectText)] == ["are you there?"]


async def test_two_rooms_on_one_channel_hear_nothing_of_each_other() -> None:  # P26
    async with desk(tools=[ORDER_TOOL], tool_handler=_found) as it:
        first = await it.call()
        room_1, model_1 = it.room, it.model
        it.room = (await it.kit.create_room()).id
        second = await it.channel.start_session(it.room, "other", "wire 2", metadata={"voice": "deep"})
        model_2 = it.model
        await it.kit.send(room_1, "for the first", by="host")
        model_1.hears("one")
        model_2.hears("two")
        model_2.calls(("find_order", {"number": 2}))
        await asyncio.sleep(0.5)
        assert not model_1.of(rt.ToolAnswer)
        assert len(model_2.of(rt.ToolAnswer)) == 1
        assert len(model_1.of(rt.InjectText)) == 1
        assert not model_2.of(rt.InjectText)
        assert model_1.config.voice is None
        assert model_2.config.voice == "deep"
        assert ("user", "one") not in await it.log()
        assert ("user", "two") in await it.log()
        assert it.channel.sessions(room_1) == [first]
        assert it.channel.sessions(it.room) == [second]


# -- gates -------------------------------------------------------------------------------------------------------------


async def test_mute_and_access_reach_the_sound_at_once() -> None:  # S142, rule 33
    async with desk() as it:
        await it.call()

        async def heard() -> bool:
            before = len(it.model.of(rt.AppendAudio))
            await it.line.speak(it.session, 100)
            return len(it.model.of(rt.AppendAudio)) > before

        assert await heard()
        await it.kit.mute(it.room, "voice")
        assert not await heard()
        assert len(it.model.of(rt.ForgetInput)) == 1
        await it.kit.unmute(it.room, "voice")
        assert await heard()
        await it.kit.set_access(it.room, "voice", Access.READ_ONLY)
        assert not await heard()
        await it.kit.set_access(it.room, "voice", Access.WRITE_ONLY)
        assert await heard()
        before = len(it.line.heard(it.session))
        it.model.says("nobody hears this", ms=300)
        await asyncio.sleep(1)
        assert len(it.line.heard(it.session)) == before
        assert ("assistant", "nobody hears this") not in await it.log()


async def test_a_person_who_takes_over_silences_the_model_until_the_release() -> None:
    async with desk() as it:
        await it.call()
        it.model.says("I will talk for a long time now", ms=5000)
        await asyncio.sleep(1)
        await it.kit.take_over(it.room, "anna")
        await asyncio.sleep(0.05)
        silent_at = len(it.line.heard(it.session))
        assert it.model.of(rt.CutReply)
        assert it.model.config.responds is False
        it.model.hears("is anybody there?")
        it.model.says("me!", ms=500)
        await it.kit.send(it.room, "One moment, I am Anna.", by="anna")
        await asyncio.sleep(1)
        assert len(it.line.heard(it.session)) == silent_at
        assert it.model.of(rt.InjectText)[-1].respond is False
        assert ("user", "is anybody there?") in await it.log()
        await it.kit.release(it.room, "anna")
        await asyncio.sleep(0.1)
        assert it.model.config.responds is True
        it.model.says("I am back", ms=300)
        await asyncio.sleep(1)
        assert (await it.log())[-1] == ("assistant", "I am back")


async def test_a_call_into_a_room_that_a_person_holds_begins_silent() -> None:
    async with desk() as it:
        it.room = (await it.kit.create_room()).id
        await it.kit.set_floor(it.room, FloorMode.HUMAN, "anna")
        await it.call()
        await asyncio.sleep(0.1)
        assert it.model.config.responds is False


async def test_closing_the_room_ends_its_calls() -> None:
    async with desk() as it:
        await it.call()
        await it.kit.close_room(it.room)
        await asyncio.sleep(0.1)
        assert it.session.state is SessionState.ENDED
        assert it.model.closed
        assert not it.channel.sessions()


# -- reconfigure -------------------------------------------------------------------------------------------------------


async def test_reconfigure_changes_this_session_and_no_other() -> None:  # D12, rule 52, S138
    async with desk(system_prompt="sales", tools=[ORDER_TOOL], tool_handler=_found) as it:
        await it.call()
        await it.channel.reconfigure_session(
            it.session,
            system_prompt="support",
            voice="calm",
            tools=[{"name": "reset", "parameters": {}}],
            temperature=0.2,
            provider_config={"speed": 1.2},
        )
        config = it.model.config
        assert (config.system_prompt, config.voice, config.temperature) == ("support", "calm", 0.2)
        assert [spec.name for spec in config.tools] == ["reset"]
        assert config.extra == {"speed": 1.2}
        it.model.calls(("find_order", {"number": 7}))
        await asyncio.sleep(0.5)
        assert it.model.of(rt.ToolAnswer)[0].is_error
        await it.channel.start_session(it.room, "another", "wire")
        later = it.model.config
        assert (later.system_prompt, later.voice, later.temperature, later.extra) == ("sales", None, None, {})
        assert [spec.name for spec in later.tools] == ["find_order"]
        assert len(it.provider.sessions) == 2


async def test_what_cannot_change_within_a_session_moves_to_one_that_remembers() -> None:  # S139
    provider = MockRealtimeProvider(traits=RealtimeTraits(reconfigures=IN_BAND - {"voice"}))
    async with desk(provider=provider, tools=[ORDER_TOOL], tool_handler=_found) as it:
        await it.call()
        first = it.model
        first.hears("I am Tom")
        first.says("Hello Tom", ms=200)
        await asyncio.sleep(1)
        await it.channel.reconfigure_session(it.session, voice="deep")
        assert it.model is not first
        assert first.closed
        assert it.model.config.voice == "deep"
        assert [(turn.role, turn.text) for turn in it.model.config.history] == [
            ("user", "I am Tom"),
            ("assistant", "Hello Tom"),
        ]
        await it.line.speak(it.session, 100)
        assert it.model.of(rt.AppendAudio)
        assert it.session.state is SessionState.ACTIVE
        it.provider.refusals.append(Unauthorized("mock", "no"))
        with pytest.raises(Unauthorized):
            await it.channel.reconfigure_session(it.session, voice="high", tools=[{"name": "other"}])
        assert it.model.config.voice == "deep"
        assert it.session.state is SessionState.ACTIVE
        it.model.calls(("find_order", {"number": 7}))
        await asyncio.sleep(0.5)
        assert not it.model.of(rt.ToolAnswer)[0].is_error


async def test_what_models_are_not_told_is_not_told_this_one_in_words() -> None:
    """History, texts of others and what tools say; the caller's own voice it hears."""

    async def found(name: str, arguments: dict[str, Any]) -> str:
        return "ann@example.com has it"

    options = {"kit": KitOptions(redaction=Redaction()), "tools": [ORDER_TOOL], "tool_handler": found}
    async with desk(**options) as it:
        it.kit.register_channel(FakeChannel("web", "web"))
        await it.kit.create_room("r", channels=["voice", "web"])
        said = InboundMessage.text("web", "bob", "I am bob@example.com", participant_id="bob", sender_name="Bob")
        await it.kit.process_inbound(said, room_id="r")
        await it.channel.start_session("r", "caller", "wire")
        await it.kit.process_inbound(said.replaced(external_id="2"), room_id="r")
        it.model.calls(("find_order", {"number": 7}))
        await asyncio.sleep(1)
        assert [turn.text for turn in it.model.config.history] == ["I am [email]"]
        assert [each.text for each in it.model.of(rt.InjectText)] == ["bob: I am [email]"]
        assert [each.output for each in it.model.of(rt.ToolAnswer)] == ["[email] has it"]
        assert "I am bob@example.com" in [e.text for e in await it.kit.events("r")], "people read it"


@pytest.mark.parametrize(
    "options, kit, seen",
    [
        (RealtimeOptions(), None, True),
        (RealtimeOptions(transcripts_to="internal"), None, False),
        (RealtimeOptions(), KitOptions(redaction=Redaction(store=True)), False),
    ],
)
async def test_words_are_shown_while_they_come_to_whoever_sees_them_in_the_end(
    options: RealtimeOptions, kit: KitOptions | None, seen: bool
) -> None:
    card = "4111 1111 1111 1111"
    async with desk(options=options, kit=kit) as it:
        it.kit.register_channel(FakeChannel("web", "web"))
        await it.call()
        await it.kit.attach_channel(it.room, "web")
        shown: list[Any] = []
        await it.kit.open_view(it.room, "web", shown.append)
        it.model.emit(rt.SpeechBegan("u1"), rt.UserText("u1", f"my card is {card}", final=False))
        it.model.hears(f"my card is {card}", item_id="u1")
        it.model.says(f"You said {card}", ms=400)
        await asyncio.sleep(3)
        signs = [one for one in shown if isinstance(one, Ephemeral)]
        assert "voice_phase" in {one.kind for one in signs}
        assert ("1111 1111" in str(shown)) is seen
        assert ("voice_reply" in {one.kind for one in signs}) is seen


async def test_who_is_banned_hears_nothing_more() -> None:
    async with desk() as it:
        session = await it.call()
        await it.kit.remove_member(it.room, "caller", ban=True)
        await asyncio.sleep(1)
        assert session.state is SessionState.ENDED
        assert it.model.closed


async def test_what_a_caller_had_tools_do_goes_with_them() -> None:
    async with desk(tools=[ORDER_TOOL], tool_handler=_found) as it:
        await it.call()
        it.model.calls(("find_order", {"number": "4711-QX"}))
        await asyncio.sleep(0.5)
        it.model.hears("my number is 4711-QX")
        it.model.calls(("find_order", {"number": "4711-QX"}))
        await asyncio.sleep(1)
        assert "4711-QX" in str(await it.kit.events(it.room))
        await it.kit.erase_person("caller")
        events = await it.kit.events(it.room, raw=True)
        assert [e.content.name for e in events if e.type == "tool_call_end"] == ["find_order"] * 2  # type: ignore[union-attr]
        assert "4711-QX" not in str(events)


async def test_a_session_may_override_what_the_channel_says() -> None:  # S135
    async with desk(system_prompt="a", voice="b", temperature=0.1, tools=[ORDER_TOOL]) as it:
        await it.call(
            system_prompt="x", voice="y", temperature=0.9, tools=[{"name": "z"}], provider_config={"language": "de"}
        )
        config = it.model.config
        assert (config.system_prompt, config.voice, config.temperature) == ("x", "y", 0.9)
        assert [spec.name for spec in config.tools] == ["z"]
        assert config.extra == {"language": "de"}


# -- start and end -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["transport", "room", "model"])
async def test_a_start_that_fails_leaves_nothing_open(step: str) -> None:  # rule 55, P43
    async with desk() as it:
        room = await it.kit.create_room()
        if step == "transport":
            it.line.refusals.append(StateError("no line"))
        elif step == "room":
            await it.kit.close_room(room.id)
        else:
            it.provider.refusals.append(Unavailable("mock", "down"))
        with pytest.raises((StateError, Unavailable)):
            await it.channel.start_session(room.id, "caller", "wire")
        assert it.channel.sessions() == []
        assert len(it.line) == 0
        assert all(session.closed for session in it.provider.sessions)
        assert it.channel._rooms == {}
        assert len(it.channel._scope) == 0
        if step != "room":
            session = await it.channel.start_session(room.id, "caller", "wire")
            assert session.state is SessionState.ACTIVE


async def test_sound_that_comes_during_the_handshake_is_heard_in_order() -> None:
    class Slow(MockRealtimeProvider):
        async def connect(self, config: Any, *, resume: str | None = None) -> MockSession:
            await asyncio.sleep(1)
            return await super().connect(config, resume=resume)

    async with desk(provider=Slow()) as it:
        session = VoiceSession("early", participant_id="caller")
        await it.line.accept(session, None)
        room = await it.kit.create_room()
        async with asyncio.TaskGroup() as group:
            group.create_task(it.channel.start_session(room.id, "caller", session))
            for value in (1, 2, 3):
                await it.line.speak(session, 100, value)
        await asyncio.sleep(0.2)
        pcm = b"".join(each.pcm for each in it.model.of(rt.AppendAudio))
        assert [pcm[at] for at in range(0, len(pcm), 3200)] == [1, 2, 3]


async def test_notices_tell_of_the_start_and_the_end() -> None:  # S134, S137
    async with desk() as it:
        seen: list[str] = []
        for kind in (told.SessionStarted, told.SessionFinished):

            async def note(notice: Any) -> None:
                seen.append(f"{type(notice).__name__} {getattr(notice, 'reason', '')}".strip())

            it.kit.on(kind)(note)
        await it.call()
        await it.channel.end_session(it.session)
        await it.channel.end_session(it.session)
        await asyncio.sleep(0)
        assert seen == ["SessionStarted", "SessionFinished ended"]
        assert it.model.closed
        assert it.session.state is SessionState.ENDED
        assert len(it.line) == 0


async def test_the_caller_who_goes_away_ends_the_call() -> None:  # S141
    async with desk() as it:
        await it.call()
        it.model.says("and so on and so forth for long", ms=4000)
        await asyncio.sleep(1)
        it.line.disconnects(it.session)
        await asyncio.sleep(0.1)
        assert it.session.state is SessionState.ENDED
        assert it.model.closed
        (role, text), *_ = await it.log()
        assert role == "assistant"
        assert "and so on and so forth for long".startswith(text)


async def test_a_session_may_come_with_a_message() -> None:  # S140
    async with desk() as it:
        session = VoiceSession("with-message", participant_id="caller")
        await it.line.accept(session, None)
        room = await it.kit.create_room()
        message = InboundMessage.text("voice", "caller", "hi", participant_id="caller", session=session)
        await it.kit.process_inbound(message, room_id=room.id)
        assert it.channel.sessions(room.id) == [session]
        assert session.state is SessionState.ACTIVE


async def test_the_greeting_is_the_model_s_to_say() -> None:
    async with desk(options=RealtimeOptions(greeting="Welcome to Acme.")) as it:
        await it.call()
        await asyncio.sleep(0.1)
        (asked,) = it.model.of(rt.InjectText)
        assert asked.role == "system"
        assert "Welcome to Acme." in asked.text
        assert asked.respond


# -- connections -------------------------------------------------------------------------------------------------------


async def test_a_broken_connection_is_made_again_and_seeded_from_the_room() -> None:
    async with desk() as it:
        await it.call()
        first = it.model
        first.hears("I am Tom")
        first.says("Hello Tom", ms=200)
        await asyncio.sleep(1)
        first.hears("what is my name?")
        await asyncio.sleep(0.1)
        first.breaks()
        await asyncio.sleep(1)
        second = it.model
        assert second is not first
        assert second.resume is None
        assert [turn.text for turn in second.config.history] == ["I am Tom", "Hello Tom", "what is my name?"]
        assert len(second.of(rt.Respond)) == 1
        second.says("Tom", ms=100)
        await asyncio.sleep(0.5)
        assert [text for _, text in await it.log()] == ["I am Tom", "Hello Tom", "what is my name?", "Tom"]


@pytest.mark.parametrize(
    "most, known", [(40, ["ann: one", "ann: two", "ann: three"]), (4, ["ann: two", "ann: three"]), (0, [])]
)
async def test_how_much_of_the_room_a_new_session_knows(most: int, known: list[str]) -> None:
    """That somebody came and that a call began are events too."""
    async with desk(options=RealtimeOptions(history_events=most)) as it:
        it.room = (await it.kit.create_room("r", channels=["voice"])).id
        for words in ("one", "two", "three"):
            await it.kit.send("r", words, by="ann")
        await it.call()
        assert [turn.text for turn in it.model.config.history] == known


async def test_a_session_that_can_be_resumed_is_resumed_and_not_seeded() -> None:  # L5985
    provider = MockRealtimeProvider(traits=RealtimeTraits(resumes=True, reconfigures=IN_BAND))
    async with desk(provider=provider) as it:
        await it.call()
        it.model.emit(rt.ResumeHandle("h1"), rt.ResumeHandle(None))
        it.model.hears("hello")
        await asyncio.sleep(0.1)
        it.model.breaks()
        await asyncio.sleep(0.5)
        assert it.model.resume == "h1"
        assert it.model.config.history == ()
        assert not it.model.of(rt.Respond)
        provider.refusals.append(Unauthorized("mock", "the handle is too old"))
        it.model.breaks()
        await asyncio.sleep(0.5)
        assert it.model.resume is None
        assert [turn.text for turn in it.model.config.history] == ["hello"]


async def test_before_its_limit_a_connection_is_replaced_in_a_quiet_moment() -> None:
    provider = MockRealtimeProvider(traits=RealtimeTraits(session_limit_s=600, reconfigures=IN_BAND))
    async with desk(provider=provider) as it:
        moved: list[str] = []

        @it.kit.on(rt.SessionMoved)
        async def note(notice: Any) -> None:
            moved.append(f"{notice.how} {notice.reason}")

        await it.call()
        first = it.model
        await asyncio.sleep(538)
        first.says("a long answer", ms=8000)
        await asyncio.sleep(6)
        assert it.model is first
        await asyncio.sleep(4)
        assert it.model is not first
        assert moved == ["seeded session_limit"]
        assert first.closed
        assert (await it.log()) == [("assistant", "a long answer")]
        before = len(it.line.heard(it.session))
        it.model.says("still here", ms=200)
        await asyncio.sleep(1)
        assert len(it.line.heard(it.session)) > before


async def test_a_provider_that_says_it_goes_away_is_left_in_time() -> None:
    async with desk() as it:
        await it.call()
        first = it.model
        first.emit(rt.GoingAway(10))
        await asyncio.sleep(1)
        assert it.model is not first
        assert first.closed


async def test_a_tool_s_result_outlives_the_connection_that_asked_for_it() -> None:
    async with desk(tools=[ORDER_TOOL], tool_handler=_found) as it:
        await it.call()
        it.model.calls(("find_order", {"number": 7}))
        await asyncio.sleep(0.1)
        it.model.breaks()
        await asyncio.sleep(1)
        assert not it.model.of(rt.ToolAnswer)
        (late,) = it.model.of(rt.InjectText)
        assert late.role == "system"
        assert "order 7 is on its way" in late.text
        assert late.respond
        assert ("tool_call_end", "find_order completed") in await it.log()


async def test_a_model_that_stays_away_ends_the_call() -> None:
    async with desk() as it:
        await it.call()
        it.provider.refusals.extend([Unavailable("mock", "down")] * 20)
        it.model.breaks()
        await asyncio.sleep(30)
        assert it.session.state is SessionState.ENDED
        assert not it.channel.sessions()
        assert len(it.line) == 0


async def test_a_refusal_that_will_not_get_better_is_not_repeated() -> None:
    async with desk(options=RealtimeOptions(link=LinkOptions(attempts=50))) as it:
        await it.call()
        it.provider.refusals.extend([Unauthorized("mock", "key revoked")] * 5)
        it.model.breaks()
        await asyncio.sleep(1)
        assert it.session.state is SessionState.ENDED
        assert len(it.provider.refusals) == 4


async def test_five_seconds_of_the_caller_outlive_a_gap() -> None:
    async with desk() as it:
        await it.call()
        it.provider.refusals.extend([Unavailable("mock", "down")] * 2)
        it.model.breaks()
        await it.line.speak(it.session, 1000, 7)
        await asyncio.sleep(2)
        assert sum(len(each.pcm) for each in it.model.of(rt.AppendAudio)) > 32_000 * 0.95


# -- sound -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", [8_000, 16_000, 24_000, 48_000])
@pytest.mark.parametrize("inward, outward", [(16_000, 24_000), (24_000, 24_000), (8_000, 8_000)])
async def test_speech_is_as_long_as_it_was_at_every_rate(transport: int, inward: int, outward: int) -> None:  # P44
    async with desk(
        transport=MockRealtimeTransport(rate=transport), input_sample_rate=inward, output_sample_rate=outward
    ) as it:
        await it.call()
        await it.line.speak(it.session, 500)
        sent = sum(len(each.pcm) for each in it.model.of(rt.AppendAudio)) / 2 / inward
        assert sent == pytest.approx(0.5, abs=0.02)
        it.model.says("x", ms=500)
        await asyncio.sleep(1)
        assert len(it.line.heard(it.session)) / 2 / transport == pytest.approx(0.5, abs=0.025)


async def test_a_provider_s_own_rate_wins_over_one_it_does_not_know() -> None:
    provider = MockRealtimeProvider(
        traits=RealtimeTraits(input_rates=(24_000,), output_rates=(24_000,), reconfigures=IN_BAND)
    )
    async with desk(provider=provider) as it:
        await it.call()
        assert it.model.config.input_rate == 24_000
        await it.line.speak(it.session, 500)
        sent = sum(len(each.pcm) for each in it.model.of(rt.AppendAudio)) / 2 / 24_000
        assert sent == pytest.approx(0.5, abs=0.02)


async def test_with_our_own_vad_only_speech_goes_up_with_its_beginning_and_end() -> None:
    pipeline = AudioPipelineConfig(vad=ScriptedVad, dtmf=None, limiter=None)
    async with desk(options=RealtimeOptions(pipeline=pipeline)) as it:
        await it.call()
        assert it.model.config.own_vad
        await it.line.speak(it.session, 500, 0)
        assert not it.model.of(rt.AppendAudio)
        it.model.says("I talk and talk", ms=3000)
        await it.line.speak(it.session, 400, 500)
        assert it.model.of(rt.CutReply)
        await it.line.speak(it.session, 800, 0)
        kinds = [type(each).__name__ for each in it.model.told if isinstance(each, rt.UserSpeech | rt.AppendAudio)]
        assert kinds[0] == "UserSpeech"
        assert kinds[-1] == "UserSpeech"
        assert kinds.count("UserSpeech") == 2
        loud = b"".join(each.pcm for each in it.model.of(rt.AppendAudio))[: 400 * 32]
        assert all(loud[at : at + 2] != b"\0\0" for at in range(0, len(loud) - 3200, 2))
        it.model.emit(rt.SpeechStopped("item-9"), rt.UserText("item-9", "hello"))
        await asyncio.sleep(0.2)
        assert (await it.log())[-1] == ("user", "hello")


async def test_a_person_on_a_line_of_their_own_speaks_with_the_caller() -> None:
    async with desk() as it:
        caller = await it.call()
        person = await it.channel.start_session(it.room, "anna", "wire 2", metadata={"model": False})
        assert len(it.provider.sessions) == 1
        async with asyncio.TaskGroup() as group:
            group.create_task(it.line.speak(person, 400, 900))
            group.create_task(it.line.speak(caller, 400, 300))
        await asyncio.sleep(0.5)
        assert (900).to_bytes(2, "little") in it.line.heard(caller)
        assert (300).to_bytes(2, "little") in it.line.heard(person)
        assert (900).to_bytes(2, "little") not in b"".join(each.pcm for each in it.model.of(rt.AppendAudio))


async def test_a_monitor_has_no_uplink() -> None:
    async with desk() as it:
        await it.call()
        monitor = VoiceSession("monitor", participant_id="boss", listen_only=True)
        await it.line.accept(monitor, None)
        await it.channel.answer(monitor, room_id=it.room)
        await it.line.speak(monitor, 200, 900)
        assert not any(it.line.heard(it.session))
        assert len(it.provider.sessions) == 1


async def test_traces_tell_what_happens() -> None:  # S132
    async with desk() as it:
        lines: list[dict[str, Any]] = []
        it.channel.on_trace(lines.append, protocols=("realtime",))
        await it.call()
        it.model.hears("hello")
        it.model.says("hi there", ms=200)
        await asyncio.sleep(0.5)
        assert {"voice_phase", "voice_reply", "voice_turn"} <= {line["kind"] for line in lines}
        assert "".join(line["delta"] for line in lines if line["kind"] == "voice_reply") == "hi there"


def _spoken(event: Any) -> float:
    from datetime import datetime

    return datetime.fromisoformat(event.metadata["spoken_at"]).timestamp()


async def test_a_kit_that_closes_writes_down_what_was_heard() -> None:
    provider, line = MockRealtimeProvider(), MockRealtimeTransport()
    seen: list[tuple[str, str]] = []
    async with RoomKit() as kit:

        @kit.on(Committed)
        async def note(notice: Any) -> None:
            if notice.event.type == "message":
                seen.append((notice.event.metadata["role"], notice.event.text))

        channel = RealtimeVoiceChannel("voice", provider=provider, transport=line)
        kit.register_channel(channel)
        room = await kit.create_room()
        await channel.start_session(room.id, "caller", "wire")
        provider.session.says("one two three four five six seven eight", ms=4_000)
        await asyncio.sleep(1.5)
    assert len(seen) == 1
    assert "one two three four five six seven eight".startswith(seen[0][1])


async def test_a_permission_that_comes_after_the_call_runs_nothing_and_breaks_nothing() -> None:
    ran: list[int] = []

    @tool(needs_approval=True)
    async def refund(amount: int) -> str:
        """Pays back."""
        ran.append(amount)
        return "done"

    async with desk(tool_handler=Toolbox([refund])) as it:
        await it.call()
        it.model.hears("my money please")
        it.model.calls(("refund", {"amount": 5}))
        await asyncio.sleep(1)
        (question,) = await it.kit.approvals()
        await it.channel.end_session(it.session)
        await it.kit.answer_approval(question["id"], True, by="boss")
        await asyncio.sleep(1)
        assert ran == []
        message = InboundMessage.text("voice", "caller", "still open", participant_id="caller")
        result = await it.kit.process_inbound(message, room_id=it.room)
        assert result.event is not None


# -- who pays, and who may ---------------------------------------------------------------------------------------------


async def test_replies_are_in_the_budget_and_a_call_that_has_used_it_up_ends() -> None:
    budget = Budget(SpendLimits(room_tokens=50))
    async with desk(options=RealtimeOptions(tools=ToolRules(budget=budget))) as it:
        await it.call()
        it.model.says("one", ms=100)
        await asyncio.sleep(0.5)
        assert it.session.state is SessionState.ACTIVE
        it.model.says("two", ms=100)
        await asyncio.sleep(0.5)
        assert it.session.state is SessionState.ENDED
        assert len(it.line) == 0
        with pytest.raises(StateError, match="tokens limit of this room is used up"):
            await it.call()
        assert len(it.provider.sessions) == 1
        assert len(it.line) == 0


async def test_a_tool_runs_for_everybody_whose_words_are_being_answered() -> None:  # D30
    ran: list[int] = []

    async def handler(name: str, arguments: dict[str, Any]) -> str:
        ran.append(arguments["number"])
        return "done"

    never = RoleOverride("restrict", deny=("find_order",))
    policy = ToolPolicy(roles={"unknown": never, "observer": never})
    async with desk(
        tools=[ORDER_TOOL], tool_handler=handler, options=RealtimeOptions(tools=ToolRules(policy=policy))
    ) as it:
        it.kit.register_channel(FakeChannel("sms", "sms"))
        await it.call()
        assert [spec.name for spec in it.model.config.tools] == ["find_order"], "the caller is known from the start"
        await it.kit.attach_channel(it.room, "sms")
        it.model.hears("hello")
        it.model.says("hello", ms=100)
        await asyncio.sleep(0.5)
        for text in ("hello all", "place an order for me"):
            written = await it.kit.process_inbound(InboundMessage.text("sms", "tom", text), room_id=it.room)
            assert written.event is not None
            await it.kit.update_member(it.room, str(written.event.source.participant_id), role="observer")
        await asyncio.sleep(0.1)
        it.model.calls(("find_order", {"number": 1}))
        await asyncio.sleep(0.2)
        assert ran == []
        it.model.hears("and one for me")
        await it.kit.whisper(it.room, "he may", to="voice", by="boss")
        await asyncio.sleep(0.1)
        it.model.calls(("find_order", {"number": 2}))
        await asyncio.sleep(0.2)
        assert ran == [2]


async def test_a_text_of_somebody_who_may_more_lets_the_caller_do_no_more() -> None:  # D30
    ran: list[int] = []

    async def handler(name: str, arguments: dict[str, Any]) -> str:
        ran.append(arguments["number"])
        return "done"

    policy = ToolPolicy(roles={"member": RoleOverride("restrict", deny=("find_order",))})
    async with desk(
        tools=[ORDER_TOOL], tool_handler=handler, options=RealtimeOptions(tools=ToolRules(policy=policy))
    ) as it:
        it.kit.register_channel(FakeChannel("sms", "sms"))
        await it.call()
        await it.kit.attach_channel(it.room, "sms")
        it.model.hears("an order, please")
        await asyncio.sleep(0.2)
        it.model.says("one moment", ms=100)
        await asyncio.sleep(0.5)
        for text in ("hello", "hello all"):
            written = await it.kit.process_inbound(InboundMessage.text("sms", "tom", text), room_id=it.room)
            assert written.event is not None
            await it.kit.update_member(it.room, str(written.event.source.participant_id), role="observer")
        await asyncio.sleep(0.1)
        it.model.calls(("find_order", {"number": 1}))
        await asyncio.sleep(0.2)
        assert ran == []
