"""The verdict on a schedule that has come to rest: what people, vendors and tools saw, against what the disk has."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from roomkit.core.state import load
from roomkit.models.content import SystemContent, ToolCallContent
from roomkit.models.event import EventStatus, EventType, RoomEvent
from roomkit.models.room import FloorMode
from roomkit.ports.store import RecordQuery
from roomkit.testing.history import Record, check_history
from roomkit.testing.simulation import aftermath, rights
from roomkit.testing.simulation.clients import Span
from roomkit.testing.simulation.disk import Disk
from roomkit.testing.simulation.outside import WORD, Receipt, Run, Vendor

if TYPE_CHECKING:
    from roomkit.testing.simulation.process import Process
    from roomkit.testing.simulation.world import World

OPEN_ROWS = ("outbox", "turn", "stream", "words", "inbox")
NETS = ("task_failures",)
"""Counters of the engine that stand for a defence behind a defence."""
CUTS = frozenset({"floor_changed", "reply_interrupted", "room_closed", "room_archived", "channel_detached"})
"""Records that explain why a question got no answer."""
LATE_S = 2.0
KEPT_S = 0.8
"""What was shown for longer than this survives the death of the process (a checkpoint every 250 ms, a slow disk)."""
MOST = 1_000_000
"""Rows of a kind that a schedule may leave."""
READ_S = 0.2
"""How long a prompt may have been under way when it is counted."""
Logs = dict[tuple[str, str], list[RoomEvent]]
Place = tuple[str, str, int]
"""(tenant, room, index)."""


async def judge(world: World) -> list[str]:
    """Everything that is wrong; empty when every promise was kept."""
    disk = world.disk
    heads = disk.read(RecordQuery("head", None, limit=1000))
    every: Logs = {(head.tenant, head.key): disk.log(head.tenant, head.key) for head in heads}
    logs = {spot: log for spot, log in every.items() if spot not in world.copies}
    wrong = list(world.wrong)
    wrong += (str(violation) for violation in check_history(list(_history(world, logs))))
    wrong += _messages(world, logs)
    wrong += _rows(disk, world)
    wrong += _pages(world, logs)
    book = Book(disk, every)
    for vendor in world.vendors.values():
        wrong += _vendor(vendor, book)
    wrong += _tools(world, logs)
    wrong += _questions(world, logs)
    wrong += _prefixes(world, logs)
    wrong += _checkpoints(world, logs)
    wrong += _pauses(world, logs)
    wrong += _floors(logs)
    wrong += _taken_back(world)
    wrong += rights.judge(world, logs)
    wrong += aftermath.judge(world, logs, every)
    wrong += await _memory(world)
    return wrong


def _history(world: World, logs: Logs) -> Iterator[Record]:
    spans = [span for page in world.pages for span in page.spans]
    for spot, log in logs.items():
        guests = [span for span in spans if span.spot == spot and not span.staff]
        staff = [span.name for span in spans if span.staff]
        for event in log:
            seen = [span.name for span in guests if rights.may_see(event, span.who)]
            record = {"kind": "commit", **_place(event), "visible_to": [*seen, *staff]}
            if words := WORD.findall(event.text):
                record["key"] = words[0] if event.source.channel_id != "ai" else None
            yield {name: value for name, value in record.items() if value is not None}
    for span in spans:
        yield from _span(span)
    for said in world.said:
        if said.acked_at is not None:
            room = f"{said.tenant}/{said.room}"
            told = {"room": room, "index": said.index, "event_id": said.event_id, "client": said.who}
            yield {"kind": "ack", **told, "sent_at": said.sent_at, "acked_at": said.acked_at}
    for vendor in world.vendors.values():
        known: set[tuple[str, str, int]] = set()
        for receipt in vendor.receipts:
            key = (receipt.tenant, receipt.room, receipt.index)
            if key not in known and not receipt.stale:
                known.add(key)
                room = f"{receipt.tenant}/{receipt.room}"
                yield {"kind": "lane", "channel": vendor.name, "room": room, "index": receipt.index}
    for page in world.pages:
        for name, value in page.nets.items():
            yield {"kind": "counter", "name": f"{name} ({page.name})", "value": value}


def _span(span: Span) -> Iterator[Record]:
    room = "/".join(span.spot)
    last: int | None = None
    for index, event_id, prev in span.seen:
        record: dict[str, Any] = {"kind": "observe", "observer": span.name, "room": room}
        record |= {"index": index, "event_id": event_id, "complete": True}
        if prev is not None and last is not None and prev > span.start:
            record["prev"] = last
        last = index
        yield record


def _place(event: RoomEvent) -> dict[str, Any]:
    return {"room": f"{event.tenant}/{event.room_id}", "index": event.index, "event_id": event.id}


def _repeated(vendor: Vendor) -> Iterator[str]:
    """Within one life a lane goes on from delivery to delivery, and repeats only one whose answer was lost."""
    last: dict[tuple[str, str, str], Receipt] = {}
    for receipt in vendor.receipts:
        life = (receipt.life, receipt.tenant, receipt.room)
        before, last[life] = last.get(life), receipt
        where = f"{receipt.tenant}/{receipt.room}[{receipt.index}]"
        if before is None or before.index < receipt.index:
            continue
        if before.index > receipt.index:
            yield f"{vendor.name} got {where} after [{before.index}] from process {receipt.process}"
        elif before.told:
            yield f"{vendor.name} got {where} again from process {receipt.process}, which knew that it has it"


def _messages(world: World, logs: Logs) -> Iterator[str]:
    places: dict[str, list[RoomEvent]] = defaultdict(list)
    for log in logs.values():
        for event in log:
            if event.source.channel_id != "ai":
                for word in WORD.findall(event.text):
                    places[word].append(event)
    for said in world.said:
        found = places.get(said.word, [])
        if len(said.answers) > 1:
            yield f"{said.word} was acknowledged at {sorted(said.answers)}: a repetition gets the first answer"
        place = logs.get((said.tenant, said.room), [])[said.index : said.index + 1] if said.index >= 0 else []
        if place and not said.silent and said.word not in place[0].text and not _erased(place[0]):
            yield f"{said.word} was acknowledged at {said.room}[{said.index}], where {place[0].text!r} is stored"
        if len(found) > 1:
            yield f"{said.word} is stored {len(found)} times: {[f'{e.room_id}[{e.index}]' for e in found]}"
        if said.acked_at is None and said.refused and found and not found[0].blocked:
            yield f"{said.word} was refused ({said.refused}) and is stored at {found[0].room_id}[{found[0].index}]"
        if said.acked_at is None and not said.refused and said.channel != "host":
            yield f"{said.word} was never answered"


def _rows(disk: Disk, world: World) -> Iterator[str]:
    for kind in OPEN_ROWS:
        for record in disk.read(RecordQuery(kind, None, limit=1000)):
            yield f"a {kind} row is left open: {record.key!r}"
    for record in disk.read(RecordQuery("journal", None, limit=10_000)):
        if record.value["status"] == "pending" and (record.tenant, record.room_id) not in world.copies:
            yield f"the call {record.key!r} of {record.value['name']} has no outcome"
    now = world.processes[-1].kit.now().timestamp()
    for record in disk.read(RecordQuery("timer", None, limit=1000)):
        if record.due is not None and record.due < now - LATE_S:
            yield f"the timer {record.key!r} is {now - record.due:.0f} s late"
    for record in disk.read(RecordQuery("approval", None, limit=1000)):
        late = datetime.fromisoformat(record.value["expires_at"]).timestamp() < now - LATE_S
        if record.value["status"] == "pending" and late and (record.tenant, record.room_id) not in world.copies:
            yield f"the approval {record.key!r} has expired, and nobody was told"


def _pages(world: World, logs: Logs) -> Iterator[str]:
    texts = {event.id: event.text for log in logs.values() for event in log if not _erased(event)}
    for page in world.pages:
        yield from page.wrong
        if page.open:
            yield f"{page.name} still waits for the end of {list(page.open)}"
        if page.spans:
            span, log = page.spans[-1], logs.get(page.spot, [])
            head = max((index for index, *_ in span.seen), default=span.start)
            last = next((e.index for e in reversed(log) if page.staff or rights.may_see(e, page.name)), -1)
            if max(head, span.start) < last:
                yield f"{page.name} was last told {head} of {page.spot}, which goes on to {last}"
        for event_id, text in page.texts.items():
            if event_id in texts and texts[event_id] != text:
                yield f"{page.name} saw {event_id} as {text!r}, stored is {texts[event_id]!r}"


def _told(event: RoomEvent, name: str) -> Any:
    """A fact of a record of the room's life."""
    return event.content.data.get(name) if isinstance(event.content, SystemContent) else None


