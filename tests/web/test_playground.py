"""The playground in a real browser, against a real server."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Page, expect

from support.playground import rank, settled
from support.server import Server, StartServer

PATH = "/compatible-api/v1/reranks"
QUERY = "How long does bread stay fresh?"
DOCUMENTS = ["Wheat became dearer in March.", "Bread stays fresh for three days.", "Bread was baked in Egypt."]
NASTY = [
    'it\'s "quoted" \\ back\\\\slashed',
    "two\nlines\nJSON\nand $HOME `date` ${x}",
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "ünïcödé 日本語 🍞 \u2028 line separator",
    "f-string {braces} %s %d",
]

Open = Callable[..., Page]


def playground(open_page: Open, server: Server, fragment: str = "", **options: Any) -> Page:
    """The page, once its script runs, with the server's key."""
    page = open_page(f"{server.url}/{fragment}", **options)
    settled(page)
    if server.key:
        page.fill("#key", server.key)
    return page


def fill(page: Page, query: str = QUERY, documents: list[str] | str = DOCUMENTS) -> None:
    page.fill("#query", query)
    page.fill("#documents", documents if isinstance(documents, str) else json.dumps(documents))


def ranked(page: Page, part: str = "#output") -> list[int]:
    """The indices of the documents, as they stand there."""
    items = page.locator(f"{part} .ranked li")
    return [int(index) for index in items.evaluate_all("items => items.map((item) => item.dataset.index)")]


def ask(server: Server, query: str = QUERY, documents: list[str] = DOCUMENTS, **options: Any) -> dict[str, Any]:
    response = server.post(PATH, {"model": "qwen3-rerank", "query": query, "documents": documents, **options})
    assert response.status_code == 200
    reply: dict[str, Any] = response.json()
    return reply


def test_ranks_as_the_api_does(embedded_server: Server, open_page: Open) -> None:
    page = playground(open_page, embedded_server)
    fill(page)
    page.press("#query", "Control+Enter")
    reply = ask(embedded_server)
    expect(page.locator(".ranked li")).to_have_count(3)
    assert ranked(page) == [result["index"] for result in reply["results"]]
    assert page.locator(".score").all_inner_texts() == [f"{r['relevance_score']:.4f}" for r in reply["results"]]
    assert page.locator(".text").all_inner_texts() == [DOCUMENTS[index] for index in ranked(page)]
    widths = page.locator(".fill").evaluate_all("bars => bars.map((bar) => parseFloat(bar.style.width))")
    assert widths == pytest.approx([100 * r["relevance_score"] for r in reply["results"]], abs=1e-3)
    summary = dict(
        zip(page.locator(".summary dt").all_inner_texts(), page.locator(".summary dd").all_inner_texts(), strict=True)
    )
    assert summary.pop("time").split()[1] in ("ms", "s")
    tokens = str(reply["usage"]["total_tokens"])
    assert summary == {"ranked": "3", "tokens": tokens, "cost": "free", "model": "embedded-multilingual"}
    expect(page.locator("#said")).to_contain_text("Ranked 3 documents")


def test_the_key_stays_in_the_tab(embedded_server: Server, open_page: Open) -> None:
    page = playground(open_page, embedded_server)
    fill(page, "test-key-query")
    page.click("#share")
    expect(page.locator("#share")).to_have_text("Copied")
    assert page.evaluate("Object.values(sessionStorage)").count(embedded_server.key) == 1
    assert embedded_server.key not in page.evaluate("JSON.stringify(localStorage) + document.cookie")
    page.context.grant_permissions(["clipboard-read"])
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.evaluate("location.href")
    again = playground(
        open_page, Server(embedded_server.process, embedded_server.url), link.removeprefix(f"{embedded_server.url}/")
    )
    assert again.input_value("#key") == ""
    page.reload()
    expect(page.locator("#key")).to_have_value(embedded_server.key)
    page.click("#show-key")
    assert page.get_attribute("#key", "type") == "text"


