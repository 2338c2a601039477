"""`make gpu-report`, with stand-ins for the card and for the commands."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "gpu_report.py"


def report(*arguments: str, **changes: Any) -> int:
    """Runs the script with some of its functions replaced; its status."""
    main = runpy.run_path(str(SCRIPT))["main"]
    main.__globals__.update(changes)
    status: int = main(arguments)
    return status


def test_without_a_card_it_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    output = tmp_path / "report.md"
    assert report("--output", str(output)) == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and "needs a CUDA card" in printed.err
    assert not printed.out and not output.exists()


@pytest.mark.parametrize("passes", [True, False])
def test_with_a_card_it_writes_what_the_commands_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: bool
) -> None:
    commands: list[tuple[str, ...]] = []

    def run(*arguments: str) -> tuple[str, bool]:
        commands.append(arguments)
        answers = {"pytest": "......\n6 passed in 3.21s", "rerankd": "kernels  varlen\n1x30  rerankd  bfloat16"}
        return answers[arguments[1]], passes or arguments[1] != "pytest"

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    output = tmp_path / "report.md"
    assert report("--output", str(output), _run=run, _card=lambda: "a card, 24 GB") == (0 if passes else 1)
    text = output.read_text()
    for line in ("| card | a card, 24 GB |", "| attention | unpadded |", "| tests | 6 passed in 3.21s |"):
        assert line in text.splitlines()
    assert "1x30  rerankd  bfloat16" in text
    files = [Path(one) for one in commands[0] if one.endswith(".py")]
    assert len(files) == 4 and all(file.is_file() for file in files)
    assert [one[2] for one in commands[1:]] == ["bench", "doctor"]
