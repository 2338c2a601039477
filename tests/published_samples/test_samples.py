"""Every sample of the five documents that rerankd answers to, run as printed against the embedded model.

The samples lie beside this file, byte for byte: a folder for each document, `.sh` and `.py` for what a reader
pastes, `.json` for the reply printed with it. Only base URLs and keys are replaced. curl is told by a `.curlrc`, not
by the sample, to be silent and to write the reply's headers down.
"""

from __future__ import annotations

import ast
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.server import Server, StartServer

HERE = Path(__file__).parent

# All that is changed in a sample.
BASE_URLS = (
    "https://api.empiriolabs.ai",
    "https://api.xairouter.com",
    "https://dashscope-intl.aliyuncs.com",
    "http://<server-ip>:<port>",
)
KEYS = ("your-api-key", "YOUR_API_KEY", "your-hexgrid-api-key")
KEY_VARIABLES = ("EMPIRIOLABS_API_KEY", "DASHSCOPE_API_KEY")

DASHSCOPE_DEFAULT = "Given a web search query, retrieve relevant passages that answer the query."


@dataclass(frozen=True)
class Sample:
    """A sample and what its document says comes back.

    reply: file with the reply's documented shape. model: what the reply echoes. first: index of the right document,
    which must be ranked first, or of those that may. results: how many come back. lifted: the instruct that is read
    out of the query.
    """

    file: str
    reply: str
    model: str
    first: int | tuple[int, ...]
    results: int
    lifted: str = ""


# XAI Router prints no reply: it proxies Qwen Cloud, whose compatible reply is in the reference. The native one is
# written down here from docs.qwencloud.com/api-reference/rerank/dashscope-rerank.
NATIVE = "dashscope_native.json"
COMPATIBLE = "qwen_cloud_reference/reranks.json"
QWEN = "qwen3-rerank"
HEXGRID = "Qwen/Qwen3-Reranker-4B"

# In the samples on ranking models, two documents are on the subject and hold the same words of the query: which of the
# two is first, the embedded model cannot be relied on to tell. That the third is last, it can.
RERANK_SAMPLES = (
    Sample("xai_router/native.py", NATIVE, QWEN, first=(0, 2), results=3),  # top_n is 5, there are 3 documents
    Sample("xai_router/native.sh", NATIVE, QWEN, first=(0, 2), results=3),
    Sample("xai_router/compatible.sh", COMPATIBLE, QWEN, first=(0, 2), results=2),
    Sample("qwen_cloud_reference/reranks.sh", COMPATIBLE, QWEN, first=(0, 2), results=2),
    Sample("qwen_cloud_guide/rerank.py", COMPATIBLE, QWEN, first=(0, 2), results=2),
    # Its instruct asks for index 1, the paraphrase. The embedded model is blind to any instruct; only a
    # Qwen3-Reranker can show that the instruct changes the order.
    Sample("qwen_cloud_guide/instruct.sh", COMPATIBLE, QWEN, first=(0, 1), results=3),
    Sample("vllm/01_rerank.sh", "vllm/01_rerank.json", HEXGRID, first=0, results=3),
    Sample("vllm/02_top_n.sh", "vllm/02_top_n.json", HEXGRID, first=1, results=2),
    Sample(
        "vllm/03_instruct.sh",
        "vllm/03_instruct.json",
        HEXGRID,
        first=0,
        results=2,
        lifted="Given a web search query, retrieve relevant passages that answer the query",
    ),
    Sample("vllm/04_search_results.sh", "vllm/04_search_results.json", HEXGRID, first=0, results=3),
    Sample("vllm/07_use_activation.sh", "vllm/07_use_activation.json", HEXGRID, first=0, results=2),
    Sample("vllm/08_document_objects.sh", "vllm/08_document_objects.json", HEXGRID, first=0, results=2),
    Sample("vllm/09_pipeline.sh", "vllm/09_pipeline.json", HEXGRID, first=1, results=2),
    Sample(
        "vllm/10_parameters.sh",
        "vllm/10_parameters.json",
        HEXGRID,
        first=2,
        results=3,
        lifted="Given a technical support question, retrieve passages that directly answer the issue",
    ),
)

