"""`rerankd rank`, run as a user runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rerankd.cli.main import main
from support.server import Server
from support.terminal import on_a_terminal

QUERY = "What is the capital of China?"
LINES = "Paris is the capital of France.\n\nThe capital of China is Beijing.\nGravity is a force.\n"


def rank(*arguments: str, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rerankd", "rank", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, cwd=cwd)


def ranked(*arguments: str, stdin: str = "", cwd: Path | None = None) -> list[dict[str, object]]:
    done = rank(*arguments, "--json", stdin=stdin, cwd=cwd)
    assert done.returncode == 0, done.stderr
    results: list[dict[str, object]] = json.loads(done.stdout)["results"]
    return results


def test_ranks_the_lines_of_stdin() -> None:
    results = ranked(QUERY, "--model", "embedded", stdin=LINES)
    assert [result["source"] for result in results] == ["stdin:3", "stdin:1", "stdin:4"]
    assert results[0]["document"] == "The capital of China is Beijing."
    assert results[0]["index"] == 1  # the empty line is no document


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "china.txt").write_text("The capital of China\nis Beijing.")
    (tmp_path / "france.md").write_text("Paris is the capital of France.")
    (tmp_path / "notes.jsonl").write_text('"Gravity is a force."\n{"text": "Beijing is the capital of China."}\n')
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / ".hidden").write_text("The capital of China is Beijing.")
    return tmp_path


def test_a_folder_gives_its_text_files_whole(folder: Path, embedded_server: Server) -> None:
    server = ("--url", embedded_server.url, "--api-key", embedded_server.key)
    results = ranked(QUERY, ".", *server, cwd=folder)
    assert {result["source"] for result in results} == {"china.txt", "france.md", "notes.jsonl"}
    assert results[0]["document"] == "The capital of China\nis Beijing."


def test_files_lines_and_jsonl_mix(folder: Path, embedded_server: Server) -> None:
    server = ("--url", embedded_server.url + "/v1/", "--api-key", embedded_server.key)
    results = ranked(QUERY, "notes.jsonl", "china.txt", *server, cwd=folder)
    assert {result["source"] for result in results} == {"notes.jsonl:1", "notes.jsonl:2", "china.txt:1", "china.txt:2"}
    assert ranked(QUERY, "china.txt", "--whole", *server, cwd=folder)[0]["source"] == "china.txt"


def test_local_and_remote_give_the_same_scores(embedded_server: Server) -> None:
    local = ranked(QUERY, "--model", "embedded", stdin=LINES)
    remote = ranked(QUERY, "--url", embedded_server.url, "--api-key", embedded_server.key, stdin=LINES)
    assert [result["source"] for result in local] == [result["source"] for result in remote]
    for ours, theirs in zip(local, remote, strict=True):
        assert ours["logit"] == pytest.approx(theirs["logit"], abs=1e-4)
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-4)


def test_the_table_shows_bars_scores_and_sources(embedded_server: Server) -> None:
    server = ("--url", embedded_server.url, "--api-key", embedded_server.key)
    done = rank(QUERY, "--top-n", "2", "--output", "table", *server, stdin=LINES)
    assert done.returncode == 0, done.stderr
    header, first, second, caption = (line.rstrip() for line in done.stdout.splitlines())
    assert header.split() == ["#", "score", "source", "document"]
    assert first.startswith("1  0.99") and "█" in first and "stdin:3" in first and "Beijing" in first
    assert second.startswith("2  ") and "Paris" in second
    assert caption == "scored by embedded-multilingual"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-file"], "no-such-file cannot be read: No such file or directory."),
        (["-"], "There are no documents in stdin."),
        (["bad.jsonl"], "bad.jsonl:2 has none of the fields text, content"),
        (["broken.jsonl"], "broken.jsonl:1 is not JSON"),
        (["picture.png"], "picture.png is a PNG image, not text."),
        (["lines", "--url", "http://127.0.0.1:9"], "http://127.0.0.1:9/v1/rerank cannot be reached"),
        (["lines", "--model", "./nowhere"], "There is no folder"),
    ],
)
def test_mistakes_are_one_line_and_status_1(arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('"fine"\n{"title": "no", "author": "text"}\n')
    (tmp_path / "broken.jsonl").write_text("{")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "lines").write_text("a line")
    done = rank("query", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--min-score", "high"], "min_score must be a number, 'keep' or 'relevant'"),
        (["--min-score", "keep"], "a threshold of a calibration, and none is named"),
        (["--passage-tokens", "8"], "at least 16"),
        (["--max-passages", "3"], "belong to --passages or --passage-tokens"),
    ],
)
def test_mistakes_about_thresholds_and_passages_are_named_before_a_model_is_looked_for(
    more: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lines").write_text("a line")
    assert main(["rank", "query", str(tmp_path / "lines"), "--model", "./nowhere", *more]) == 1
    assert words in " ".join(capsys.readouterr().err.split())


def test_passages_have_options(embedded_server: Server, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("Paris is the capital of France. " * 40 + "The capital of China is Beijing.")
    command = (QUERY, "long.txt", "--whole", "--url", embedded_server.url, "--api-key", embedded_server.key, "--json")
    split = ("--passage-tokens", "16", "--passage-overlap", "0")
    whole, part = (rank(*command, *split, *more, cwd=tmp_path) for more in ((), ("--max-passages", "2")))
    assert json.loads(whole.stdout)["results"][0]["passages"][0]["end"] == 40 * 32 + 32
    assert "read only to their last passage" in part.stderr and "last passage" not in whole.stderr


def test_another_dialect_and_model_are_asked_for(embedded_server: Server) -> None:
    server = ("--url", embedded_server.url + "/tei", "--api-key", embedded_server.key)
    by_address = ranked(QUERY, *server, stdin=LINES)
    assert by_address[0]["document"] == "The capital of China is Beijing."
    named = ("--url", embedded_server.url, "--api-key", embedded_server.key, "--dialect", "cohere")
    assert ranked(QUERY, *named, "--model", "qwen3-rerank", stdin=LINES)[0] == pytest.approx(by_address[0])
    done = rank(QUERY, *named, "--model", "no-such-model", stdin=LINES)
    assert done.returncode == 1
    assert "answered 404: " in done.stderr and "no-such-model" in done.stderr


def test_a_wrong_key_is_told(embedded_server: Server) -> None:
    done = rank("query", "--url", embedded_server.url, "--api-key", "wrong", stdin="a\n")
    assert done.returncode == 1
    assert "answered 401: The API key is not valid." in done.stderr


def test_without_the_server_extra_it_says_what_to_do() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from rerankd.cli.main import main; sys.exit(main(['rank', 'q', '-']))"
    )
    done = subprocess.run([sys.executable, "-c", code], input="a\n", capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == "rerankd rank: torch is missing: pip install 'rerankd[server]', or ask a server with --url\n"


def test_a_file_name_is_shown_as_it_is(embedded_server: Server, tmp_path: Path) -> None:
    (tmp_path / "[old]notes").write_text("a line")
    server = ("--url", embedded_server.url, "--api-key", embedded_server.key)
    assert "[old]notes:1" in rank("q", "[old]notes", *server, cwd=tmp_path).stdout


def test_each_result_can_be_explained() -> None:
    [first, _] = ranked(
        "which city", "--model", "embedded", "--explain", "--json", stdin="Beijing is a city.\nBread.\n"
    )
    explanation = first["explain"]
    assert isinstance(explanation, dict)
    assert explanation["logit"] == first["logit"]
    assert explanation["cuts"] == [] and explanation["document_tokens"] == 5 and explanation["cached"] is False
    shown = rank(
        "which city", "--model", "embedded", "--explain", "--output", "table", stdin="Beijing is a city.\nBread.\n"
    )
    assert "logit" in shown.stdout and f"{explanation['logit']:.3f}" in shown.stdout and "float32" in shown.stdout


def test_rank_reads_the_settings_of_serve(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option overrides the variable, the variable the file; settings of the server alone are passed over."""
    file = tmp_path / "rerankd.toml"
    file.write_text(f'model = "{tiny_checkpoint}"\nskip_self_test = true\ndtype = "float32"\nport = 81\n')

    def explained(*options: str) -> dict[str, object]:
        [result] = ranked("q", "--config", str(file), "--explain", *options, stdin="a city\n")
        explanation = result["explain"]
        assert isinstance(explanation, dict)
        return explanation

    assert (explained()["prompt_id"], explained()["dtype"]) == ("qwen3-reranker-card", "float32")
    monkeypatch.setenv("RERANKD_DTYPE", "bfloat16")
    assert explained("--deterministic")["dtype"] == "bfloat16"
    assert explained("--dtype", "float32")["dtype"] == "float32"
    monkeypatch.setenv("RERANKD_MODEL", "embedded")
    assert explained()["prompt_id"] != "qwen3-reranker-card"


