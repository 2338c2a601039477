"""`rerankd batch` killed again and again, and once on a full disk, against a run that nothing disturbs.

    python benchmarks/batch_kills.py --model TINY --pairs 1000000 --kills 50 --folder /tmp/kills

Writes the input as files of 5,000 pairs (50 queries with 100 documents each), scores it once undisturbed, and once with
SIGKILLs at random moments of start and work. The disturbed output is in a tmpfs that is full half way and is then
enlarged: that needs root. Compares every byte, checks that each pair is there once and in order, and prints time and
memory of both.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rerankd.bench.workloads import WORDS

RECORDS, DOCUMENTS = 50, 100
"""Of a file, which is one unit of work."""

ROW_BYTES = 135
"""Of a pair in the output, about."""


@dataclass(frozen=True)
class Ended:
    """How a process ended: killed by us, on a full disk, or done; its seconds, and its processor's."""

    how: str
    wall_s: float
    cpu_s: float


def write_input(folder: Path, pairs: int, seed: int) -> None:
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    for number in range(pairs // (RECORDS * DOCUMENTS)):
        with (folder / f"in-{number:05}.jsonl").open("w") as file:
            for record in range(RECORDS):
                query = " ".join(rng.choices(WORDS, k=6))
                documents = [" ".join(rng.choices(WORDS, k=8)) for _ in range(DOCUMENTS)]
                file.write(json.dumps({"id": f"{number}-{record}", "query": query, "documents": documents}) + "\n")


def run(model: Path, source: Path, output: Path, kill_after_s: float | None = None) -> Ended:
    """One process. Raises RuntimeError: it ended in a way that nobody meant."""
    command = [sys.executable, "-m", "rerankd", "batch", "--model", str(model), "--dtype", "float32"]
    command += ["--skip-self-test", str(source / "*.jsonl"), str(output)]
    began, before = time.monotonic(), _cpu_s()
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            process.wait(kill_after_s)
        except subprocess.TimeoutExpired:
            process.kill()
        status = process.wait()
        log.seek(0)
        said = log.read()
    how = "killed" if status < 0 else "done" if status == 0 else "full" if "No space left" in said else ""
    if not how:
        raise RuntimeError(f"It ended with {status}:\n{said}")
    return Ended(how, time.monotonic() - began, _cpu_s() - before)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes on the folder."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def disturbed(
    model: Path, source: Path, disk: Path, kills: int, plain: Ended, start_s: float, seed: int
) -> list[Ended]:
    """Runs until one is done: killed `kills` times, and stopped by the full disk on the way."""
    rng, runs = random.Random(seed), list[Ended]()
    longest = start_s + 1.2 * (plain.wall_s - start_s) / kills
    while not runs or runs[-1].how != "done":
        left = sum(one.how == "killed" for one in runs) < kills
        runs.append(run(model, source, disk / "out", rng.uniform(0.0, longest) if left else None))
        if runs[-1].how == "full":
            subprocess.run(["mount", "-o", "remount,size=4g", str(disk)], check=True)
        print(
            f"run {len(runs)}: {runs[-1].how} after {runs[-1].wall_s:.1f} s, {_units(disk / 'out')} units", flush=True
        )
    return runs


def _units(output: Path) -> int:
    return len(list(output.glob("part-*")))


def check(source: Path, output: Path) -> tuple[str, int]:
    """(digest over names and bytes, pairs). Raises AssertionError: a pair is missing, twice or out of order."""
    digest, pairs = hashlib.sha256(), 0
    expected = (
        (record["id"], index)
        for path in sorted(source.iterdir())
        for record in map(json.loads, path.open())
        for index in range(len(record["documents"]))
    )
    for path in sorted(output.glob("part-*")):
        digest.update(path.name.encode() + path.read_bytes())
        for row in map(json.loads, path.open()):
            assert (row["id"], row["index"]) == next(expected) and not row["error"], row
            pairs += 1
    assert next(expected, None) is None, "pairs are missing"
    assert {path.name for path in (output / "_rerankd").iterdir()} == {"lock", "manifest.json"}, "left behind"
    return digest.hexdigest(), pairs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="a small checkpoint")
    parser.add_argument("--folder", type=Path, required=True, help="a folder to make, for input and output")
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    source, plain, disk = asked.folder / "in", asked.folder / "plain", asked.folder / "disk"
    write_input(source, asked.pairs, asked.seed)
    undisturbed = run(asked.model, source, plain)
    memory_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    start_s = run(asked.model, source, plain).wall_s  # finds nothing to do
    wanted, pairs = check(source, plain)
    print(
        f"undisturbed: {pairs:,} pairs in {undisturbed.wall_s:.0f} s ({undisturbed.cpu_s:.0f} s of processor, "
        f"{start_s:.1f} s to start), {_units(plain)} files, {memory_mb:.0f} MB"
    )
    with small_disk(disk, asked.pairs * ROW_BYTES // 2):
        runs = disturbed(asked.model, source, disk, asked.kills, undisturbed, start_s, asked.seed)
        found, _ = check(source, disk / "out")
    kinds = {how: sum(one.how == how for one in runs) for how in ("killed", "full", "done")}
    seconds, cpu_s = sum(one.wall_s for one in runs), sum(one.cpu_s for one in runs)
    print(f"disturbed: {kinds}, {seconds:.0f} s ({cpu_s:.0f} s of processor); byte-equal: {found == wanted}")
    return 0 if found == wanted and kinds["killed"] >= asked.kills and kinds["full"] else 1


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