# vLLM's score keeps the call's order, so what is right is told by the scores: (sample, the indexes that are right).
SCORE_SAMPLES = (("vllm/05_score_pairs", {0, 1}), ("vllm/06_score_one_query", {0}))

# Keys beside the documented ones, by the object they are in: what the same services send today (vLLM 0.32,
# DashScope in September 2026), and `object` and `meta`, which other clients of the same path read.
ADDED = {
    "": {"created", "meta", "object"},
    "usage": {"prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details"},
}


@dataclass
class Outcome:
    """What a sample printed. The status and the headers are curl's; Python samples raise on a bad status."""

    reply: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


Run = Callable[..., Outcome]


def _file(sample: Sample) -> str:
    return sample.file


@pytest.fixture
def run(embedded_server: Server, tmp_path: Path) -> Run:
    """Runs the text of a sample: `run("vllm/01_rerank.sh")`, or a changed text with `text=`."""
    return _runner(embedded_server, tmp_path)


def _runner(server: Server, tmp_path: Path) -> Run:
    def run_sample(file: str, text: str = "", key: str = server.key) -> Outcome:
        text = _substitute(text or _sample(file), server.url, key)
        headers = tmp_path / "headers.txt"
        (tmp_path / ".curlrc").write_text(f'silent\nshow-error\ndump-header = "{headers}"\n')
        environment = {**os.environ, **dict.fromkeys(KEY_VARIABLES, key), "CURL_HOME": str(tmp_path)}
        command = [sys.executable, "-c"] if file.endswith(".py") else ["bash", "-eu", "-c"]
        ended = subprocess.run([*command, text], capture_output=True, text=True, env=environment, timeout=120)
        assert ended.returncode == 0, ended.stderr
        if file.endswith(".py"):
            return Outcome(ast.literal_eval(ended.stdout))
        return _curl_outcome(ended.stdout, headers.read_text())

    return run_sample


def _sample(file: str) -> str:
    """The sample as printed; behind the `export` lines of its document where that has any."""
    text = (HERE / file).read_text()
    return (HERE / "vllm/environment.sh").read_text() + text if file.startswith("vllm/") else text


def _substitute(text: str, url: str, key: str) -> str:
    for base_url in BASE_URLS:
        text = text.replace(base_url, url)
    for printed in KEYS:
        text = text.replace(printed, key)
    assert url in text and "https://" not in text, "a sample must reach this server and no other"
    return text


def _curl_outcome(body: str, headers: str) -> Outcome:
    last = headers.strip().split("\n\n")[-1].splitlines()  # after any redirect
    pairs = (line.partition(":") for line in last[1:])
    return Outcome(json.loads(body), int(last[0].split()[1]), {name.lower(): value.strip() for name, _, value in pairs})


def _documents(file: str) -> list[str]:
    """The documents that a sample sends."""
    found = re.search(r'"documents": (\[.*?\n\s*\])', _sample(file), re.DOTALL)
    assert found
    documents = json.loads(re.sub(r",(\s*\])", r"\1", found[1]))  # Python allows a last comma
    return [document["text"] if isinstance(document, dict) else document for document in documents]


def _printed(file: str) -> Any:
    return json.loads((HERE / file).read_text())


def check_shape(documented: Any, value: Any, path: str = "") -> None:
    """The documented keys and no others but ADDED, each with a value of the documented type."""
    assert type(value) is type(documented), f"{path}: {value!r}"
    if isinstance(documented, dict):
        missing, more = documented.keys() - value.keys(), value.keys() - documented.keys() - ADDED.get(path, set())
        assert not missing and not more, f"{path or 'reply'}: missing {missing}, not documented {more}"
        for name, shape in documented.items():
            check_shape(shape, value[name], f"{path}.{name}".lstrip("."))
    elif isinstance(documented, list):
        assert value
        for item in value:
            check_shape(documented[0], item, f"{path}[]")


