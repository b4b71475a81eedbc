from __future__ import annotations

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from botframework.connector.auth import ChannelValidation, JwtTokenExtractor, SimpleCredentialProvider

from roomkit import RoomKit
from roomkit.channels import TeamsChannel
from roomkit.errors import (
    AccessDenied,
    BadResponse,
    ConfigError,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    Refused,
    Unauthorized,
    Unavailable,
)
from roomkit.models.content import (
    AudioContent,
    Button,
    Card,
    CompositeContent,
    Content,
    DeleteContent,
    EditContent,
    MediaContent,
    ReactionContent,
    RichContent,
    TextContent,
    UnknownContent,
    text_of,
)
from roomkit.models.delivery import Attachment, DeliveryState, InboundMessage, WebhookRequest
from roomkit.models.event import EventType
from roomkit.providers.teams.teams import TeamsOptions, TeamsProvider, provider
from roomkit.runtime import monotonic
from roomkit.testing import VirtualClock, check_message_provider, fuzz_signatures
from roomkit.testing.messages import message_to
from roomkit.testing.vendors.teams import ISSUER, SERVICE, FakeTeams, _jwk
from tests.providers.exactly_once import GOLDEN, HOOK, ONCE, exactly_once, golden
from tests.providers.spoilt import check_spoilt
from tests.providers.vendor_calls import check_no_bodies, failing, public
from tests.servers.house import House, house

PICTURE = MediaContent(url="https://x.example/a.png", mime_type="image/png")
NAMES = sorted(path.stem for path in (GOLDEN / "teams").glob("*.json"))
TO = "a:1personal"


def made(fake: FakeTeams, clock: Any = None, **more: Any) -> TeamsProvider:
    options = fake.options(**{"signing_key": FakeTeams.private_key(), **more})
    return TeamsProvider(options, clock=clock or fake.clock, transport=fake.transport(), resolver=public)


def parsed(name: str) -> list[Any]:
    return made(FakeTeams()).parse(golden("teams", name)[0], "teams")


async def post(h: House, request: WebhookRequest) -> Any:
    return await h.http.post("/webhooks/hook", content=request.body, headers=dict(request.headers))


def kit_with(fake: FakeTeams, clock: VirtualClock, store: str | None = None, **more: Any) -> RoomKit:
    kit = RoomKit(store, clock=clock) if store else RoomKit(clock=clock)
    kit.register_channel(TeamsChannel("hook", provider=made(fake, clock, **more)))
    return kit


async def test_conformance() -> None:
    fake = FakeTeams()
    await check_message_provider(
        lambda: made(fake),
        inbound=[one for name, one in zip(NAMES, golden("teams"), strict=True) if name != "typing"],
        outgoing=message_to(TO, "hello"),
        secrets=[fake.app_password, FakeTeams.private_key()],
        without_secret=lambda: made(fake, signing_key=None),
        mutants=0,
    )


# -- in -------------------------------------------------------------------------------------------------------------


def test_every_documented_activity_says_what_it_is() -> None:
    expected: dict[str, list[tuple[str, str, str]]] = {
        "message": [("message", "text", "Where is my order? <3")],
        "message_mention": [("message", "text", "please ask @Ben Tan")],
        "message_picture": [("message", "media", "")],
        "message_file": [("message", "media", "the receipt")],
        "message_card_submit": [("message", "text", "The blue one")],
        "message_card_values": [("message", "unknown", "")],
        "message_edited": [("edit", "edit", "Where is order 1042?")],
        "message_undeleted": [("message", "unknown", "Back again")],
        "message_deleted": [("delete", "delete", "")],
        "reaction_added": [("reaction", "reaction", ""), ("reaction", "reaction", "")],
        "reaction_removed": [("reaction", "reaction", "")],
        "members_added": [("message", "unknown", "")],
        "channel_renamed": [("message", "unknown", "")],
        "installed": [("message", "unknown", "")],
        "invoke_card": [("message", "text", "Approve")],
        "invoke_query": [("message", "unknown", "")],
        "event": [("message", "unknown", "")],
        "typing": [],
    }
    for name in NAMES:
        found = parsed(name)
        assert [(str(one.type), one.content.type, text_of(one.content)) for one in found] == expected[name], name
        assert all(one.external_id and one.conversation_id for one in found)
    kinds = {name: parsed(name)[0].content.kind for name in ("members_added", "installed", "invoke_query", "event")}
    assert kinds == {
        "members_added": "conversationUpdate teamMemberAdded",
        "installed": "installationUpdate add",
        "invoke_query": "invoke composeExtension/query",
        "event": "event",
    }
    assert parsed("members_added")[0].addressed_to == ()
    assert (parsed("message")[0].group, parsed("message_mention")[0].group) == (False, True)


