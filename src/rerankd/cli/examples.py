"""The examples in every `--help`. They are parsed by the tests."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "rerankd": (
        "rerankd serve",
        "rerankd rank 'How can I prevent a cold?' notes.txt",
    ),
    "rerankd serve": (
        "rerankd serve                                   # on 127.0.0.1:8000",
        "rerankd serve --model Qwen/Qwen3-Reranker-4B --port 9000",
        "rerankd serve --model Qwen/Qwen3-Reranker-0.6B --then Qwen/Qwen3-Reranker-4B",
        "rerankd serve --host 0.0.0.0 --api-key SECRET   # for other machines",
        "rerankd serve --accounts --config rerankd.toml",
    ),
    "rerankd rank": (
        "rerankd rank 'How can I prevent a cold?' notes.txt",
        "rerankd rank 'how are refunds made?' docs --include '*.md' --top-n 5",
        "rerankd rank 'refund policy' faq.csv --field answer --json",
        "jq -c '.[]' a.json | rerankd rank 'solar power' --format jsonl --field body",
        "rerankd rank 'solar power' articles.jsonl --url http://127.0.0.1:8000",
        "rerankd rank 'solar power' notes.txt | cut -f4",
    ),
    "rerankd search": (
        "rerankd search ./docs 'how are keys rotated?'",
        "rerankd search . 'where are limits checked?' --include '*.py' --top-n 5",
        "rerankd search ./notes 'solar power' --no-rerank --json",
        "rerankd search ./docs 'wie tausche ich einen Schlüssel?' --first hybrid",
        "rerankd search corpus.jsonl.gz 'solar power' --top-n 3",
    ),
    "rerankd index": (
        "rerankd index ./docs --index ./docs-index",
        "rerankd index . --include '*.md' --rebuild",
        "rerankd index ./docs --first hybrid --embedder Qwen/Qwen3-Embedding-0.6B",
    ),
    "rerankd mcp": ("rerankd mcp ./docs ./notes", "rerankd mcp --url http://127.0.0.1:8000"),
    "rerankd batch": (
        "rerankd batch pairs.jsonl scores --model Qwen/Qwen3-Reranker-0.6B",
        "rerankd batch 'runs/*.parquet' scores --query title --id qid",
    ),
    "rerankd rerank": (
        "rerankd rerank bm25.trec --queries q.tsv --corpus docs.jsonl -o out.trec",
        "rerankd rerank ./scifact --first bm25 -o scifact.jsonl --depth 50",
        "rerankd rerank requests.jsonl -o out.jsonl --url http://127.0.0.1:8000",
        "rerankd rerank ./scifact --first bm25 -o long.jsonl --passage-tokens 512",
    ),
    "rerankd eval": (
        "rerankd eval bm25.trec reranked.trec --qrels qrels.tsv",
        "rerankd eval a.trec b.jsonl --qrels q.tsv --corpus c.jsonl --html r.html",
        "rerankd eval ./scifact --models Qwen/Qwen3-Reranker-0.6B ./mine",
        "rerankd eval bm25.trec --qrels qrels.txt --measures nDCG@10 AP@100 --json",
    ),
    "rerankd download": (
        "rerankd download Qwen/Qwen3-Reranker-4B",
        "rerankd download --to ./model        # then: rerankd serve --model ./model",
    ),
    "rerankd health": ("rerankd health", "rerankd health --url http://127.0.0.1:9000"),
    "rerankd models": ("rerankd models", "rerankd models --url http://127.0.0.1:9000 --json"),
    "rerankd config": ("rerankd config", "rerankd config --config rerankd.toml --json"),
    "rerankd doctor": (
        "rerankd doctor",
        "rerankd doctor --model Qwen/Qwen3-Reranker-0.6B --json",
        "rerankd doctor --upstreams --config rerankd.toml",
        "rerankd doctor --model ./my-model --compare bfloat16,int8 --data mine.jsonl",
    ),
    "rerankd calibrate": (
        "rerankd calibrate --data judged.jsonl --output support.toml",
        "rerankd calibrate --data judged.jsonl --output tight.toml --min-recall 0.99",
        "rerankd calibrate --run reranked.jsonl --qrels qrels.tsv --output c.toml",
    ),
    "rerankd bench": (
        "rerankd bench --model Qwen/Qwen3-Reranker-0.6B --dtype bfloat16 int8",
        "rerankd bench --random-weights 0.6B --workload 20x500",
        "rerankd bench --url http://127.0.0.1:8000 --mix short=9 long=1 --duration 30",
    ),
    "rerankd plan": (
        "rerankd plan --documents-per-second 500 --tokens 300 --rate 2300",
        "rerankd plan --documents-per-second 20 --log calls.jsonl --p95 5s",
    ),
    "rerankd accounts": ("rerankd accounts create --admin ada@example.org", "rerankd accounts list"),
    "rerankd accounts create": (
        "rerankd accounts create --admin ada@example.org",
        "rerankd accounts create ci@example.org --no-password --name 'build server'",
    ),
    "rerankd accounts list": ("rerankd accounts list",),
    "rerankd accounts password": ("rerankd accounts password ada@example.org",),
    "rerankd accounts remove-second-factor": ("rerankd accounts remove-second-factor ada@example.org",),
    "rerankd accounts delete": ("rerankd accounts delete ada@example.org",),
    "rerankd accounts disable": ("rerankd accounts disable ada@example.org",),
    "rerankd accounts enable": ("rerankd accounts enable ada@example.org",),
    "rerankd accounts limits": ("rerankd accounts limits ada@example.org --requests-per-minute 60",),
    "rerankd accounts members": ("rerankd accounts members ada@example.org",),
    "rerankd accounts add-member": ("rerankd accounts add-member ada@example.org bob@example.org --role viewer",),
    "rerankd accounts member-role": ("rerankd accounts member-role ada@example.org bob@example.org owner",),
    "rerankd accounts remove-member": ("rerankd accounts remove-member ada@example.org bob@example.org",),
    "rerankd accounts check": ("rerankd accounts check",),
    "rerankd keys": ("rerankd keys create --account ada@example.org --name 'search page'",),
    "rerankd keys create": ("rerankd keys create --account ada@example.org --name search --expires 90d",),
    "rerankd keys list": ("rerankd keys list --account ada@example.org",),
    "rerankd keys revoke": ("rerankd keys revoke 3",),
    "rerankd keys budget": ("rerankd keys budget 3 25.00", "rerankd keys budget 3 none"),
    "rerankd credits": ("rerankd credits add ada@example.org 25.00 --note 'invoice 17'",),
    "rerankd accounts backup": ("rerankd accounts backup rerankd-2030-12-31.db",),
    "rerankd credits list": ("rerankd credits list ada@example.org --since 2030-01-01",),
    "rerankd credits add": ("rerankd credits add ada@example.org 25.00 --note 'invoice 17'",),
    "rerankd usage": ("rerankd usage --since 2030-01-01 --by day", "rerankd usage --account ada@example.org --csv"),
    "rerankd completion": (
        "rerankd completion bash > ~/.local/share/bash-completion/completions/rerankd",
        "rerankd completion zsh > ~/.zfunc/_rerankd       # a folder of your $fpath",
        "rerankd completion fish > ~/.config/fish/completions/rerankd.fish",
    ),
}


def examples_of(command: str) -> str:
    """The end of a command's help page."""
    return "\n".join(["Examples:", *(f"  {example}" for example in EXAMPLES[command])])
