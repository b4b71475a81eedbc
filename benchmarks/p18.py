"""P18: ten thousand room sockets on one server process: what each costs, and how soon all are back after a kill -9."""

from __future__ import annotations

import sys

from benchmarks.measure import Figure, Meter, Report
from proofs.storm import BACK_S, KB_EACH, prove

TITLE = "room sockets on one server process, which is killed under them"


async def run(meter: Meter) -> Report:
    if not sys.platform.startswith("linux"):
        return Report([], ("not measured: needs /proc and fork",))
    before = meter.speed()
    clients = meter.size(10_000, 60)
    proof = await prove(clients, 0)
    slow = (before + meter.speed()) / 2
    assert not [what for what in proof.wrong if "not within" not in what], proof.wrong
    back, entered = proof.slowest["until all were back"], proof.slowest["until all were in"]
    cpu = proof.slowest["CPU of the server until then"]
    return Report(
        [
            Figure("server memory per client", proof.figures["KB_per_client"], "KB", KB_EACH),
            Figure("all back after the restart", back, "s", BACK_S, reference=back / slow),
            Figure("CPU of the server until then", cpu, "s", reference=cpu / slow),
            Figure("all in, at the first time", entered, "s", reference=entered / slow),
            Figure("clients, all resumed without a gap", proof.figures["resumed"], "clients", clients, "higher"),
        ],
        ("the clients run on the same machine, in two processes beside the server's one",),
    )
