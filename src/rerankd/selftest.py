"""The known-answer check: does this model rank what everybody knows, and is it the model it says it is?

A server that forgets the template, picks the wrong head or misreads the weights still answers 200 with
plausible numbers. This catches it before anyone is served.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from rerankd.errors import SelfTestFailed
from rerankd.ranking import Submits
from rerankd.types import ModelInfo, RerankRequest

QUERY = "Which planet is known as the Red Planet?"

# Logits of Qwen3-Reranker-0.6B in float32 with the default instruct, asserted to 1e-4 by sentence-transformers:
# tests/cross_encoder/test_model.py, test_qwen3_reranker_formatted_pairs.
PUBLISHED_0_6B = {
    "Venus is often called Earth's twin because of its similar size and proximity.": -3.109297752380371,
    "Mars, known for its reddish appearance, is often referred to as the Red Planet.": 7.120389938354492,
    "Jupiter, the largest planet in our solar system, has a prominent red spot.": -0.3787546157836914,
    "Saturn, famous for its rings, is sometimes mistaken for the Red Planet.": 3.541637420654297,
}
VENUS, MARS, JUPITER, SATURN = PUBLISHED_0_6B

# Also asked of a model without published logits: a broken one puts the right one of four documents first by chance.
OTHER_QUESTIONS = {
    "Which planet is called Earth's twin?": (VENUS, MARS, JUPITER, SATURN),
    "Which planet is the largest in our solar system?": (JUPITER, VENUS, MARS, SATURN),
}
"""Query → documents, of which the first one answers."""

# Asked of the embedded model, which claims to read these languages.
IN_OTHER_LANGUAGES = {
    "Welcher Planet wird der Rote Planet genannt?": (
        "Der Mars heißt wegen seines rostfarbenen Bodens auch der Rote Planet.",
        "Die Venus ist der Erde in Größe und Masse ähnlich.",
        "Der Jupiter ist der größte Planet des Sonnensystems und hat einen großen roten Fleck.",
    ),
    "哪颗行星被称为红色星球？": (
        "火星因其表面呈红色，常被称为红色星球。",
        "金星的大小和质量与地球相近。",
        "木星是太阳系中最大的行星，有一个大红斑。",
    ),
    "أي كوكب يسمى الكوكب الأحمر؟": (
        "المريخ معروف بلونه المحمر ويسمى غالبا الكوكب الأحمر.",
        "الزهرة قريبة من الأرض في حجمها وكتلتها.",
        "المشتري أكبر كواكب المجموعة الشمسية وفيه بقعة حمراء كبيرة.",
    ),
}

# float32 sums in another order than CUDA's; bfloat16 has 8 bits of mantissa.
TOLERANCE = {"float32": 0.01, "bfloat16": 0.75, "int8": 1.5}
MIN_SPREAD = 0.5  # logits; a model that reads the texts spreads these four over several


@dataclass(frozen=True, slots=True)
class SelfTest:
    """The check's outcome. `logits`: document → logit. `verdict`: one sentence."""

    status: Literal["published", "sane", "failed"]
    verdict: str
    logits: dict[str, float]

    def raise_if_failed(self) -> None:
        """Raises SelfTestFailed with the verdict and the way out."""
        if self.status == "failed":
            raise SelfTestFailed(
                f"The model failed its known-answer check: {self.verdict} It is not served. Check that the "
                "checkpoint is complete and is a reranker (rerankd doctor --model …), or start with "
                "--skip-self-test to serve it all the same."
            )


def run_self_test(scorer: Submits) -> SelfTest:
    """Scores four documents about planets and judges the logits. Asks further questions where none are published."""
    outcome = _judge(_scored(QUERY, tuple(PUBLISHED_0_6B), scorer), scorer.info)
    if outcome.status != "sane":
        return outcome
    reads_languages = scorer.info.kind == "bi-encoder"
    for query, documents in (IN_OTHER_LANGUAGES if reads_languages else OTHER_QUESTIONS).items():
        logits = _scored(query, documents, scorer)
        if max(logits, key=logits.__getitem__) != documents[0]:
            return SelfTest("failed", f"the document that answers {query!r} is not ranked first.", outcome.logits)
    if not reads_languages:
        return outcome
    return replace(outcome, verdict=f"{outcome.verdict.removesuffix('.')}; also right in German, Chinese and Arabic.")


def _scored(query: str, documents: tuple[str, ...], scorer: Submits) -> dict[str, float]:
    logits = scorer.submit(scorer.prepare(RerankRequest((query,), documents))).result()
    return dict(zip(documents, logits.values, strict=True))


def _judge(logits: dict[str, float], info: ModelInfo) -> SelfTest:
    values = logits.values()
    if not all(math.isfinite(value) for value in values):
        return SelfTest("failed", "a score is not a number.", logits)
    spread = max(values) - min(values)
    if spread < MIN_SPREAD:
        return SelfTest("failed", f"all scores are nearly equal (logits within {spread:.2g}).", logits)
    if max(logits, key=logits.__getitem__) != MARS:
        return SelfTest("failed", "the document that answers the question is not ranked first.", logits)
    if not _is_0_6b(info):
        return SelfTest("sane", f"the right document is first, logits spread over {spread:.1f}.", logits)
    drift = max(abs(logits[document] - logit) for document, logit in PUBLISHED_0_6B.items())
    if drift <= TOLERANCE[info.dtype]:
        return SelfTest("published", f"the published logits of Qwen3-Reranker-0.6B to {drift:.2g}.", logits)
    return SelfTest(
        "sane",
        f"the order is right, but the logits are up to {drift:.2g} away from those published for "
        "Qwen3-Reranker-0.6B: a fine-tuned or altered checkpoint?",
        logits,
    )


def _is_0_6b(info: ModelInfo) -> bool:
    return info.kind == "qwen3" and 590_000_000 < info.num_parameters < 600_000_000