def _erased(event: RoomEvent) -> bool:
    return bool(event.metadata.get("erased"))


class Book:
    """What the disk says about deliveries, read once for all who ask."""

    def __init__(self, disk: Disk, logs: Logs) -> None:
        self.logs = logs
        self.said = [event for _, _, batch in disk.batches for event in batch.events]
        self.records = {
            (row.tenant, row.key): row.value for row in disk.read(RecordQuery("delivery", None, limit=MOST))
        }
        rows = [
            (put.tenant, put.key, put.value)
            for _, _, batch in disk.batches
            for put in batch.put
            if put.kind == "outbox"
        ]
        self.planned = {(tenant, key): str(value["channel"]) for tenant, key, value in rows}

    def delivery(self, place: Place, channel: str) -> dict[str, Any] | None:
        tenant, room, index = place
        return self.records.get((tenant, f"{room}\n{index:010d}\n{channel}"))


def _vendor(vendor: Vendor, book: Book) -> Iterator[str]:
    """At least once, nothing of its own making, and every doubt told."""
    yield from _repeated(vendor)
    taken: dict[Place, list[Receipt]] = defaultdict(list)
    for receipt in vendor.receipts:
        taken[receipt.tenant, receipt.room, receipt.index].append(receipt)
    for place, receipts in taken.items():
        yield from _taken(vendor, book, place, receipts)
    if vendor.name in vendor.world.channels:
        for event in book.said:
            yield from _planned(book, vendor, event)
    for (tenant, row), channel in book.planned.items():
        if channel != vendor.name:
            continue
        room, number, _ = row.split("\n")
        record = book.delivery((tenant, room, index := int(number)), vendor.name)
        if record is None and _erased(book.logs[tenant, room][index]):
            continue
        if record is None:
            yield f"what became of {room}[{index}] on its way to {vendor.name} is not recorded"
        elif record["state"] in ("sent", "delivered", "read") and (tenant, room, index) not in taken:
            yield f"{vendor.name} never got {room}[{index}], which counts as {record['state']}"


