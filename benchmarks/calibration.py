"""What a calibration is worth on questions that did not take part in it: XQuAD, the embedded model, two halves.

    python benchmarks/calibration.py FOLDER              # with xquad.{en,de,zh,ar}.json of google-deepmind/xquad
    python benchmarks/calibration.py FOLDER --depth 50 --languages en

The commands are those of a user: BM25 and the model over each half, and `rerankd calibrate` from the first half. The
figures are of the second half: of sigmoid(logit), and of the calibrated probabilities.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from xquad import write

from rerankd.calibration.profile import Calibration
from rerankd.calibration.report import Figures, figures
from rerankd.cli.judged import of_run
from rerankd.cli.main import main as rerankd


def of_half(folder: Path, split: str, depth: int) -> Path:
    """The reranked candidates of one half of the questions."""
    out = folder / f"{split}.jsonl"
    options = ["--split", split, "--depth", str(depth), "--model", "embedded", "-o", str(out)]
    assert rerankd(["rerank", str(folder), "--first", "bm25", *options]) == 0
    return out


def held_out(folder: Path, depth: int) -> tuple[int, Figures, Figures]:
    """Candidates of the second half, and the figures of their scores before and after calibration by the first."""
    fit, test = (of_half(folder, split, depth) for split in ("fit", "test"))
    profile = folder / "xquad.toml"
    assert rerankd(["calibrate", "--run", str(fit), "--qrels", str(folder / "qrels/fit.tsv"), "-o", str(profile)]) == 0
    scored, curve = of_run(test, folder / "qrels" / "test.tsv"), Calibration.load(profile).curve
    logits = np.array([logit for found in scored.logits for logit in found])
    labels = np.array([float(grade > 0) for grades in scored.grades for grade in grades])
    after = np.array([curve.probability(logit) for logit in logits])
    return len(labels), figures(np.exp(-np.logaddexp(0, -logits)), labels), figures(after, labels)


def run(source: Path, languages: Sequence[str], depth: int) -> None:
    """Prints a row for each language."""
    rows = ["language  candidates  ECE: score  calibrated   Brier: score  calibrated"]
    for language in languages:
        with TemporaryDirectory() as folder:
            write(source / f"xquad.{language}.json", Path(folder))
            number, before, after = held_out(Path(folder), depth)
        found = f"{before.ece:>12.4f}{after.ece:>12.4f}{before.brier:>15.4f}{after.brier:>12.4f}"
        rows.append(f"{language:<8}{number:>12,}{found}")
        print("\n".join(rows), flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--languages", nargs="+", default=["en", "de", "zh", "ar"])
    parser.add_argument("--depth", type=int, default=30)
    options = parser.parse_args()
    run(options.folder, options.languages, options.depth)


if __name__ == "__main__":
    main()
