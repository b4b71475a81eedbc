"""Meters: every number of a kit that `/metrics` shows, with a name that stays and a line of help (D43).

Counters and histograms are moved where the thing happens; whatever can be read off the machine is read only when
somebody asks.
"""

from __future__ import annotations

import logging
from collections import Counter as Tally
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from uuid import uuid4

from roomkit.models.room import RoomStatus
from roomkit.runtime import Metrics, Stall

if TYPE_CHECKING:
    from roomkit.core.engine import Engine

log = logging.getLogger(__name__)
TURN_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)

COUNTERS = {
    "inbound": "Messages that channels brought, repetitions and refused ones included.",
    "duplicates": "Messages brought again that had been taken before.",
    "events": "Events committed.",
    "delivered": "Deliveries that the other side took.",
    "delivery_skipped": "Deliveries not made because a rule or a right stood against it.",
    "notes_refused": "Notes of what became of a delivery that the store would not take.",
    "delivery_retries": "Further attempts at a delivery.",
    "sent_another_way": "Deliveries that went the second way of their channel because the first had failed.",
    "deliveries_held": "Deliveries held until a quiet hour is over.",
    "digests": "Digests sent instead of single messages.",
    "consent_stopped": "Opt-outs written into the ledger.",
    "consent_started": "Opt-ins written into the ledger.",
    "dead_letters": "Deliveries given up for good.",
    "breaker_changes": "Circuit breakers that opened, half opened or closed.",
    "unknown_delivery_status": "Status reports of vendors about messages unknown here.",
    "turn_errors": "Turns that ended because a brain failed.",
    "rooms_created": "Rooms created.",
    "mailbox_overloaded": "Operations refused because too many waited in their room.",
    "process_timeouts": "Messages refused because preparing them took too long.",
    "refused_room_closed": "Messages refused because their room is closed.",
    "identity_errors": "Failures of the identity resolver.",
    "attachments_not_fetched": "Attachments that could not be brought from the vendor.",
    "source_errors": "Messages of a source that were not taken.",
    "source_restarts": "Sources started again after a failure.",
    "task_failures": "Tasks of the kit that failed unexpectedly.",
    "write_errors": "Commits that the store refused or could not make.",
    "write_retries": "Writes repeated until the store worked again.",
    "loop_stalls": "Times the event loop was blocked for longer than the threshold.",
    "observers_dropped": "Observations not made because too many were under way.",
    "node_calls": "Questions that other processes of this deployment have answered.",
    "node_take_overs": "Silent or leaving processes whose rooms were taken over.",
    "node_rooms_lost": "Rooms that another process has taken over from this one.",
    "node_revivals": "Times this process was taken for dead and began again.",
    "node_views_moved": "Views that went on at a room's next owner.",
    "consumed": "Events handed to durable consumers, repetitions included.",
    "consumer_retries": "Events handed to a consumer again because it failed or gave them back.",
    "erasures": "Rooms from which somebody was erased.",
    "consumer_errors": "Failures of a consumer's own notes and reads, after which it tried again.",
    "consumer_dead_letters": "Events that a consumer could not take and that were put aside.",
    "inbox_taken": "Messages that the host wrote in its own transactions and that became events.",
    "inbox_refused": "Such messages that no room could take; they are kept aside.",
    "sealed": "Events sealed into audit chains.",
    "seal_errors": "Rooms that could not be sealed; it is tried again.",
    "store_commits": "Batches the store has written.",
    "store_duplicates": "Batches refused by the store because their dedupe key exists.",
    "store_transactions": "Transactions of the store; one may hold many batches.",
    "store_failures": "Transactions that failed, for instance because the disk is full.",
}
"""Counters of `Engine.count` and of stores; exported as `roomkit_<name>_total`."""

GAUGES = {
    "store_writable": "1 while the store takes writes, 0 from a failed write until one works again.",
    "store_pending": "Batches waiting for the store.",
    "leases": "1 while this process holds the lock of a durable store, else 0.",
    "rooms_resident": "Rooms in memory.",
    "rooms_waiting": "Rooms that wait for a person.",
    "outbox_backlog": "Deliveries waiting or under way.",
    "outbox_oldest_seconds": "Age of the oldest event that still waits for a delivery.",
    "dead_letters_kept": "Dead letters that nobody has sent again yet.",
    "turns_active": "Turns under way.",
    "turns_waiting": "Questions whose turn has not begun.",
    "mailbox_depth": "Operations waiting in all rooms.",
    "mailbox_depth_max": "Operations waiting in the fullest room.",
    "timers": "Timers set.",
    "tasks": "Tasks of the kit under way.",
}
"""Read when asked for; exported as `roomkit_<name>`."""

_UNKNOWN = "Counted by a part of this kit."