def test_a_wrong_setting_of_rank_is_named_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rerankd.toml"
    file.write_text("modle = 1\n")
    done = rank("q", "--config", str(file), stdin="a\n")
    assert done.returncode == 1 and f"{file}: unknown setting modle" in done.stderr
    monkeypatch.setenv("RERANKD_DEVICE", "tpu")
    done = rank("q", stdin="a\n")
    assert done.returncode == 1 and "device (RERANKD_DEVICE): must be one of auto, cpu" in done.stderr
    done = rank("q", "--port", "1", stdin="a\n")
    assert done.returncode == 2 and "Unknown option: --port." in done.stderr


def test_rank_may_not_ask_the_hub_when_it_is_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("RERANKD_OFFLINE", "1")
    done = rank("q", "--model", "example/no-such-model", stdin="a\n")
    assert done.returncode == 1 and "--offline" in done.stderr


def test_the_exact_prompt_is_printed(tiny_checkpoint: Path) -> None:
    options = ("--model", str(tiny_checkpoint), "--dtype", "float32", "--skip-self-test", "--prompt", "1")
    done = rank("which city", *options, stdin="Beijing is a city.\nBread.\n")
    assert done.stdout.endswith(
        "<Query>: which city\n<Document>: Bread.<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n\n"
    )
    for wrong, message in (
        (("--prompt", "2"), "there are 2 documents"),
        (("--prompt", "0", "--url", "x"), "local model"),
    ):
        failed = rank("q", *wrong, stdin="a\nb\n")
        assert failed.returncode == 1 and message in failed.stderr