def test_a_link_holds_everything_else(embedded_server: Server, open_page: Open) -> None:
    page = playground(open_page, embedded_server)
    fill(page, "the query", NASTY)
    page.click("#more summary")
    page.fill("#top-n", "2")
    page.fill("#prompt-of", "1")
    page.uncheck("#return-documents")
    page.check("#compare")
    page.click("#side-b >> text=Similarity")
    page.click("#side-b .also summary")
    page.click("#side-b .also >> text='gte-rerank'")
    page.select_option("#format", "json")
    page.click("#share")
    expect(page.locator("#share")).not_to_have_text("Copy link")
    link = page.evaluate("location.href")
    other = playground(open_page, embedded_server, link.removeprefix(f"{embedded_server.url}/"))
    for field in ("query", "documents", "top-n", "prompt-of", "instruct-a", "instruct-b", "model-b", "format"):
        assert other.input_value(f"#{field}") == page.input_value(f"#{field}"), field
    for box in ("return-documents", "explain", "compare", "live"):
        assert other.is_checked(f"#{box}") == page.is_checked(f"#{box}"), box
    assert other.input_value("#instruct-b") == "Retrieve semantically similar text."
    expect(other.locator("#output .empty")).to_be_visible()  # a link has no key


@pytest.mark.parametrize("fragment", ["#", "#nonsense", "#e30", "#%00", "#q1YqVLKqBQA"])
def test_a_broken_link_gives_the_example(embedded_server: Server, open_page: Open, fragment: str) -> None:
    page = playground(open_page, embedded_server, fragment)
    assert "bread" in page.input_value("#query") or page.input_value("#query") == ""
    expect(page.locator("#count")).to_have_text("8")


@pytest.mark.parametrize(
    ("text", "form", "documents"),
    [
        ("one\n\n  two  \r\nthree\n", "auto", ["one", "two", "three"]),
        ("first\nline\n\nsecond\n \n\nthird", "paragraphs", ["first\nline", "second", "third"]),
        ('["a", {"text": "b"}, {"content": "c", "id": 3}]', "auto", ["a", "b", "c"]),
        ('{"text": "a"}\n{"text": "b"}\n', "auto", ["a", "b"]),
        ('{"text": "a"}', "json", ["a"]),
        ('"a"\n"b\\nc"', "json", ["a", "b\nc"]),
        ("[1] a footnote\n[2] another", "auto", ["[1] a footnote", "[2] another"]),
        ("{not json}", "auto", ["{not json}"]),
        ('["one line"]', "lines", ['["one line"]']),
        ("", "json", []),
    ],
)
def test_documents_are_read(
    embedded_server: Server, open_page: Open, text: str, form: str, documents: list[str]
) -> None:
    page = playground(open_page, embedded_server)
    page.select_option("#format", form)
    page.fill("#documents", text)
    expect(page.locator("#count")).to_have_text(str(len(documents)))
    read = "async ([text, form]) => (await import('/static/documents.js')).readDocuments(text, form).documents"
    assert page.evaluate(read, [text, form]) == documents


def test_documents_that_cannot_be_read_are_told(embedded_server: Server, open_page: Open) -> None:
    page = playground(open_page, embedded_server)
    page.select_option("#format", "json")
    page.fill("#documents", '["a", {"title": "b"}]')
    expect(page.locator("#count")).to_contain_text("Document 1 has no text")
    assert page.get_attribute("#documents", "aria-invalid") == "true"
    rank(page)
    expect(page.get_by_role("alert")).to_contain_text("Document 1 has no text")