class Meters:
    """The metrics of one kit. Prometheus text from `render`, plain numbers from `numbers`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.run = uuid4().hex
        """Tells what this process has written down from what others have."""
        made = self.registry = Metrics()
        self.commit = made.histogram("roomkit_commit_seconds", "From asking the store to the durable commit.").labels()
        self.turn = made.histogram(
            "roomkit_turn_seconds", "From the begin of a turn to its committed end.", ["channel"], TURN_SECONDS
        )
        self.first_token = made.histogram(
            "roomkit_first_token_seconds", "From the begin of a turn to its first word.", ["channel"], TURN_SECONDS
        )
        self.tokens = made.counter(
            "roomkit_tokens_total",
            "Tokens used, by kind; the cache kinds are parts of input, thinking is part of output.",
            ["channel", "model", "kind"],
        )
        self.spend = made.counter(
            "roomkit_spend_total", "Money spent on models, in the currency of SpendLimits.cost.", ["channel", "model"]
        )
        self._lag = made.gauge(
            "roomkit_lane_lag_events", "Most events that one room's lane of this channel is behind.", ["channel"]
        )
        self._age = made.gauge(
            "roomkit_lane_lag_seconds", "Age of the oldest event in any lane of this channel.", ["channel"]
        )
        self._rooms = made.gauge("roomkit_rooms", "Rooms in memory, by status.", ["status"])

    def stalled(self, stall: Stall) -> None:
        """On the watchdog's thread, which alone counts stalls."""
        self._engine.count("loop_stalls")
        frame = [line.strip() for line in stall.stack.splitlines() if line.lstrip().startswith("File ")]
        log.warning("the event loop has been blocked for %.1f s, by %s", stall.seconds, frame[-1] if frame else "?")
        log.debug("the loop's stack:\n%s", stall.stack)

    def spent(self, channel_id: str, usage: Mapping[str, int], model: str | None, money: float) -> None:
        """One generation of a channel's turn."""
        for counter, tokens in usage.items():
            if tokens:
                self.tokens.labels(channel_id, model or "", counter.removesuffix("_tokens")).inc(tokens)
        if money:
            self.spend.labels(channel_id, model or "").inc(money)

    def turn_ended(self, channel_id: str, seconds: float, first_token_s: float | None) -> None:
        self.turn.labels(channel_id).observe(seconds)
        if first_token_s is not None:
            self.first_token.labels(channel_id).observe(first_token_s)

    def numbers(self) -> dict[str, float]:
        """Counters and gauges by name."""
        engine = self._engine
        health = engine.store.health()
        depths = [actor.depth for actor in engine.table.actors()]
        return {
            **engine.counters,
            **{f"store_{name}": value for name, value in health.counters.items()},
            "observers_dropped": engine.hooks.dropped,
            "store_writable": float(health.writable),
            "store_pending": health.pending,
            "leases": float(engine.info.durable and engine.started),
            "rooms_resident": len(depths),
            "rooms_waiting": len(engine.attention),
            "outbox_backlog": engine.lanes.backlog,
            "outbox_oldest_seconds": max((age for _, _, age in engine.lanes.lags()), default=0.0),
            "dead_letters_kept": engine.lanes.dead,
            "turns_active": engine.turns.active(),
            "turns_waiting": engine.turns.waiting(),
            "mailbox_depth": sum(depths),
            "mailbox_depth_max": max(depths, default=0),
            "timers": len(engine.timers),
            "tasks": len(engine.scope),
        }

    def render(self) -> str:
        """The Prometheus text format, version 0.0.4."""
        self._look()
        numbers = {**dict.fromkeys(("write_errors", "loop_stalls", "dead_letters"), 0.0), **self.numbers()}
        lines = [self.registry.render().rstrip("\n")]
        for name, value in sorted(numbers.items()):
            lines += _plain(name, value)
        return "\n".join(filter(None, lines)) + "\n"

    def _look(self) -> None:
        """Sets what has labels; a label once shown stays, at 0."""
        worst: dict[str, tuple[int, float]] = {}
        for channel_id, waiting, age in (*self._engine.lanes.lags(), *self._engine.turns.lags()):
            most, oldest = worst.get(channel_id, (0, 0.0))
            worst[channel_id] = (max(most, waiting), max(oldest, age))
        for channel_id, channel in self._engine.channels.items():
            if channel.reach != "cursor":
                most, oldest = worst.get(channel_id, (0, 0.0))
                self._lag.labels(channel_id).set(most)
                self._age.labels(channel_id).set(oldest)
        rooms = Tally(actor.state.room.status.value for actor in self._engine.table.actors())
        for status in RoomStatus:
            self._rooms.labels(status.value).set(rooms[status.value])


def _plain(name: str, value: float) -> Iterator[str]:
    if name in GAUGES:
        kind, text, shown = "gauge", GAUGES[name], f"roomkit_{name}"
    else:
        kind, text, shown = "counter", COUNTERS.get(name, _UNKNOWN), f"roomkit_{name}_total"
    yield f"# HELP {shown} {text}"
    yield f"# TYPE {shown} {kind}"
    yield f"{shown} {value:.17g}"


__all__ = ["COUNTERS", "GAUGES", "Meters"]