@pytest.mark.parametrize("sample", RERANK_SAMPLES, ids=_file)
def test_a_rerank_sample_runs_as_printed(run: Run, sample: Sample) -> None:
    outcome = run(sample.file)
    reply = outcome.reply
    assert outcome.status == 200

    documented = _printed(sample.reply)
    check_shape(documented, reply)
    assert reply.get("model", sample.model) == sample.model
    assert reply.get("object", "list") == documented.get("object", "list")
    assert reply["usage"]["total_tokens"] > 0

    results = reply["output"]["results"] if "output" in reply else reply["results"]
    documents = _documents(sample.file)
    assert len(results) == sample.results
    if sample.reply.startswith("vllm/"):  # the others print one result to show the shape
        assert len(documented["results"]) == sample.results
    assert results[0]["index"] in (sample.first if isinstance(sample.first, tuple) else (sample.first,))
    assert len({result["index"] for result in results}) == len(results)
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert [result["document"]["text"] for result in results] == [documents[result["index"]] for result in results]


@pytest.mark.parametrize(("name", "right"), SCORE_SAMPLES)
def test_a_score_sample_runs_as_printed(run: Run, name: str, right: set[int]) -> None:
    outcome = run(f"{name}.sh")
    reply, documented = outcome.reply, _printed(f"{name}.json")
    assert outcome.status == 200
    check_shape(documented, reply)
    assert (reply["object"], reply["model"]) == ("list", HEXGRID)
    assert [row["index"] for row in reply["data"]] == [row["index"] for row in documented["data"]]  # the call's order
    assert {row["object"] for row in reply["data"]} == {"score"}
    scores = {row["index"]: row["score"] for row in reply["data"]}
    assert all(scores[index] > 0.5 for index in right)
    assert all(scores[index] < 0.5 for index in scores.keys() - right)


@pytest.mark.parametrize("sample", [sample for sample in RERANK_SAMPLES if sample.file.endswith(".sh")], ids=_file)
def test_a_curl_sample_is_used_as_sent(run: Run, sample: Sample) -> None:
    """No field is ignored and no text is cut; an instruct that is read out of the query is told."""
    headers = run(sample.file).headers
    warning = headers.get("x-rerankd-warning", "")
    assert headers["x-rerankd-model"] == "embedded-multilingual"
    assert "fields ignored" not in warning and "truncated" not in warning and "substituted" not in warning
    assert ("lifted out of the query" in warning) == bool(sample.lifted)


@pytest.mark.parametrize("sample", [sample for sample in RERANK_SAMPLES if sample.lifted], ids=_file)
def test_vllm_an_instruct_inside_the_query_is_lifted_out_and_told(run: Run, sample: Sample) -> None:
    warnings = run(sample.file).reply["meta"]["warnings"]
    told = f"instruction of {len(sample.lifted)} characters lifted out of the query"
    assert any(warning.startswith(told) for warning in warnings), warnings


def test_vllm_the_lifted_query_scores_as_the_bare_one(run: Run) -> None:
    """03 is 01 with the default instruct in front of the query, and top_n."""
    bare, lifted = run("vllm/01_rerank.sh").reply["results"], run("vllm/03_instruct.sh").reply["results"]
    assert [result["index"] for result in lifted] == [result["index"] for result in bare[:2]]
    expected = [result["relevance_score"] for result in bare[:2]]
    assert [result["relevance_score"] for result in lifted] == pytest.approx(expected, abs=1e-5)


def test_vllm_use_activation_false_returns_the_raw_score(run: Run) -> None:
    file = "vllm/07_use_activation.sh"
    activated = run(file).reply["results"]
    raw = run(file, text=_sample(file).replace('"use_activation": true', '"use_activation": false')).reply["results"]
    assert raw[0]["relevance_score"] > 1
    expected = [math.log(score / (1 - score)) for score in (result["relevance_score"] for result in activated)]
    assert [result["relevance_score"] for result in raw] == pytest.approx(expected, abs=1e-3)


def test_qwen_cloud_guide_the_embedded_model_says_that_it_ignores_the_instruct(run: Run) -> None:
    """It reads no instruct, so an instruct that is not the default is an ignored field, and those are told."""
    assert "instruct" in run("qwen_cloud_guide/instruct.sh").headers.get("x-rerankd-warning", "")