def test_a_file_and_a_whole_request(embedded_server: Server, open_page: Open, tmp_path: Path) -> None:
    page = playground(open_page, embedded_server)
    lines = tmp_path / "passages.jsonl"
    lines.write_text("\n".join(json.dumps({"id": number, "text": text}) for number, text in enumerate(NASTY)))
    page.set_input_files("#file", lines)
    expect(page.locator("#count")).to_have_text(str(len(NASTY)))
    body = {"model": "m", "input": {"query": QUERY, "documents": DOCUMENTS}, "parameters": {"instruct": "Sort."}}
    page.evaluate(
        """(text) => {
            const data = new DataTransfer();
            data.items.add(new File([text], "call.json"));
            document.getElementById("documents").dispatchEvent(
                new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        json.dumps(body),
    )
    expect(page.locator("#query")).to_have_value(QUERY)
    expect(page.locator("#instruct-a")).to_have_value("Sort.")
    expect(page.locator("#count")).to_have_text("3")


def test_texts_are_shown_as_texts(embedded_server: Server, open_page: Open) -> None:
    page = playground(open_page, embedded_server)
    fill(page, "<b>bold?</b>", NASTY)
    rank(page)
    expect(page.locator(".ranked li")).to_have_count(len(NASTY))
    assert sorted(page.locator(".text").evaluate_all("all => all.map((one) => one.textContent)")) == sorted(NASTY)
    assert page.locator(".ranked :is(script, img, b)").count() == 0


def test_live_ranks_what_was_typed_last(embedded_server: Server, open_page: Open) -> None:
    page = playground(open_page, embedded_server)
    fill(page, "", DOCUMENTS)
    page.check("#live")
    page.locator("#query").press_sequentially("Who baked bread in Egypt?", delay=20)
    expect(page.locator(".ranked li").first).to_have_attribute("data-index", "2")
    page.fill("#query", "What happened to the price of wheat?")
    expect(page.locator(".ranked li").first).to_have_attribute("data-index", "0")
    page.uncheck("#live")
    page.fill("#query", "Who baked bread in Egypt?")
    page.wait_for_timeout(800)
    assert ranked(page)[0] == 0


def test_a_newer_request_ends_the_one_before(embedded_server: Server, open_page: Open) -> None:
    page = playground(open_page, embedded_server)
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.failure or ""))
    page.route(f"**{PATH}", lambda _: None, times=1)  # never answered
    with page.expect_request(f"**{PATH}"):
        page.click("#rank")
    fill(page)
    page.click("#rank")  # while the first call is open
    settled(page)
    expect(page.locator(".ranked li")).to_have_count(3)
    assert failed == ["net::ERR_ABORTED"]


def test_compares_two_instructs(qwen_server: Server, open_page: Open) -> None:
    page = playground(open_page, qwen_server)
    documents = [f"{word} text" for word in "a b c d e f g h".split()]
    fill(page, QUERY, documents)
    page.check("#compare")
    page.fill("#instruct-b", "Sort by the alphabet, backwards")
    rank(page)
    expect(page.locator(".merged li")).to_have_count(8)
    first, second = (
        [result["index"] for result in ask(qwen_server, QUERY, documents, **instruct)["results"]]
        for instruct in ({}, {"instruct": "Sort by the alphabet, backwards"})
    )
    assert first != second
    assert ranked(page) == second
    assert page.locator(".rank.a").all_text_contents() == [f"A: {first.index(index) + 1}" for index in second]
    moves = [first.index(index) - place for place, index in enumerate(second)]
    signs = ["=" if not by else f"▲{by}" if by > 0 else f"▼{-by}" for by in moves]
    assert page.locator(".moved > [aria-hidden]").all_inner_texts() == signs
    page.select_option("#order", "by A")
    assert ranked(page) == first
    page.select_option("#order", "by what moved")
    distances = "all => all.map((one) => Math.abs(one.dataset.a - one.dataset.b))"
    by_move = page.locator(".merged li").evaluate_all(distances)
    assert by_move == sorted(map(abs, moves), reverse=True)


def test_every_parameter(qwen_server: Server, open_page: Open) -> None:
    page = playground(open_page, qwen_server)
    fill(page)
    page.click("#more summary")
    page.fill("#top-n", "2")
    page.fill("#prompt-of", "1")
    page.uncheck("#return-documents")
    page.click("#side-a .also summary")
    page.click("#side-a .also >> text=gte-rerank-v2")
    page.click("text=Similarity")
    with page.expect_request(f"**{PATH}") as sent:
        page.click("#rank")
    assert sent.value.post_data_json == {
        "model": "gte-rerank-v2",
        "query": QUERY,
        "documents": DOCUMENTS,
        "top_n": 2,
        "instruct": "Retrieve semantically similar text.",
        "return_documents": False,
        "explain": {"prompt": 1},
    }
    expect(page.locator(".ranked li")).to_have_count(2)
    reply = ask(
        qwen_server,
        top_n=3,
        explain={"prompt": 1},
        instruct="Retrieve semantically similar text.",
    )
    shown = page.locator("li[data-index='1'] .prompt")
    if shown.count():  # among the first two
        (prompt,) = [r["explain"]["prompt"] for r in reply["results"] if r["index"] == 1]
        assert shown.text_content() == prompt
    page.click("text=Reply as JSON")
    raw = page.locator(".results .code").text_content()
    assert raw and json.loads(raw)["model"] == "gte-rerank-v2"


def test_what_was_not_done_as_asked_is_told(embedded_server: Server, open_page: Open) -> None:
    page = playground(open_page, embedded_server)
    fill(page, QUERY, ["bread " * 9000, "short"])
    page.fill("#instruct-a", "Sort by colour.")
    rank(page)
    warnings = page.locator("[data-warnings]")
    expect(warnings).to_contain_text("instruct ignored")
    expect(warnings).to_contain_text("truncated")
    expect(page.locator("li[data-index='0'] .cut")).to_contain_text("cut from")


def test_a_refusal_is_told_with_a_way_out(embedded_server: Server, open_page: Open) -> None:
    page = playground(open_page, embedded_server)
    fill(page)
    page.fill("#key", "wrong")
    rank(page)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("401 invalid_api_key")
    expect(alert).to_contain_text("Incorrect API key provided.")
    expect(alert).to_contain_text("Enter a valid key in the field")
    page.fill("#key", embedded_server.key)
    page.click("text=Try again")
    settled(page)
    expect(page.locator(".ranked li")).to_have_count(3)
    fill(page, "   ")
    rank(page)
    expect(alert).to_contain_text("The query is empty")
    expect(alert.get_by_role("button")).to_have_count(0)  # again would not help
    fill(page)
    page.context.set_offline(True)
    rank(page)
    expect(alert).to_contain_text("The server cannot be reached.")


def test_five_hundred_documents(embedded_server: Server, open_page: Open) -> None:
    page = playground(open_page, embedded_server)
    fill(page, QUERY, "\n".join(f"Passage number {number} is about bread." for number in range(500)))
    expect(page.locator("#count")).to_have_text("500")
    rank(page)
    expect(page.locator(".ranked li")).to_have_count(500)
    assert sorted(ranked(page)) == list(range(500))
    page.evaluate("document.getElementById('documents').value += '\\none more'")
    page.locator("#documents").dispatch_event("input")
    expect(page.locator("#count")).to_have_text("501, in 2 requests")
    rank(page)
    expect(page.locator(".ranked li")).to_have_count(501)
    assert sorted(ranked(page)) == list(range(501))
    scores = [float(text) for text in page.locator(".score").all_text_contents()]
    assert scores == sorted(scores, reverse=True)


def code(page: Page, language: str) -> str:
    page.click("#copy-as")
    page.click(f"#languages >> text={language}")
    text = page.locator("#snippet").text_content()
    page.keyboard.press("Escape")
    assert text
    return text


@pytest.mark.parametrize("language", ["curl", "Python", "JavaScript", "openai", "dashscope", "jina"])
def test_copied_code_runs(embedded_server: Server, open_page: Open, tmp_path: Path, language: str) -> None:
    page = playground(open_page, embedded_server)
    fill(page, NASTY[0], NASTY)
    page.click("#more summary")
    page.fill("#top-n", "4")
    text = code(page, language)
    assert embedded_server.key not in text
    expected = ask(embedded_server, NASTY[0], NASTY, top_n=4)["results"]
    file = tmp_path / ("snippet.mjs" if language == "JavaScript" else "snippet")
    file.write_text(text)
    command = [{"curl": "bash", "JavaScript": "node"}.get(language, sys.executable), str(file)]
    environment = {**os.environ, "RERANKD_API_KEY": embedded_server.key, "NO_PROXY": "*"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    if language == "curl":
        results = json.loads(done.stdout)["results"]
        assert [r["document"]["text"] for r in results] == [NASTY[r["index"]] for r in expected]
        assert [r["relevance_score"] for r in results] == [r["relevance_score"] for r in expected]
    else:
        lines = [line.split() for line in done.stdout.splitlines()]
        found = [(line[0], line[1]) for line in lines if line[:1] and line[0].startswith(("0.", "1."))]
        assert found == [(f"{r['relevance_score']:.4f}", str(r["index"])) for r in expected]


def test_copied_code_for_cohere(embedded_server: Server, open_page: Open) -> None:
    page = playground(open_page, embedded_server)
    fill(page, NASTY[0], NASTY)
    tree = ast.parse(code(page, "cohere"))
    call = next(
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "client.rerank"
    )
    options = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    assert options["query"] == NASTY[0]
    assert options["documents"] == NASTY
    assert "instruct" in options["request_options"]["additional_body_parameters"]
    # What the SDK sends for it:
    body = {name: value for name, value in options.items() if name != "request_options"}
    reply = embedded_server.post("/cohere/v2/rerank", body | options["request_options"]["additional_body_parameters"])
    assert reply.status_code == 200


@pytest.fixture(scope="module")
def keyless_server(start_server: StartServer) -> Server:
    return start_server("--model", "embedded")


def test_no_key_is_asked_for_where_none_is_needed(keyless_server: Server, open_page: Open) -> None:
    page = playground(open_page, keyless_server)
    assert page.locator("#key").count() == 0
    rank(page)
    expect(page.locator(".ranked li")).to_have_count(8)
    assert "RERANKD_API_KEY" not in code(page, "curl") + code(page, "openai")
    assert httpx2.get(f"{keyless_server.url}/sign-in").status_code == 404


def test_by_keyboard_alone(keyless_server: Server, open_page: Open) -> None:
    page = playground(open_page, keyless_server)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    tab_until(page, "query")
    page.keyboard.press("Control+A")
    page.keyboard.type("Where was bread baked five thousand years ago?")
    seen = tab_until(page, "rank")
    assert {"documents", "format", "choose-file"} <= set(seen)
    page.keyboard.press("Enter")
    expect(page.locator(".ranked li").first).to_have_attribute("data-index", "1")
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator("#side-b")).to_be_visible()
    seen = tab_until(page, "copy-as")
    assert {"model-a", "Similarity", "preset-a", "instruct-a", "model-b", "instruct-b", "history", "share"} <= set(seen)
    page.keyboard.press("Enter")
    expect(page.locator("#snippets")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#snippets")).to_be_hidden()
    assert page.evaluate("document.activeElement.id") == "copy-as"


def tab_until(page: Page, wanted: str) -> list[str]:
    """Presses Tab until an element has the focus; what had it on the way."""
    seen: list[str] = []
    while wanted not in seen:
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        assert len(seen) < 40, seen
    return seen


def test_colours_are_kept(keyless_server: Server, open_page: Open) -> None:
    page = playground(open_page, keyless_server, color_scheme="dark")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(background)
    page.click("#theme")
    light = page.evaluate(background)
    assert light != dark
    page.reload()
    assert page.evaluate(background) == light
    page.click("#theme")
    assert page.evaluate(background) == dark