def _taken(vendor: Vendor, book: Book, place: Place, receipts: list[Receipt]) -> Iterator[str]:
    tenant, room, index = place
    where = f"{tenant}/{room}[{index}]"
    stored = book.logs.get((tenant, room), [])[index : index + 1]
    event = stored[0] if stored else None
    same = event is not None and all(
        receipt.event_id == event.id and (receipt.text == event.text or _erased(event)) for receipt in receipts
    )
    if not same:
        yield f"{vendor.name} got {where} as something else than what is stored"
    if event is not None and not rights.may_go_out(event, vendor):
        yield f"{vendor.name} got {where}, which was not for it"
    record = book.delivery(place, vendor.name)
    if len(receipts) > 1 and not vendor.policy.idempotent:
        if vendor.policy.on_ambiguous == "stop_and_ask":
            yield f"{vendor.name} got {where} {len(receipts)} times, although it is to be asked before"
        elif record is not None and not record.get("maybe_duplicate"):
            yield f"{vendor.name} got {where} {len(receipts)} times, and the record does not say so"


def _planned(book: Book, vendor: Vendor, event: RoomEvent) -> Iterator[str]:
    """In these rooms everything said goes to every channel of theirs but its own."""
    if event.type is not EventType.MESSAGE or event.status is not EventStatus.COMMITTED or event.visibility != "all":
        return
    spot = (event.tenant, event.room_id)
    if event.source.channel_id == vendor.name or spot not in vendor.world.spots:
        return
    if book.delivery((*spot, event.index), vendor.name) is None and not _erased(book.logs[spot][event.index]):
        yield f"{event.room_id}[{event.index}] of {event.tenant} was never on its way to {vendor.name}"


