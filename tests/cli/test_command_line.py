"""The command line itself: mistakes and their way out, help, completion, pipes that break, encodings."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from cyclopts import App

from rerankd.cli.bench import Size
from rerankd.cli.examples import EXAMPLES
from rerankd.cli.main import COMMANDS, main, root
from support.server import Server
from support.terminal import on_a_terminal


def rerankd(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rerankd", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **variables},
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rank", "q", "--topn", "3"], "rerankd rank: Unknown option: --topn. Did you mean --top-n?\n"),
        (["rank", "q", "--top", "3"], "rerankd rank: Unknown option: --top. Did you mean --top-n?\n"),
        (["rank", "--top-n", "3"], "rerankd rank: QUERY is missing.\n"),
        (["rank", "q", "--top-n"], "rerankd rank: --top-n needs a value.\n"),
        (["rank", "q", "--top-n", "-1"], "--top-n: '-1' is not a whole number of at least 0"),
        (["rank", "q", "--top-n", "x"], "--top-n: 'x' is not a whole number of at least 0"),
        (["rank", "q", "--dtype", "fp16"], '"fp16" for --dtype. Choose from: "auto", "float32", "bfloat16", "int8".'),
        (["rank", "q", "--device", "tpu"], "--device: 'tpu' must be one of auto, cpu, cuda, cuda:1, mps"),
        (["rank", "q", "--format", "jsnl"], 'Did you mean "jsonl"?'),
        (["rank", "q", "--max-filesize", "big"], "'big' is not a size such as 500K or 2M"),
        (["rank", "q", "--header", "x"], "'x' is not 'NAME: VALUE'"),
        (["serve", "--prot", "80"], "rerankd serve: Unknown option: --prot. Did you mean --port?"),
        (["serve", "--port", "x"], "rerankd serve: Invalid value for --port: 'x' must be a whole number"),
        (
            ["serve", "--redis", "me:hunter2@host"],
            "--redis: the value must be a URL such as redis://localhost:6379/0\n",
        ),
        (["serv"], 'rerankd: Unknown command "serv". Did you mean "serve"?'),
        (["--vers"], 'rerankd: Unknown command "--vers".'),
        (["keys", "lst"], 'rerankd keys: Unknown command "lst". Did you mean "list"?'),
        (["keys", "create", "--acount", "x"], "rerankd keys create: --account is missing"),
        (["doctor", "--compare", "fp8,int8"], "--compare: 'fp8' is none of float32, bfloat16, int8"),
        (["accounts", "list", "--csv", "--json"], "rerankd accounts list: "),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.out == ""
    assert shown.err.startswith(f"rerankd {arguments[0]}" if arguments[0] in COMMANDS else "rerankd: ")
    assert len(shown.err.splitlines()) == 1


def test_no_command_shows_the_help() -> None:
    done = rerankd()
    assert done.returncode == 2 and done.stdout == ""
    assert all(name in done.stderr for name in COMMANDS)
    done = rerankd("keys")
    assert done.returncode == 2 and done.stdout == ""
    assert all(name in done.stderr for name in ("create", "list", "revoke"))


def test_a_value_in_brackets_is_not_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--alias", "[a]", "--alias", '{"b": 1}', "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["alias"]["value"] == ["[a]", '{"b": 1}']


def test_the_last_of_two_values_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--port", "1", "--port", "2", "--json"]) == 0
    assert '"value": 2' in capsys.readouterr().out


def test_files_may_follow_options(embedded_server: Server, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\n")
    (tmp_path / "-b").write_text("two\n")
    server = ("--url", embedded_server.url, "--api-key", embedded_server.key)
    done = rerankd("rank", "q", str(tmp_path / "a"), "--top-n", "0", *server, str(tmp_path / "-b"))
    assert done.returncode == 0, done.stderr
    assert {line.split("\t")[3] for line in done.stdout.splitlines()} == {"one", "two"}


def every_command(app: App, path: str = "rerankd") -> dict[str, App]:
    """Each command and action, by what one types."""
    found = {path: app}
    for name in app:
        if not name.startswith("-"):
            found |= every_command(app[name], f"{path} {name}")
    return found


def words_of(example: str) -> list[str]:
    """The arguments of rerankd in an example, without what stands before and after it in a pipe."""
    words = shlex.split(example.rpartition("| ")[2] if "| rerankd" in example else example, comments=True)
    for stop in ("|", ">"):
        words = words[: words.index(stop)] if stop in words else words
    return words[1:]


def test_every_command_has_examples_that_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    app = root()
    assert set(every_command(app)) == set(EXAMPLES)
    for path, examples in EXAMPLES.items():
        assert main([*path.split()[1:], "--help"]) == 0
        assert "Examples:" in capsys.readouterr().out, path
        for example in examples:
            assert len(example) <= 76, "a terminal of 80 columns breaks it"
            app.parse_args(words_of(example), exit_on_error=False, print_error=False)


def test_a_beginner_finds_host_and_port_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0
    shown = capsys.readouterr().out
    often = ("--host", "--port", "--model", "--then", "--api-key", "--database", "--oidc-issuer", "--strict")
    order = [shown.index(f" {option} ") for option in often]
    assert order == sorted(order)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(shell: str) -> None:
    script = rerankd("completion", shell).stdout
    assert all(name in script for name in COMMANDS)
    assert "top-n" in script and "max-filesize" in script


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("rerankd ran", "rank"),
        ("rerankd keys cr", "create"),
        ("rerankd rank q --top", "--top-n"),
        ("rerankd rank q --dialect in", "infinity"),
        ("rerankd rank q one.txt tw", "two.txt"),
        ("rerankd serve --config tw", "two.txt"),
    ],
)
def test_bash_completes(line: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "two.txt").touch()
    script = rerankd("completion", "bash").stdout
    ask = f'COMP_WORDS=({line}); COMP_CWORD={len(line.split()) - 1}; _rerankd; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.stdout.split() == [expected], done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "rank q --url $URL --api-key test-key --top-n 0 big.txt",
        "rank q --url $URL --api-key test-key --top-n 0 big.txt --json",
        "rank q --url $URL --api-key test-key --top-n 0 big.txt --output table",
        "serve --help",
        "completion bash",
    ],
)
def test_a_reader_that_leaves_ends_the_command_quietly(command: str, embedded_server: Server, tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_text("".join(f"line {number} {'x' * 300}\n" for number in range(500)))
    line = f"set -o pipefail; {sys.executable} -m rerankd {command} | head -c 1 > /dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "URL": embedded_server.url},
    )
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
    assert done.stderr.strip() == "" or done.stderr.startswith("warning: ")
    assert done.stdout.strip() in ("141", "0")  # 0: all of it went into the pipe before the reader left


def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "rerankd", "completion", "bash"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert done.returncode == 1
    assert done.stderr == "rerankd completion: the output cannot be written: No space left on device.\n"


@pytest.mark.parametrize("arguments", [["--help"], ["rank", "--help"], ["serve", "--help"], ["usage", "--help"]])
def test_help_is_printed_in_any_encoding(arguments: list[str]) -> None:
    done = rerankd(*arguments, PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stderr == ""


def test_an_import_error_without_a_name_is_told_in_its_own_words() -> None:
    code = (
        "import sys; from rerankd.cli import rank; from rerankd.cli.main import main\n"
        "def fail(*arguments): raise ImportError('install socksio')\n"
        "rank.read_documents = fail; sys.exit(main(['rank', 'q']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == "rerankd rank: a package cannot be imported: install socksio\n"


def test_bench_of_a_server_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from rerankd.cli.main import main; "
        "sys.exit(main(['bench', '--url', 'http://127.0.0.1:9', '--requests', '1']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "torch" not in done.stderr and "Traceback" not in done.stderr


def test_bench_offers_the_shapes_that_there_are() -> None:
    from rerankd.bench.random_weights import SHAPES

    assert tuple(SHAPES) == get_args(Size)


@pytest.mark.parametrize("arguments", [["--version"], ["rank", "--help"], ["serve", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    """Something is on the screen within 0.3 s, and the base install has none of these."""
    heavy = "torch numpy pydantic fastapi sqlalchemy httpx2"
    code = (
        f"import sys; from rerankd.cli.main import main; main({arguments}); "
        f"print(set('{heavy}'.split()) & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stderr.strip() == "set()"


def test_something_is_shown_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\n")
    shown = on_a_terminal(80, "rank", "q", "a", "--model", "embedded", cwd=tmp_path)
    assert shown.index("loading PyTorch") < shown.index("#")
