"""The other families of rerankers on Qwen's networks, as their makers' own code has them: prompts, logits, checkpoints.

Written out here, so that nothing of it comes from the package under test. Sources: mxbai-rerank,
mxbai_rerank/mxbai_rerank_v2.py; zeroentropy/zerank-1-small, modeling_zeranker.py; infgrad/Prism-Qwen3-Reranker-4B-exp,
README; QwenLM/Qwen3-VL-Embedding, src/models/qwen3_vl_reranker.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers import Qwen3VLConfig as VLConfig
from transformers import Qwen3VLForConditionalGeneration as VLModel

from support.checkpoints import TINY

Triple = tuple[str, str, str]
"""instruct (empty: none was sent), query, document."""

JUDGE = "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
PRISM_INSTRUCTION = (
    'Judge if the document is relevant to the query. Reply "yes" or "no".\n'
    'On "yes", also emit:\n'
    "<contribution>One sentence covering every core point the document "
    "contributes to the query, without elaboration.</contribution>\n"
    "<evidence>Self-contained rewrite of the query-relevant content. Rules:\n"
    "- Faithful: rephrase only; add or infer nothing.\n"
    "- Self-contained: evidence alone must fully answer the query.\n"
    "- Concise: drop query-irrelevant background.\n"
    "- Verbatim (no translation): proper nouns, terms, abbreviations, "
    "numbers, dates, code, URLs.\n"
    "- Output language: multilingual doc -> query's language; else doc's language."
    "</evidence>"
)
MXBAI_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each query-document "
    "pair, carefully analyze the semantic relationship between them, then provide your binary relevance judgment (0 "
    "for not relevant, 1 for relevant).\nRelevance:"
)
MXBAI_PREFIX = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n"
)
TO_ASSISTANT = "<|im_end|>\n<|im_start|>assistant\n"


def zerank_ids(tokenizer: Any, triple: Triple) -> list[int]:
    """The chat template of Qwen3, for one system and one user message with a generation prompt."""
    _, query, document = triple
    text = f"<|im_start|>system\n{query.strip()}<|im_end|>\n<|im_start|>user\n{document.strip()}{TO_ASSISTANT}"
    return ids(tokenizer, text)


def mxbai_ids(tokenizer: Any, triple: Triple) -> list[int]:
    """Each part is tokenised apart."""
    instruct, query, document = triple
    query_prompt = f"instruction: {instruct}\nquery: {query}" if instruct else f"query: {query}"
    parts = (MXBAI_PREFIX, query_prompt, "\n", f"document: {document}", "\n", MXBAI_TASK, TO_ASSISTANT)
    return [token_id for part in parts for token_id in ids(tokenizer, part)]


def prism_ids(tokenizer: Any, triple: Triple) -> list[int]:
    instruct, query, document = triple
    text = (
        f"<|im_start|>system\n{JUDGE}<|im_end|>\n<|im_start|>user\n"
        f"<Instruct>: {instruct or PRISM_INSTRUCTION}\n<Query>: {query}\n<Document>: {document}"
        f"{TO_ASSISTANT}<think>\n\n</think>\n\n"
    )
    return ids(tokenizer, text)


def vl_ids(tokenizer: Any, triple: Triple) -> list[int]:
    """The chat template joins the text parts of a message."""
    instruct, query, document = triple
    instruct = instruct or "Given a search query, retrieve relevant candidates that answer the query."
    text = (
        f'<|im_start|>system\n{JUDGE}Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
        f"<Instruct>: {instruct}<Query>:{query}\n<Document>:{document}{TO_ASSISTANT}"
    )
    return ids(tokenizer, text)


def ids(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def write_zerank(folder: Path) -> None:
    Qwen3ForCausalLM(Qwen3Config(**TINY)).eval().save_pretrained(folder)
    change(folder, auto_map={"AutoConfig": "modeling_zeranker.ZEConfig"})


def write_mxbai(folder: Path) -> None:
    shape = {name: value for name, value in TINY.items() if name != "head_dim"}
    model: Any = Qwen2ForCausalLM(Qwen2Config(**shape)).eval()
    for layer in model.model.layers:  # transformers begins with biases of zero
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            torch.nn.init.normal_(projection.bias, std=0.5)
    model.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(MXBAI_PREFIX + "{{ query }}" + MXBAI_TASK)


def write_prism(folder: Path) -> None:
    Qwen3ForCausalLM(Qwen3Config(**TINY)).eval().save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(JUDGE + PRISM_INSTRUCTION)


def write_vl(folder: Path) -> None:
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 64}
    rope = {"rope_type": "default", "rope_theta": 5_000_000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    text = {**TINY, "rope_parameters": rope}
    del text["rope_theta"]
    config = VLConfig(text_config=text, vision_config={**vision, "deepstack_visual_indexes": []})
    config.tie_word_embeddings = True
    model: Any = VLModel(config).eval()
    for name, weight in model.named_parameters():
        if "visual" not in name and weight.dim() == 2:
            torch.nn.init.normal_(weight, std=TINY["initializer_range"])
    model.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text("")


def change(folder: Path, **fields: Any) -> None:
    """Sets fields of config.json."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


@dataclass(frozen=True)
class Family:
    """name: of the published model, and of the folder.

    score: the two answers, or one, and the factor of the logit.
    """

    name: str
    prompt_id: str
    prompt_ids: Callable[[Any, Triple], list[int]]
    write: Callable[[Path], None]
    answers: tuple[str, str | None]
    scale: float = 1.0
    network: Any = AutoModelForCausalLM

    @torch.no_grad()
    def logits(self, folder: Path, tokenizer: Any, prompts: list[list[int]]) -> list[float]:
        """Of transformers, in float32."""
        model = self.network.from_pretrained(folder, dtype=torch.float32).eval()
        true, false = (one and tokenizer.convert_tokens_to_ids(one) for one in self.answers)
        found = []
        for prompt in prompts:
            last = model(input_ids=torch.tensor([prompt]), logits_to_keep=1).logits[0, -1]
            found.append(float(last[true] - (last[false] if false else 0)) * self.scale)
        return found


FAMILIES = (
    Family("zerank-1-small", "zerank-1", zerank_ids, write_zerank, ("Yes", None), 1 / 5, Qwen3ForCausalLM),
    Family("mxbai-rerank-base-v2", "mxbai-rerank-v2", mxbai_ids, write_mxbai, ("1", "0")),
    Family("Prism-Qwen3-Reranker-4B-exp", "prism-reranker-card", prism_ids, write_prism, ("yes", "no")),
    Family("Qwen3-VL-Reranker-2B", "qwen3-vl-reranker-card", vl_ids, write_vl, ("yes", "no"), network=VLModel),
)