def test_what_edits_deletions_and_reactions_are_about() -> None:
    (message,), (edit,), (removed,) = map(parsed, ("message", "message_edited", "reaction_removed"))
    liked, loved = parsed("reaction_added")
    assert {one.about_id for one in (edit, liked, loved, removed)} == {message.external_id}
    assert [(one.content.emoji, one.content.removed) for one in (liked, loved, removed)] == [
        ("👍", False),
        ("❤️", False),
        ("👍", True),
    ]
    assert len({one.external_id for one in (message, edit, liked, loved, removed)}) == 5
    assert parsed("message_deleted")[0].about_id == parsed("message_mention")[0].external_id


def test_buttons_and_files() -> None:
    assert parsed("message_card_submit")[0].metadata == {"button": "blue"}
    assert parsed("message_card_values")[0].metadata == {"button": {"size": "L", "note": "quick"}}
    assert parsed("invoke_card")[0].metadata == {"button": {"label": "Approve", "order": 7}}
    (picture,), (file,) = parsed("message_picture")[0].attachments, parsed("message_file")[0].attachments
    assert (picture.needs_auth, picture.mime_type) == (True, "image/png")
    assert (file.needs_auth, file.filename) == (False, "receipt.pdf")
    assert "download.aspx" in file.url


def test_whatever_stands_anywhere_in_a_body_breaks_nothing() -> None:
    check_spoilt(made(FakeTeams()), golden("teams"), n=3000)


def test_hostile_bodies_are_refused_or_read_but_break_nothing() -> None:
    teams = made(FakeTeams())
    check_no_bodies(teams, HOOK)
    odd: list[Any] = [None, 1, "x", [], [1], {}, [{"type": 1}], {"id": 5, "content": 6}]
    base = json.loads(golden("teams", "message")[0].body)
    names = ("from", "conversation", "recipient", "entities", "attachments", "value", "channelData", "timestamp", "id")
    for kind in ("message", "messageUpdate", "messageDelete", "messageReaction", "invoke", "new", 5):
        for name in (*names, "reactionsAdded", "text", "name", "serviceUrl"):
            for one in odd:
                body = json.dumps({**base, "type": kind, name: one}).encode()
                found = teams.parse(WebhookRequest("POST", HOOK, {}, body), "c")
                assert found
                assert all(isinstance(it, InboundMessage) and it.external_id for it in found)


# -- who may post ---------------------------------------------------------------------------------------------------


async def accepted(teams: TeamsProvider, request: WebhookRequest) -> bool:
    await teams.prepare(request)
    try:
        teams.verify(request)
    except AccessDenied:
        return False
    return True


async def test_a_token_of_the_bot_connector_and_no_other() -> None:
    clock = VirtualClock()
    fake = FakeTeams(clock=clock)
    teams = made(fake, signing_key=None)
    good = fake.message("29:1", "hi")
    activity = json.loads(good.body)
    now = int(clock.now().timestamp())
    assert await accepted(teams, good)
    bad: dict[str, WebhookRequest] = {
        "another bot's": fake.signed(activity, aud="another-app"),
        "another issuer's": fake.signed(activity, iss="https://sts.windows.net/x/"),
        "over": fake.signed(activity, exp=now - 301),
        "not yet": fake.signed(activity, nbf=now + 301),
        "without end": fake.signed(activity, exp=None),
        "of another service": fake.signed(activity, serviceurl="https://smba.trafficmanager.net/other/"),
        "of no service": fake.signed(activity, serviceurl=None),
        "without an algorithm": fake.signed(activity, alg="none"),
        "of a shared secret": fake.signed(activity, alg="HS256"),
        "of an unknown key": fake.signed(activity, kid="unknown"),
        "for a service of a stranger's": fake.signed({**activity, "serviceUrl": "https://evil.example/"}),
        "for the machine itself": fake.signed({**activity, "serviceUrl": "https://127.0.0.1/"}),
        "for another network": fake.signed({**activity, "channelId": "webchat"}),
    }
    for name, request in bad.items():
        assert not await accepted(teams, request), name
    for authorization in ("", "Bearer", "Bearer x.y.z", f"Basic {'a' * 20}", "Bearer " + "a" * 20_000):
        request = WebhookRequest("POST", HOOK, {"authorization": authorization}, good.body)
        assert not await accepted(teams, request), authorization
    assert await accepted(teams, fake.signed(activity, exp=now - 299)), "clocks differ a little"
    with pytest.raises(ConfigError, match="TEAMS_SIGNING_KEY"):
        teams.sign(good)
    await teams.aclose()