def _tools(world: World, logs: Logs) -> Iterator[str]:
    """Intent before, one result after, allowed where it must be, and never again unless it may."""
    told = {run.key: run for run in world.runs}
    for run in world.runs:
        if not run.noted:
            yield f"{run.name} ran for {run.order} before its intent was on the disk"
    for key, count in Counter(run.key for run in world.runs).items():
        if count > 1 and told[key].name != "lookup":
            yield f"{told[key].name} ran {count} times under {key}, although it must not be run again"
    granted = Counter(
        _told(event, "arguments").get("order")
        for _, _, batch in world.disk.batches  # As it was said: who asked for it may have been erased since.
        for event in batch.events
        if event.type is EventType.APPROVAL_ANSWERED
        and _told(event, "granted")
        and (event.tenant, event.room_id) in logs
    )
    for order, count in Counter(run.order for run in told.values() if run.name == "wipe").items():
        if count > granted[order]:
            yield f"wipe ran {count} times for {order}, allowed were {granted[order]}"
    yield from _calls(world, logs, told)


def _calls(world: World, logs: Logs, told: dict[str, Run]) -> Iterator[str]:
    """Every call that ran has one beginning and one end in the log, and no question leads to tools twice."""
    steps: Counter[tuple[str, bool]] = Counter()
    causes: dict[str, str] = {}
    for log in logs.values():
        for event in log:
            if isinstance(event.content, ToolCallContent):
                turn, begins = str(event.correlation_id), event.type is EventType.TOOL_CALL_START
                causes[turn] = event.metadata.get("cause", "") or causes.get(turn, "")
                steps[f"{turn}:{event.content.call_id}", begins] += 1
    closed = {spot for spot, log in logs.items() if any(e.type is EventType.ROOM_CLOSED for e in log)}
    for key, run in told.items():
        count = (steps[key, True], steps[key, False])
        if (run.tenant, run.room) not in closed and count != (1, 1):
            yield f"the call {key} of {run.name} has {count[0]} beginnings and {count[1]} ends in the log"
    if world.turns.on_crash == "close":
        turns = {run.key.split(":")[0] for run in world.runs if run.name != "lookup"}
        for cause, number in Counter(causes[turn] for turn in turns if causes.get(turn)).items():
            if number > 1:
                yield f"the question {cause} was asked again, although tools had run for it"


def _questions(world: World, logs: Logs) -> Iterator[str]:
    """Whatever asked a brain was seen by it, or the log says why not."""
    if not world.with_ai:
        return
    gone = {word for word, _ in world.gone}
    for tenant, room in world.spots:
        log = logs[tenant, room]
        mode, asking = FloorMode.AI, dict[str, tuple[str, int]]()
        for event in log:
            code = getattr(event.content, "code", "")
            if event.type is EventType.FLOOR_CHANGED:
                mode = FloorMode(_told(event, "mode"))
            if event.type.value in CUTS or code in CUTS:
                cut = [str(_told(event, "cause"))] if code == "reply_interrupted" else list(asking)
                for known in cut:
                    asking.pop(known, None)
            elif _asks(event) and mode in (FloorMode.AI, FloorMode.BOTH) and (found := WORD.findall(event.text)):
                asking[event.id] = (found[0], event.index)
        for word, index in asking.values():
            if word not in world.model.asked and word not in gone:
                yield f"{word} at {tenant}/{room}[{index}] asked the model, which never heard of it"


def _asks(event: RoomEvent) -> bool:
    fresh = event.type is EventType.MESSAGE and event.status is EventStatus.COMMITTED
    return fresh and event.source.channel_id != "ai" and event.addressed_to is None and event.visibility == "all"


def _floors(logs: Logs) -> Iterator[str]:
    """While a person has the floor, and for what was begun before, no machine is heard."""
    for (tenant, room), log in logs.items():
        mode = FloorMode.AI.value
        for event in log:
            if event.type is EventType.FLOOR_CHANGED:
                mode = _told(event, "mode")
            elif event.source.channel_id == "ai" and event.type is EventType.MESSAGE:
                late = (
                    mode in (FloorMode.HUMAN.value, FloorMode.WAITING.value) and event.status is EventStatus.COMMITTED
                )
                if late and event.metadata.get("end_reason") not in ("cancelled", "interrupted"):
                    yield f"the AI spoke at {tenant}/{room}[{event.index}] although the floor was {mode}"


