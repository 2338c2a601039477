"""The prompt and the head of each family of rerankers on Qwen's networks, and which of them a checkpoint is.

One table, `FORMATS`. A checkpoint's own files say which row it is: the architecture, the chat template, `auto_map`;
its name only where they do not. No code of a checkpoint runs, and no chat template is rendered. Knows no tensor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rerankd.engine.loading.checkpoint_files import read_modules
from rerankd.engine.loading.checkpoint_json import read_json
from rerankd.errors import CheckpointInvalid

QWEN3 = {"Qwen3ForCausalLM", "Qwen3ForSequenceClassification"}
QWEN2 = {"Qwen2ForCausalLM", "Qwen2ForSequenceClassification"}
QWEN3_VL = {"Qwen3VLForConditionalGeneration"}
ARCHITECTURES = QWEN3 | QWEN2 | QWEN3_VL


@dataclass(frozen=True, slots=True)
class Format:
    """A prompt is prefix, head, bridge, lead, document, suffix.

    Attributes:
        prompt_id: the name of the prompt in `ModelInfo`.
        source: where the maker defines it.
        architectures: those whose checkpoints have it.
        markers: of a checkpoint with this format, one is in the chat template, in `auto_map` or in the name, in lower
            case; none: every checkpoint of these architectures that no other row claims.
        prefix, bridge, suffix: read with their control tokens, each tokenized apart.
        head: the plain text with `{instruct}` and `{query}`.
        lead: plain text, tokenized with the document. Without a bridge, head, lead and document are one text.
        instruction: what takes the place of `{instruct}` in the head, unless the instruct is empty.
        default_instruct: in place of the default of Qwen3-Reranker.
        reads_instruct: whether the prompt has a place for an instruct.
        strips: whether white space around query and document is removed.
        true, false: the tokens that answer; without `false`, the logit is that of `true`.
        scale: the factor from the checkpoint's logit to the log-odds.
    """

    prompt_id: str
    source: str
    architectures: frozenset[str]
    markers: tuple[str, ...]
    prefix: str
    head: str
    suffix: str
    bridge: str = ""
    lead: str = ""
    instruction: str = "{instruct}"
    default_instruct: str | None = None
    reads_instruct: bool = True
    strips: bool = False
    true: str = "yes"
    false: str | None = "no"
    scale: float = 1.0


_JUDGE = "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
_ANSWER = 'Note that the answer can only be "yes" or "no".'
_SYSTEM, _TO_USER = "<|im_start|>system\n", "<|im_end|>\n<|im_start|>user\n"
_TO_ASSISTANT = "<|im_end|>\n<|im_start|>assistant\n"
_THOUGHT = "<think>\n\n</think>\n\n"

QWEN3_RERANKER = Format(
    prompt_id="qwen3-reranker-card",
    source="https://huggingface.co/Qwen/Qwen3-Reranker-0.6B (README, Transformers usage)",
    architectures=frozenset(QWEN3),
    markers=(),
    prefix=_SYSTEM + _JUDGE + _ANSWER + _TO_USER,
    head="<Instruct>: {instruct}\n<Query>: {query}\n<Document>:",
    lead=" ",
    suffix=_TO_ASSISTANT + _THOUGHT,
)

PRISM = replace(
    QWEN3_RERANKER,
    prompt_id="prism-reranker-card",
    source="https://huggingface.co/infgrad/Prism-Qwen3-Reranker-4B-exp (README, Quickstart)",
    markers=("<contribution>", "prism-"),
    prefix=_SYSTEM + _JUDGE + _TO_USER,
    default_instruct=(
        'Judge if the document is relevant to the query. Reply "yes" or "no".\n'
        'On "yes", also emit:\n'
        "<contribution>One sentence covering every core point the document contributes to the query, without "
        "elaboration.</contribution>\n"
        "<evidence>Self-contained rewrite of the query-relevant content. Rules:\n"
        "- Faithful: rephrase only; add or infer nothing.\n"
        "- Self-contained: evidence alone must fully answer the query.\n"
        "- Concise: drop query-irrelevant background.\n"
        "- Verbatim (no translation): proper nouns, terms, abbreviations, numbers, dates, code, URLs.\n"
        "- Output language: multilingual doc -> query's language; else doc's language.</evidence>"
    ),
)

ZERANK = Format(
    prompt_id="zerank-1",
    source="https://huggingface.co/zeroentropy/zerank-1-small (modeling_zeranker.py)",
    architectures=frozenset(QWEN3),
    markers=("modeling_zeranker", "zerank-"),
    prefix=_SYSTEM,
    head="{query}",
    bridge=_TO_USER,
    suffix=_TO_ASSISTANT,
    reads_instruct=False,
    strips=True,
    true="Yes",
    false=None,
    scale=1 / 5,
)

MXBAI = Format(
    prompt_id="mxbai-rerank-v2",
    source="https://github.com/mixedbread-ai/mxbai-rerank (mxbai_rerank/mxbai_rerank_v2.py)",
    architectures=frozenset(QWEN2),
    markers=("search relevance expert who evaluates", "mxbai-rerank"),
    prefix=_SYSTEM + "You are Qwen, created by Alibaba Cloud. You are a helpful assistant." + _TO_USER,
    head="{instruct}query: {query}",
    instruction="instruction: {instruct}\n",
    default_instruct="",
    bridge="\n",
    lead="document: ",
    suffix=(
        "\nYou are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:" + _TO_ASSISTANT
    ),
    true="1",
    false="0",
)

QWEN3_VL_RERANKER = replace(
    QWEN3_RERANKER,
    prompt_id="qwen3-vl-reranker-card",
    source="https://github.com/QwenLM/Qwen3-VL-Embedding (src/models/qwen3_vl_reranker.py)",
    architectures=frozenset(QWEN3_VL),
    markers=("reranker", "logitscore"),
    head="<Instruct>: {instruct}<Query>:{query}\n<Document>:",
    lead="",
    suffix=_TO_ASSISTANT,
    default_instruct="Given a search query, retrieve relevant candidates that answer the query.",
)

FORMATS = (PRISM, ZERANK, MXBAI, QWEN3_VL_RERANKER, QWEN3_RERANKER)
"""The first row that claims a checkpoint is its format."""


def format_of(name: str, folder: Path, config: Mapping[str, Any]) -> Format | None:
    """The format of a checkpoint; None: no row claims it.

    Args:
        name: hub id, or the name of the folder.
        folder: holds the JSON files and the chat template.
        config: `config.json`.

    Raises:
        CheckpointInvalid: a JSON file is damaged.
    """
    named = {each for each in config.get("architectures") or () if isinstance(each, str)}
    template = _chat_template(folder)
    said = "\n".join((template, name, str(config.get("_name_or_path", "")), json.dumps(config.get("auto_map", ""))))
    if (modules := read_modules(folder)) is not None:
        said += " ".join(modules.kinds)
    said = said.lower()
    for row in FORMATS:
        if row.architectures & named and (not row.markers or any(marker in said for marker in row.markers)):
            return _with_arrow(row) if row is PRISM and "doc → query" in template else row
    return None


def _with_arrow(row: Format) -> Format:
    """The makers of Prism wrote its instruct in two ways; the chat template has that of the checkpoint."""
    return replace(row, default_instruct=(row.default_instruct or "").replace("doc -> query", "doc → query"))


def _chat_template(folder: Path) -> str:
    """Its text, from wherever the checkpoint has it; empty if it has none."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise CheckpointInvalid(f"{file} cannot be read: {error}.") from error
    for place in ("chat_template.json", "tokenizer_config.json"):
        given = read_json(folder / place) if (folder / place).is_file() else None
        if isinstance(given, dict) and (template := given.get("chat_template")):
            return template if isinstance(template, str) else json.dumps(template)
    return ""