async def test_nobody_changes_a_token() -> None:
    fake = FakeTeams(clock=VirtualClock())
    teams = made(fake)
    requests = [fake.message("29:1", "hello é"), fake.activity({"type": "messageDelete"})]
    for one in requests:
        await teams.prepare(one)

    def body_only(request: WebhookRequest, mutant: WebhookRequest) -> bool:
        """The token says who posts and not what; everything but the body has to hold."""
        return mutant.headers.get("authorization") == request.headers["authorization"]

    report = fuzz_signatures(teams, requests, n=1500, seed=4, excused=body_only)
    assert report.ok, (report.forged[:3], report.crashed[:3])
    await teams.aclose()


async def test_microsofts_own_code_judges_tokens_as_we_do() -> None:
    fake = FakeTeams()  # by the real clock, which theirs looks at
    teams = made(fake)
    good = fake.message("29:1", "hi")
    activity = json.loads(good.body)
    url = "https://login.botframework.com/v1/.well-known/openidconfiguration"
    known = JwtTokenExtractor.get_open_id_metadata(url)
    known.keys, known.last_updated = [_jwk(one) for one in fake.keys], datetime.now()  # noqa: DTZ005 - their own
    credentials = SimpleCredentialProvider(fake.app_id, fake.app_password)
    now = int(fake.clock.now().timestamp())
    cases = [
        good,
        fake.signed(activity, aud="another-app"),
        fake.signed(activity, iss="https://sts.windows.net/x/"),
        fake.signed(activity, exp=now - 301),
        fake.signed(activity, serviceurl="https://smba.trafficmanager.net/other/"),
        fake.signed({**activity, "channelId": "webchat"}),
    ]
    for request in cases:
        said = json.loads(request.body)
        theirs = True
        try:
            await ChannelValidation.authenticate_channel_token_with_service_url(
                request.headers["authorization"], credentials, said["serviceUrl"], said["channelId"]
            )
        except Exception:  # it raises whatever comes
            theirs = False
        assert theirs is await accepted(teams, request)
    await teams.aclose()


async def test_keys_are_fetched_once_and_again_when_they_change() -> None:
    clock = VirtualClock()
    fake = FakeTeams(clock=clock)
    teams = made(fake)
    first = [fake.message("29:1", str(n)) for n in range(5)]
    assert await asyncio.gather(*(accepted(teams, one) for one in first)) == [True] * 5
    assert fake.calls == ["metadata"]
    before = fake.message("29:1", "signed with the old key")
    fake.rotate()
    assert not await accepted(teams, fake.message("29:1", "at once")), "not more than once a minute"
    await asyncio.sleep(61)
    assert await accepted(teams, fake.message("29:1", "later"))
    assert not await accepted(teams, before), "the old key is gone"
    for _ in range(20):
        assert not await accepted(teams, fake.signed(json.loads(before.body), kid="made up"))
    assert fake.calls == ["metadata"] * 2, "strangers do not make us ask"
    await asyncio.sleep(86_400)
    fake.keys_down = True
    assert await accepted(teams, fake.message("29:1", "the known keys go on"))
    await teams.aclose()


async def test_without_keys_the_vendor_is_told_to_come_again() -> None:
    clock = VirtualClock()
    fake = FakeTeams(clock=clock)
    fake.keys_down = True
    async with house(kit_with(fake, clock), public_url="https://rooms.example") as h:
        assert (await post(h, fake.message("29:1", "hi"))).status_code >= 500
        assert await h.kit.list_rooms() == []
        fake.keys_down = False
        request = fake.message("29:1", "hi")
        assert (await post(h, request)).status_code == 200
        assert (await post(h, WebhookRequest("POST", HOOK, {}, request.body))).status_code == 403
        assert len(await h.kit.list_rooms()) == 1


async def test_keys_of_an_operator_sign_simulated_activities_only_where_they_are_set() -> None:
    fake = FakeTeams(clock=VirtualClock())
    simulated = made(fake).sign(golden("teams", "message")[0])
    assert await accepted(made(fake), simulated)
    assert not await accepted(made(fake, signing_key=None), simulated)
    with pytest.raises(ConfigError, match="RSA key in PEM"):
        made(fake, signing_key="nonsense")