def test_qwen_cloud_guide_what_answers_is_above_what_is_on_the_topic(embedded_server: Server) -> None:
    """The guide's example for the default instruct."""
    documents = ["The common cold is a widespread illness", "Washing hands frequently prevents colds"]
    for instruct in (None, DASHSCOPE_DEFAULT):
        body = {"model": QWEN, "query": "How to prevent colds?", "documents": documents, "instruct": instruct}
        results = embedded_server.post("/compatible-api/v1/reranks", body).json()["results"]
        assert [result["index"] for result in results] == [1, 0]


ROUTER = """
[models."qwen3-rerank"]

[[models."qwen3-rerank".upstreams]]
name = "qwen-cloud"
url = "{url}"
dialect = "{dialect}"
model = "qwen3-rerank"
api_key = "env:UPSTREAM_KEY"
"""


@pytest.fixture(scope="module", params=["dashscope", "dashscope-compatible"])
def router(
    request: pytest.FixtureRequest,
    embedded_server: Server,
    start_server: StartServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Server:
    """What XAI Router is: it passes calls on to a service that speaks DashScope's native or compatible API."""
    config = tmp_path_factory.mktemp("router") / "rerankd.toml"
    config.write_text(ROUTER.format(url=embedded_server.url, dialect=request.param))
    environment = {**os.environ, "UPSTREAM_KEY": embedded_server.key}
    return start_server("--config", str(config), key="router-key", env=environment)


@pytest.mark.parametrize("file", ["native.py", "native.sh", "compatible.sh"])
def test_xai_router_s_samples_run_as_printed_through_a_router(
    run: Run, router: Server, file: str, tmp_path: Path
) -> None:
    [sample] = [one for one in RERANK_SAMPLES if one.file == f"xai_router/{file}"]
    direct, routed = run(sample.file), _runner(router, tmp_path)(sample.file)
    check_shape(_printed(sample.reply), routed.reply)
    assert routed.reply["usage"]["total_tokens"] > 0
    assert routed.reply.get("output", routed.reply)["results"] == direct.reply.get("output", direct.reply)["results"]
    if file.endswith(".sh"):
        assert routed.headers["x-rerankd-upstream"] == "qwen-cloud"
        assert _runner(router, tmp_path)(sample.file, key="wrong-key").status == 401


# (sample, `error.code` of the reply to a wrong key).
WRONG_KEY = (
    ("empiriolabs/reranks.sh", "invalid_api_key"),
    ("xai_router/native.sh", None),
    ("xai_router/compatible.sh", "invalid_api_key"),
    ("qwen_cloud_reference/reranks.sh", "invalid_api_key"),
    ("qwen_cloud_guide/instruct.sh", "invalid_api_key"),
    ("vllm/01_rerank.sh", 401),
)


@pytest.mark.parametrize(("file", "code"), WRONG_KEY)
def test_a_sample_with_a_wrong_key_is_refused(run: Run, file: str, code: str | int | None) -> None:
    outcome = run(file, key="wrong-key")
    assert outcome.status == 401
    assert outcome.reply["code"] == "InvalidApiKey" and outcome.reply["message"]
    assert outcome.reply.get("error", {}).get("code") == code


def test_vllm_a_score_with_a_wrong_key_is_refused(run: Run) -> None:
    outcome = run("vllm/05_score_pairs.sh", key="wrong-key")
    assert (outcome.status, outcome.reply) == (401, {"error": "Unauthorized"})


def test_no_sample_is_forgotten() -> None:
    elsewhere = {"empiriolabs/reranks.sh", "vllm/environment.sh"}  # test_empiriolabs_page.py; the export lines
    tested = {sample.file for sample in RERANK_SAMPLES} | {f"{name}.sh" for name, _ in SCORE_SAMPLES}
    present = {str(path.relative_to(HERE)) for kind in ("sh", "py") for path in HERE.glob(f"*/*.{kind}")}
    assert present == tested | elsewhere