def _checkpoints(world: World, logs: Logs) -> Iterator[str]:
    """What a checkpoint has kept of a reply is in its message, however it ended."""
    stored = {event.id: event.text for log in logs.values() for event in log}
    stored |= {event.id: event.text for spot in world.copies for event in world.disk.log(*spot)}
    closed = {spot for spot, log in logs.items() if any(e.type is EventType.ROOM_CLOSED for e in log)}
    kept: dict[str, tuple[str, str]] = {}
    words: dict[str, str] = defaultdict(str)
    for _, _, batch in world.disk.batches:
        for put in batch.put:
            if put.kind == "words":
                row = put.key.rpartition("\n")[0]
                words[row] = words[row][: put.value["start"]] + put.value["text"]
        for put in batch.put:
            if put.kind == "stream" and (put.tenant, put.room_id) not in closed:
                text = words[put.key][: put.value.get("start", 0)] + put.value["text"]
                if text:
                    kept[put.value["id"]] = (text, put.key)
    for stream_id, (text, key) in kept.items():
        if not stored.get(stream_id, "").startswith(text):
            yield f"a checkpoint has kept {text!r} of {key!r}, {stored.get(stream_id)!r} is stored"


def _prefixes(world: World, logs: Logs) -> Iterator[str]:
    """What of a reply had been shown for long survives the process that made it."""
    if world.blackout or world.disk.broken or world.nodes > 1:  # Who told it need not be who made it.
        return
    stored = {event.id: event for log in logs.values() for event in log}
    for page in world.pages:
        for stream_id, (process, shown) in page.shown.items():
            if stream_id in page.ends or (died := world.trace.first(process.name, _ENDS)) is None:
                continue
            durable = max((text for at, text in shown if at <= died - KEPT_S), key=len, default="")
            event = stored.get(stream_id)
            if durable and (event is None or not event.text.startswith(durable)):
                kept = "nothing" if event is None else repr(event.text)
                yield f"{page.name} had been shown {durable!r} of {stream_id}, {kept} is stored"


_ENDS = ("dies", "free")


def _pauses(world: World, logs: Logs) -> Iterator[str]:
    """A room is paused once, and after it was idle for long enough."""
    for (tenant, room), log in logs.items():
        paused, active = False, log[0].created_at if log else None
        for event in log:
            if event.type is EventType.ROOM_PAUSED:
                if paused:
                    yield f"{tenant}/{room}[{event.index}] was paused again"
                idle = (event.created_at - active).total_seconds() if active is not None else 0.0
                if _told(event, "by") is None and idle < world.idle_s - 1e-3:
                    yield f"{tenant}/{room}[{event.index}] was paused after {idle:.3f} s"
                paused = True
            elif event.type in (EventType.ROOM_RESUMED, EventType.ROOM_REOPENED, EventType.ROOM_CLOSED):
                paused = False
            active = event.created_at if event.type is EventType.MESSAGE else active


def _taken_back(world: World) -> Iterator[str]:
    """A model is shown no words that their author has taken back or replaced, but in a copy that was made before."""
    if world.copies:
        return
    for word, since in world.gone:
        late = [at for at in world.model.asked.get(word, ()) if at > since + READ_S]
        if late:
            yield f"the model was shown {word} at {late[0]:.3f}, which was taken back at {since:.3f}"


async def _memory(world: World) -> list[str]:
    """What the process believes is what the disk has; its safety nets are empty."""
    wrong: list[str] = []
    for process in world.processes:
        counters = process.kit.engine.counters if process.counters is None else process.counters
        needed = [] if process.stale else [name for name in NETS if counters.get(name)]
        wrong += [f"the safety net {name} was needed {counters[name]:g} times in {process.name}" for name in needed]
    for process in world.processes:
        if process.alive and not process.stale:
            wrong += await _believed(world, process)
    return wrong


async def _believed(world: World, process: Process) -> list[str]:
    wrong: list[str] = []
    engine = process.kit.engine
    capabilities = {cid: channel.capabilities for cid, channel in engine.channels.items()}
    for actor in engine.table.actors():
        where = f"{actor.tenant}/{actor.room_id} of {process.name}"
        if process.lost(actor.tenant, actor.room_id):
            wrong.append(f"{where} is another's, and it does not know")
            continue
        stored = await load(world.disk.memory, actor.tenant, actor.room_id, capabilities)
        if stored is None:
            wrong.append(f"{where} is in memory only")
            continue
        names = ("room", "bindings", "participants", "next_index", "detached")
        other = [name for name in names if getattr(actor.state, name) != getattr(stored, name)]
        wrong += [f"{where}: {name} in memory is not what is stored" for name in other]
    return wrong