# -- out ------------------------------------------------------------------------------------------------------------


async def send_failing(fake: FakeTeams, content: Content | str = "x", **more: Any) -> ProviderError:
    return await failing(made(fake, **more), message_to(TO, content))


async def test_text_goes_out_as_it_is() -> None:
    fake = FakeTeams()
    teams = made(fake)
    result = await teams.send(message_to("19:x@thread.tacv2;messageid=1", "1 < 2 & *so* <at>all</at>\n# new"))
    (sent,) = fake.messages
    assert (sent.conversation, sent.body["textFormat"]) == ("19:x@thread.tacv2;messageid=1", "xml")
    assert sent.text == "1 &lt; 2 &amp; *so* &lt;at&gt;all&lt;/at&gt;<br/># new"
    assert result.provider_message_id == f"19:x@thread.tacv2;messageid=1|{sent.id}"
    await teams.send(message_to(TO, "answer", about_ids=(f"{TO}|77",)))
    await teams.send(message_to(TO, "elsewhere", about_ids=("other|77",)))
    assert [one.reply_to for one in fake.messages] == [None, "77", None]
    await teams.aclose()


async def test_cards_buttons_and_files_are_what_microsofts_models_take() -> None:
    fake = FakeTeams()
    teams = made(fake)
    rich = RichContent(
        text="**Bold** <i> [site](https://x.example/?a=1&b=2)",
        buttons=(Button(label="Yes", value="y"), Button(label="Open", url="https://x.example/")),
        cards=(Card(title="Lamp", text="Blue", image_url="https://x.example/l.png", buttons=(Button(label="Buy"),)),),
        quick_replies=("Later",),
    )
    report = MediaContent(url="https://x.example/r.pdf", mime_type="application/pdf", filename="r.pdf", caption="see")
    for content in (rich, PICTURE, report, CompositeContent(parts=(TextContent(text="two"), PICTURE, report))):
        await teams.send(message_to(TO, content))
    card, picture, file, both = (one.body for one in fake.messages)
    assert card["text"] == '<b>Bold</b> &lt;i&gt; <a href="https://x.example/?a=1&amp;b=2">site</a>'
    lamp, loose = (one["content"] for one in card["attachments"])
    assert [one["type"] for one in lamp["body"]] == ["TextBlock", "TextBlock", "Image"]
    assert [one["title"] for one in loose["actions"]] == ["Yes", "Open", "Later"]
    assert loose["actions"][0]["data"]["msteams"]["value"] == {"button": "y"}
    assert picture["attachments"] == [{"contentType": "image/png", "contentUrl": PICTURE.url}]
    assert file["text"] == 'see<br/><a href="https://x.example/r.pdf">r.pdf</a>'
    assert (len(both["attachments"]), both["text"].count("<br/>")) == (1, 2)
    for content, why in (
        (AudioContent(url="blob:1"), "public https URL"),
        (UnknownContent(kind="poll"), "neither"),
        (TextContent(text="x" * 29_000), "shorten it"),
    ):
        with pytest.raises(Refused, match=why):
            await teams.send(message_to(TO, content))
    assert len(fake.messages) == 4
    await teams.aclose()


async def test_edits_deletions_and_reactions() -> None:
    fake = FakeTeams()
    teams = made(fake)
    ids = [(await teams.send(message_to(TO, text))).provider_message_id or "" for text in ("one", "two")]
    edit = EditContent(target_event_id="e", new_content=TextContent(text="new"))
    await teams.send(message_to(TO, edit, about_ids=tuple(ids)))
    assert [(one.text, one.edits, one.deleted) for one in fake.messages] == [("new", 1, False), ("two", 0, True)]
    reaction = ReactionContent(target_event_id="e", emoji="👍")
    assert (await teams.send(message_to(TO, reaction, about_ids=(ids[0],)))).state is DeliveryState.SKIPPED
    for _ in range(2):
        gone = await teams.send(message_to(TO, DeleteContent(target_event_id="e"), about_ids=(ids[0],)))
        assert gone.success, "also when somebody was faster"
    assert fake.messages[0].deleted
    with pytest.raises(Refused):
        await teams.send(message_to(TO, edit, about_ids=(ids[0],)))
    await teams.aclose()


