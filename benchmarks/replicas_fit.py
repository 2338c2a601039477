"""Fits the simulation of `rerankd plan` to one measured replica, and compares what it says of the others.

    python benchmarks/replicas.py --model ./random-0.6B --replicas 1 2 --words 60 | python benchmarks/replicas_fit.py

Reads that table, and prints it first. The rate of a replica is the capacity of the first row; the hop between front and
replica is the one of HOPS_MS whose simulated P50 is nearest to that row's. Then it simulates each row's load, and
the growth from 1 to 8 and 64 replicas at full load.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass, replace

from rerankd.capacity.assumptions import Replica, Surroundings
from rerankd.capacity.load import Mix
from rerankd.capacity.plan import row
from rerankd.capacity.scaling import growth
from rerankd.capacity.simulation import System

HOPS_MS = (0, 1, 2, 5, 10, 20, 40, 80)

NUM_CALLS = 2000


@dataclass(frozen=True)
class Measured:
    """A row of the table."""

    replicas: int
    capacity: float
    calls_per_s: float
    documents_per_s: float
    p50_s: float
    p95_s: float


def rows_of(text: str) -> list[Measured]:
    """Raises SystemExit: there are no rows."""
    found = re.findall(r"^(\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", text, re.MULTILINE)
    if not found:
        raise SystemExit("There is no row of benchmarks/replicas.py on the standard input.")
    return [Measured(int(first), *map(float, others)) for first, *others in found]


def fitted(one: Measured, mix: Mix, batch_tokens: int) -> System:
    """The system whose P50 with one replica is nearest to the measured one."""
    replica = Replica.from_rate(one.capacity, round(mix.tokens), batch_tokens)
    systems = [System(1, replica, around=Surroundings(hop_s=ms / 1000, database_s=0)) for ms in HOPS_MS]
    load = one.calls_per_s * mix.documents
    return min(systems, key=lambda system: abs(row(system, mix, load, num_calls=NUM_CALLS).p50_s - one.p50_s))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--documents", type=int, default=20, help="of a call, as given to replicas.py")
    parser.add_argument("--words", type=int, default=60, help="of a document, as given to replicas.py")
    parser.add_argument("--batch-tokens", type=int, default=512)
    asked = parser.parse_args()
    text = sys.stdin.read()
    print(text, end="")
    measured = rows_of(text)
    mix = Mix([(asked.documents, asked.words)], spread=0)  # one token a word
    system = fitted(measured[0], mix, asked.batch_tokens)
    print(f"fitted: {measured[0].capacity:.1f} documents/s a replica, a hop of {system.around.hop_s * 1000:g} ms")
    print("replicas | documents/s measured, simulated at full load | P50 s | P95 s")
    full = growth(system, mix, [one.replicas for one in measured], None)
    for one, grown in zip(measured, full, strict=True):
        found = row(replace(system, replicas=one.replicas), mix, one.calls_per_s * asked.documents, num_calls=NUM_CALLS)
        rates = f"{one.capacity:.1f}, {grown.full:.1f}"
        times = f"{one.p50_s:.3f}, {found.p50_s:.3f} | {one.p95_s:.3f}, {found.p95_s:.3f}"
        print(f"{one.replicas} | {rates} | {times}")
    numbers = (1, 8, 64)
    for number, grown in zip(numbers, growth(system, mix, numbers, None), strict=True):
        print(f"{number} replicas, simulated: {grown.full:.0f} documents/s, {grown.full_share:.1%} of linear")


if __name__ == "__main__":
    main()
