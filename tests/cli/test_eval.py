"""`rerankd eval` on the command line, and its report."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rerankd.cli.main import main
from rerankd.runs.about import About, write_about

RELEVANT = 3


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Thirty queries, whose relevant document bm25 has in third place and `ours` in first."""
    bm25, ours, qrels, queries = [], [], [], []
    for query in range(30):
        for place in range(6):
            score = 10.0 if place == RELEVANT else -place
            bm25.append(f"q{query} Q0 d{place} {place} {-place} bm25\n")
            ours.append(json.dumps({"qid": f"q{query}", "docid": f"d{place}", "logit": score, "tokens": 100}) + "\n")
        qrels.append(f"q{query}\td{RELEVANT}\t1\n")
        queries.append(json.dumps({"_id": f"q{query}", "text": f"<b>question</b> {query}"}) + "\n")
    (tmp_path / "bm25.trec").write_text("".join(bm25))
    (tmp_path / "ours.jsonl").write_text("".join(ours))
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(qrels))
    (tmp_path / "queries.jsonl").write_text("".join(queries))
    return tmp_path


def command(files: Path, *more: str) -> list[str]:
    runs = [str(files / "bm25.trec"), str(files / "ours.jsonl")]
    return ["eval", *runs, "--qrels", str(files / "qrels.tsv"), *more]


def test_the_verdict_comes_first(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(files)) == 0
    lines = " ".join(capsys.readouterr().out.split())
    assert lines.startswith("ours improves nDCG@10 by +0.569 against bm25, 0.431 → 1.000: 30 queries better, 0 equal")
    assert "Reranking 5 candidates is within 1 %" in lines and "30 judged queries" in lines


def test_json_has_every_figure(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(files, "--json", "--depths", "2,4")) == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["name"] for run in found["runs"]] == ["bm25", "ours"]
    depths = found["runs"][1]["compared"]["depths"]
    assert [(point["depth"], point["tokens"]) for point in depths["points"]] == [(0, 0), (2, 6000), (4, 12000)]
    assert depths["enough"] == 4 and depths["held_out"] == 1.0


def test_by_query_has_a_line_for_each_run_and_query(files: Path) -> None:
    assert main(command(files, "--by-query", str(files / "values.jsonl"), "--measures", "RR@10", "AP")) == 0
    lines = [json.loads(line) for line in (files / "values.jsonl").read_text().splitlines()]
    assert len(lines) == 60 and lines[0] == {"run": "bm25", "qid": "q0", "RR@10": 0.25, "AP": 0.25}


class Tags(HTMLParser):
    """The tags of a page, and whether each is closed by the right one."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_page_without_scripts_or_network(files: Path) -> None:
    page_path = files / "report.html"
    assert main(command(files, "--html", str(page_path), "--queries", str(files / "queries.jsonl"))) == 0
    page = page_path.read_text()
    tags = Tags(page)
    assert not tags.open and "svg" in tags.seen and not tags.seen & {"script", "link", "img", "iframe"}
    assert len(page) < 1_000_000 and not re.search(r"""(src|href)=["'a-z]|url\(|https?:""", page)
    assert "&lt;b&gt;question&lt;/b&gt;" in page and "<b>question" not in page
    assert "ours improves nDCG@10 by +0.569" in page and "1.0000" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--depths", "0"], "not a list of depths"),
        (["--measures", "foo"], "not a measure of ir_measures"),
        (["--html", "/nowhere/report.html"], "cannot be written"),
        (["--queries", "none.tsv"], "none.tsv cannot be read"),
    ],
)
def test_wrong_options_are_named(
    arguments: list[str], words: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(files, *arguments)) in (1, 2)
    assert words in capsys.readouterr().err


def test_a_command_without_runs_says_so(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--qrels", str(files / "qrels.tsv")]) == 1
    assert "at least one run" in capsys.readouterr().err
    assert main(command(files)[:3]) == 1
    assert "with --qrels" in capsys.readouterr().err
    assert main(command(files, "--models", "embedded")) == 1
    assert "belong to a folder" in capsys.readouterr().err


# Passages, costs, examples


@pytest.fixture
def of_passages(files: Path) -> Path:
    """The files, whose run has passages and a file that says how it was made; and a corpus."""
    rows = []
    for query in range(30):
        for place in range(6):
            first, best = (-9.0, 10.0) if place == RELEVANT else (-6.0 - place / 10, -place)
            logits, spans = [first, best], [(0, 21), (21, 60)]
            passages = [
                {"start": start, "end": end, "logit": one} for one, (start, end) in zip(logits, spans, strict=True)
            ]
            row = {"qid": f"q{query}", "docid": f"d{place}", "logit": max(logits), "tokens": 200, "passages": passages}
            rows.append(json.dumps(row) + "\n")
    (files / "ours.jsonl").write_text("".join(rows))
    plan = {"model": {"name": "Qwen/Qwen3-Reranker-0.6B"}, "instruct": None, "depth": 6, "passages": {"max_tokens": 64}}
    write_about(files / "ours.jsonl", About(plan, 3.0, 30, 180, 36_000, 0, 30_000))
    texts = [f"The <i>beginning</i>. {n} The best passage of document {n}. And the rest of it." for n in range(6)]
    corpus = [json.dumps({"_id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(texts)]
    (files / "corpus.jsonl").write_text("".join(corpus))
    (files / "prices.toml").write_text('[rates."Qwen3-Reranker-0.6B"]\ninput_price = 0.5\ncurrency = "EUR"\n')
    return files


def test_other_aggregates_and_the_cost_are_printed(of_passages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(of_passages, "--prices", str(of_passages / "prices.toml"))) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "nDCG@10 of ours by what counts of a document's passages" in said
    assert "best passage (MaxP)\t1.0000" in said or "best passage (MaxP) 1.0000" in said
    assert "first passage (FirstP) 0.3562" in said.replace("\t", " ")
    assert "100 % have their best passage behind the first" in said
    assert "ours: 0.5000 EUR for 1,000 queries, 0.100 seconds a query" in said  # 1,000 tokens a query, 0.5 a million


def test_the_report_shows_passages_costs_and_the_texts_of_examples(of_passages: Path) -> None:
    page_path, corpus = of_passages / "report.html", str(of_passages / "corpus.jsonl")
    options = ["--html", str(page_path), "--corpus", corpus, "--prices", str(of_passages / "prices.toml")]
    assert main(command(of_passages, *options)) == 0
    page = page_path.read_text()
    assert not Tags(page).open and "What counts of a document" in page and "EUR for 1,000 queries" in page
    assert "passages of 64 tokens" in page and "best passage of" in page and "<i>beginning" not in page


def test_the_report_and_the_values_of_queries_may_go_to_stdout(
    of_passages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(of_passages, "--by-query", "-")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 60 and json.loads(lines[0])["run"] == "bm25"
    assert main(command(of_passages, "--html", "-")) == 0
    assert capsys.readouterr().out.lstrip().startswith("<!doctype html>")
    assert main(command(of_passages, "--html", "-", "--json")) == 1
    assert "Only one of" in capsys.readouterr().err