async def test_the_token_is_fetched_once_kept_and_renewed() -> None:
    fake = FakeTeams()
    teams = made(fake)
    await asyncio.gather(*(teams.send(message_to(TO, str(n))) for n in range(5)))
    assert fake.calls.count("token") == 1
    await asyncio.sleep(3000)
    await teams.send(message_to(TO, "still good"))
    assert fake.calls.count("token") == 1
    await asyncio.sleep(400)
    await teams.send(message_to(TO, "before it is over"))
    assert fake.calls.count("token") == 2
    fake.tokens.clear()
    await teams.send(message_to(TO, "after it was taken back"))
    assert (fake.calls.count("token"), len(fake.messages)) == (3, 8)
    await teams.aclose()
    error = await send_failing(fake, app_password="wrong")
    assert isinstance(error, Unauthorized)
    assert "wrong" not in str(error)


@pytest.mark.parametrize(
    "status, code, kind, retryable",
    [
        (403, "BotNotInConversationRoster", Refused, False),
        (403, "MessageWritesBlocked", Refused, False),
        (403, "Forbidden", Unauthorized, False),
        (404, "ConversationNotFound", Refused, False),
        (413, "MessageSizeTooBig", Refused, False),
        (400, "BadSyntax", Refused, False),
        (412, "PreconditionFailed", Unavailable, True),
        (412, "", Unavailable, True),
        (429, "Throttled", RateLimited, True),
        (502, "BadGateway", Unavailable, True),
        (504, "GatewayTimeout", Unavailable, True),
    ],
)
async def test_errors_say_who_must_act(status: int, code: str, kind: type[ProviderError], retryable: bool) -> None:
    fake = FakeTeams()
    teams = made(fake)
    await teams.send(message_to(TO, "to have a token"))
    body = {"error": {"code": code, "message": "said so"}} if code else "x"
    fake.mishaps.refuse(status, body, retry_after=7 if status == 429 else None)
    with pytest.raises(ProviderError) as caught:
        await teams.send(message_to(TO, "x"))
    error = caught.value
    assert (type(error), error.retryable, error.status) == (kind, retryable, status)
    assert error.retry_after == (7 if status == 429 else None)
    assert error.code == (code or None)
    assert len(fake.messages) == 1
    fake.mishaps.refuse(200, {"no": "id"})
    with pytest.raises(BadResponse):
        await teams.send(message_to(TO, "x"))
    await teams.aclose()


async def test_no_answer_is_ambiguous_and_comes_in_time() -> None:
    fake = FakeTeams()
    teams = made(fake)
    await teams.send(message_to(TO, "to have a token"))
    fake.mishaps.hang()
    start = monotonic()
    with pytest.raises(ProviderTimeout) as caught:
        await teams.send(message_to(TO, "x"))
    assert caught.value.ambiguous
    assert monotonic() - start == pytest.approx(15)
    fake.mishaps.lose_answer()
    with pytest.raises(Unavailable) as broken:
        await teams.send(message_to(TO, "x"))
    assert broken.value.ambiguous
    await teams.aclose()


async def test_the_bots_token_goes_to_the_service_and_nowhere_else() -> None:
    fake = FakeTeams()
    fake.pictures["0-wus"] = b"png bytes"
    teams = made(fake)
    url = f"{SERVICE}v3/attachments/0-wus/views/original"
    found = await teams.fetch_media(Attachment(url=url, needs_auth=True))
    assert found.body == b"png bytes"
    for host in ("smba.trafficmanager.net.evil.example", "evil.example", "contoso.sharepoint.com"):
        await teams.fetch_media(Attachment(url=f"https://{host}/a", needs_auth=True))
    assert fake.leaks == []
    await teams.aclose()
    for bad in ("https://evil.example", "http://smba.trafficmanager.net", "https://u:p@smba.trafficmanager.net"):
        with pytest.raises(Refused, match="none of Microsoft's"):
            await made(fake, service_url=bad).send(message_to(TO, "x"))


def test_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APP_ID", "APP_PASSWORD", "TENANT", "SIGNING_KEY"):
        monkeypatch.delenv(f"TEAMS_{name}", raising=False)
    with pytest.raises(ConfigError, match="TEAMS_APP_ID"):
        provider()
    monkeypatch.setenv("TEAMS_APP_ID", "one")
    monkeypatch.setenv("TEAMS_APP_PASSWORD", "planted")
    monkeypatch.setenv("TEAMS_TENANT", "contoso")
    found = provider()
    assert found.options == TeamsOptions("one", "planted", "contoso")
    assert "planted" not in repr(found.options)
    capabilities = TeamsChannel("c", provider=found).capabilities
    assert (capabilities.cards, capabilities.reactions, capabilities.max_length) == (True, False, 9000)