def test_an_api_that_needs_a_model_names_the_option(embedded_server: Server) -> None:
    server = ("--url", embedded_server.url, "--api-key", embedded_server.key, "--dialect", "dashscope")
    done = rank("q", *server, stdin="a\n")
    assert done.returncode == 1
    assert done.stderr.endswith("(Pass --model NAME.)\n")
    assert rank("q", *server, "--model", "qwen3-rerank", stdin="a\n").returncode == 0


def test_progress_is_shown_where_there_is_much_to_ask(embedded_server: Server, tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("".join(f"line {number}\n" for number in range(450)))
    server = ("--url", embedded_server.url, "--api-key", embedded_server.key)
    shown = on_a_terminal(100, "rank", "line 7", "many.txt", *server, cwd=tmp_path)
    assert f"asking {embedded_server.url} about 450 documents" in shown
    assert set(re.findall(r"(\d+) %", shown)) & {"11", "44", "56", "89", "100"}  # two parts of 200, one of 50


def test_what_was_truncated_is_one_line(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("wash your hands " * (4000 + number))
    done = rank("q", ".", "--model", "embedded", cwd=tmp_path)
    told = r"warning: 3 of 3 documents were truncated \(longest: 2\.txt, [\d,]+ tokens, of which [\d,]+ were read\)\n"
    assert re.fullmatch(told, done.stderr)


def test_headers_are_sent_with_every_request() -> None:
    seen: list[tuple[str | None, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            seen.append((self.headers["x-team"], self.headers["x-empty"]))
            body = b'{"results": [{"index": 0, "relevance_score": 0.5}]}'
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = rank("q", "--url", url, "--header", "X-Team: search: a", "--header", "x-empty:", stdin="a\n")
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert seen == [("search: a", "")]
