"""D2 to D4: the Dockerfile, the compose files and the systemd unit, each by the checker of its format."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[1]
ROOT = DEPLOY.parent
COMPOSE = DEPLOY / "compose"
BIN = Path(sys.executable).parent
UNIT = DEPLOY / "systemd" / "rerankd.service"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_d2_hadolint_finds_nothing_in_the_dockerfile() -> None:
    done = run(BIN / "hadolint", DEPLOY / "docker" / "Dockerfile")
    assert done.returncode == 0 and not done.stdout, done.stdout


def test_d2_the_image_is_small_and_without_root() -> None:
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    assert re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE)[-3:] == ["router", "cpu", "cuda"]
    assert "USER 65532:65532" in text and "STOPSIGNAL SIGTERM" in text and '"rerankd", "health"' in text
    assert "http" not in text, "no index is built in"
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {name for names in copied for name in names.split()} == allowed


def test_d2_kernels_are_compiled_where_the_compiler_is() -> None:
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    build, runtime = text.split("AS runtime", 1)
    cpu = build[build.index("AS build-cpu") : build.index("AS build-cuda")]
    assert cpu.index("g++") < cpu.index("pip install") and "libgomp1" in runtime and "g++" not in runtime


@pytest.mark.parametrize("file", ["compose.yaml", "compose.gpu.yaml"])
def test_d3_the_compose_files_fit_the_specification(file: str) -> None:
    done = run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE / file)
    assert done.returncode == 0, done.stdout


def test_d3_services_are_hardened_and_local() -> None:
    services = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
    assert {name: one.get("profiles") for name, one in services.items()} == {
        "rerankd": None,
        "postgres": ["accounts"],
        "redis": ["accounts"],
        "prometheus": ["metrics"],
        "grafana": ["metrics"],
    }
    for service in services.values():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        assert ":latest" not in service["image"] and ":" in service["image"]


def test_d3_every_file_that_is_mounted_exists() -> None:
    services = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
    mounts = [mount.split(":")[0] for one in services.values() for mount in one.get("volumes", ())]
    assert all((COMPOSE / mount).exists() for mount in mounts if mount.startswith("."))


def test_d3_the_secrets_are_made_once_and_not_printed(tmp_path: Path) -> None:
    script = tmp_path / "secrets.sh"
    shutil.copy(COMPOSE / "secrets.sh", script)
    first = run("sh", script)
    assert first.returncode == 0, first.stderr
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    mounted = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["secrets"]
    assert made.keys() == mounted.keys()
    assert len(made["api_key"]) == 49 and made["postgres_password"].strip() in made["database"]
    assert not any(value.strip() in first.stdout for value in made.values())
    assert os.stat(tmp_path / "secrets").st_mode & 0o077 == 0
    run("sh", script)
    assert made == {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a program that exists."""
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/opt/rerankd/bin/rerankd", shutil.which("true") or "/bin/true"))
    return path


def test_d4_systemd_reads_the_unit(unit: Path) -> None:
    done = run("systemd-analyze", "verify", unit)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_d4_the_unit_exposes_little(unit: Path) -> None:
    done = run("systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", unit)
    [exposure] = re.findall(r"Overall exposure level .*: ([\d.]+)", done.stdout)
    assert done.returncode == 0 and float(exposure) <= 2.0, done.stdout


def test_d4_a_stop_has_the_time_of_a_drain() -> None:
    [seconds] = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert int(seconds) >= 120 + 10