# -- in a room ------------------------------------------------------------------------------------------------------


async def test_a_conversation_is_answered_where_it_was_held_after_a_restart_too(tmp_path: Path) -> None:
    clock = VirtualClock()
    fake = FakeTeams(clock=clock)
    url = f"sqlite:///{tmp_path / 'rooms.db'}"
    service = "https://smba.infra.gov.teams.microsoft.us/teams"
    thread = "19:shop@thread.tacv2;messageid=17"
    async with house(kit_with(fake, clock, url), public_url="https://rooms.example") as h:
        await post(h, fake.message("29:ann", "<at>Shop</at> hello", conversation=thread, serviceUrl=service))
        await post(h, fake.message("29:ben", "me too", conversation=thread, serviceUrl=service))
        (room,) = await h.kit.list_rooms()
        assert {"teams:29:ann", "teams:29:ben"} <= {one.id for one in await h.kit.participants(room.id)}
    hosts: list[str] = []
    kit = kit_with(fake, clock, url)
    channel: Any = kit.channels["hook"]
    channel.provider._client.event_hooks["request"].append(_hears(hosts))
    async with kit:
        await (await kit.send(room.id, "Good morning", by="host")).settled()
    (sent,) = fake.messages
    assert (sent.conversation, sent.body["from"]) == (thread, {"id": f"28:{fake.app_id}", "name": "Shop"})
    assert hosts[-1] == "smba.infra.gov.teams.microsoft.us"


def _hears(hosts: list[str]) -> Any:
    async def hear(request: Any) -> None:
        hosts.append(request.url.host)

    return hear


async def test_edits_reactions_and_deletions_both_ways() -> None:
    clock = VirtualClock()
    fake = FakeTeams(clock=clock)
    kit = kit_with(fake, clock)

    @kit.on_message
    async def answer(context: Any, message: Any) -> str:
        return f"You said: {message.text}"

    async with house(kit, public_url="https://rooms.example") as h:
        await post(h, fake.message("29:ann", "hello", ident="5"))
        assert fake.typing == [TO], "somebody who writes sees that an answer is on its way"
        await asyncio.sleep(5)
        (room,) = await kit.list_rooms()
        (mine,) = fake.messages
        liked = {"type": "messageReaction", "replyToId": mine.id, "reactionsAdded": [{"type": "like"}]}
        await post(h, fake.activity(liked, "29:ann"))
        edited = {"type": "messageUpdate", "text": "hello!", "channelData": {"eventType": "editMessage"}}
        await post(h, fake.activity(edited, "29:ann", ident="5"))
        invoke = fake.activity({"type": "invoke", "name": "adaptiveCard/action", "value": {}}, "29:ann")
        assert (await post(h, invoke)).json()["statusCode"] == 200
        raw = await kit.events(room.id, raw=True)
        said = next(one for one in raw if one.text == "You said: hello")
        reaction = next(one for one in raw if one.type is EventType.REACTION)
        edit = next(one for one in raw if one.type is EventType.EDIT)
        assert reaction.content.target_event_id == said.id
        assert edit.content.target_event_id == next(one for one in raw if one.text == "hello").id
        ours = await kit.send(room.id, "Monday", by="ben")
        await ours.settled()
        assert ours.event is not None
        for content in (
            EditContent(target_event_id=ours.event.id, new_content=TextContent(text="Tuesday")),
            DeleteContent(target_event_id=ours.event.id),
        ):
            await (await kit.send(room.id, content, type=EventType(content.type), by="ben")).settled()
        monday = next(one for one in fake.messages if one.text == "Tuesday")
        assert (monday.edits, monday.deleted) == (1, True)


# -- once -----------------------------------------------------------------------------------------------------------


@ONCE
async def test_exactly_one_effect(tmp_path: Path) -> None:
    events = await exactly_once(
        lambda clock: made(FakeTeams(clock=clock), clock, typing=False),
        lambda cid, p: TeamsChannel(cid, provider=p),
        golden("teams", *(name for name in NAMES if name != "typing")),
        before=golden("teams", "message", "message_mention"),
        folder=tmp_path,
    )
    assert {event.type for event in events} == {"message", "edit", "delete", "reaction"}
    assert ISSUER.startswith("https://")
