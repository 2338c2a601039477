"""Draws documents per second by document length from `rerankd bench --json`, against what the machine can multiply.

rerankd bench --random-weights 0.6B --workload 100x10 100x30 100x105 … --dtype bfloat16 int8 --json > lengths.json
pip install matplotlib && python benchmarks/plot.py lengths.json docs/lengths.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

COLORS = {"bfloat16": "#2563eb", "int8": "#ea580c", "float32": "#64748b"}


def main(source: Path, target: Path) -> None:
    """Reads the measurements and writes the picture; one line a dtype, its limit dashed."""
    report = json.loads(source.read_text())
    figure, axes = plt.subplots(figsize=(8, 4.5))
    for dtype, color in COLORS.items():
        rows = [row for row in report["results"] if row["dtype"] == dtype and row["system"] == "rerankd"]
        if not rows:
            continue
        lengths = [int(row["workload"].partition("x")[2]) for row in rows]
        rates = [row["documents_per_s"] for row in rows]
        limits = [row["documents_per_s"] / row["of_limit"] for row in rows]
        axes.plot(lengths, rates, marker="o", color=color, label=f"{dtype}")
        axes.plot(lengths, limits, linestyle="--", color=color, alpha=0.6, label=f"{dtype}: matrix products alone")
    axes.set(xscale="log", yscale="log", xlabel="tokens of a document", ylabel="documents a second")
    axes.set_title(f"Qwen3-Reranker shapes, {report['model']}; {report['machine']}", fontsize=8)
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
