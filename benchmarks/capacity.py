"""The tables of docs/capacity.md: a simulated system with 1 to 1,000 replicas.

python benchmarks/capacity.py --rate 8 --p95 6
python benchmarks/capacity.py --rate 2300 --batch-tokens 16384 --p95 0.1
"""

from __future__ import annotations

import argparse

from rerankd.capacity.assumptions import Replica, Surroundings
from rerankd.capacity.load import Mix
from rerankd.capacity.scaling import growth
from rerankd.capacity.simulation import System

NUMBERS = (1, 2, 4, 8, 16, 64, 256, 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, required=True, help="documents a second of one replica")
    parser.add_argument("--batch-tokens", type=int, default=512)
    parser.add_argument("--documents", type=int, default=20, help="of a call")
    parser.add_argument("--tokens", type=int, default=300, help="of a document")
    parser.add_argument("--database-ms", type=float, default=0.5, help="of a call; 0 without accounts (default: 0.5)")
    parser.add_argument("--p95", type=float, required=True, help="seconds")
    parser.add_argument("--replicas", type=int, nargs="+", default=NUMBERS)
    asked = parser.parse_args()
    around = Surroundings(database_s=asked.database_ms / 1000)
    system = System(1, Replica.from_rate(asked.rate, asked.tokens, asked.batch_tokens), around=around)
    print(
        "| replicas | fronts | full load, documents/s | of linear | in time, documents/s | P50 s | P95 s |"
        " front | network | database |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    mix = Mix([(asked.documents, asked.tokens)])
    for number, one in zip(asked.replicas, growth(system, mix, asked.replicas, asked.p95), strict=False):
        row = one.in_time
        cells = [f"{number:,}", f"{row.fronts if row else '–'}", f"{one.full:,.4g}", f"{one.full_share:.1%}"]
        if row is None:
            cells += ["–"] * 6
        else:
            cells += [f"{row.documents_per_s:,.4g}", f"{row.p50_s:.3g}", f"{row.p95_s:.3g}"]
            cells += [f"{row.busy[kind]:.1%}" for kind in ("fronts", "network", "database")]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
