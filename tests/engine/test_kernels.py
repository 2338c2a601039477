"""Every kind of kernels that runs here computes what the plain operations do, and a row has its bits in any pass."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from rerankd.engine.loading.checksums import checksum
from rerankd.engine.loading.devices import instruction_sets
from rerankd.engine.qwen3.kernels import compiling
from rerankd.engine.qwen3.kernels import library as library_module
from rerankd.engine.qwen3.kernels.choice import OVERRIDE, Kernels, choose_kernels
from rerankd.engine.qwen3.kernels.kinds import KINDS, Kind
from rerankd.engine.qwen3.kernels.library import NoLibrary, open_library
from rerankd.engine.qwen3.kernels.native import NativeLayers
from rerankd.engine.qwen3.layers import Layers, TorchLayers
from rerankd.engine.qwen3.linear import Int8Weight, LayerWeights, Weight, layer_of
from rerankd.engine.qwen3.model import Qwen3Config, rope_angles
from rerankd.engine.qwen3.ops import TorchOperations
from rerankd.engine.qwen3.packed import Packed
from rerankd.errors import SettingsError
from support.amx import EMULATED, SANITIZED, SANITIZERS

SMALL = Qwen3Config(
    vocab_size=8,
    hidden_size=80,
    intermediate_size=176,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=128,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    max_position_embeddings=40_960,
    tie_word_embeddings=True,
)
"""No width is a multiple of 32 or 64, so that the last panel and line are not full."""

REAL = replace(SMALL, hidden_size=1024, intermediate_size=3072, num_attention_heads=16, num_key_value_heads=8)
"""The widths of the 0.6B."""

WIDE = replace(SMALL, hidden_size=2560, intermediate_size=9728, num_attention_heads=32, num_key_value_heads=8)
"""The widths of the 4B."""

WIDEST = replace(WIDE, hidden_size=4096, intermediate_size=12288, num_hidden_layers=1)
"""The widths of the 8B."""


NO_KERNELS = "this machine can have no kernels"


@pytest.fixture(scope="module")
def kind() -> Kind:
    """The best one here."""
    return next((kind for kind in KINDS if runs_here(kind)), None) or pytest.skip(NO_KERNELS)


def runs_here(kind: Kind) -> bool:
    return kind.instruction_sets <= set(instruction_sets())


@dataclass(frozen=True)
class Case:
    """A kind of kernels, with weights in its dtype or in int8."""

    kind: Kind
    quantized: bool

    def __str__(self) -> str:
        name = "amx-emulated" if self.kind is EMULATED else self.kind.name
        return f"{name}-{'int8' if self.quantized else 'float'}"


SAME_CODE = {("avx_vnni", False), ("avx2", True), ("neon", True)}
"""Cases without code of their own: avx2 has the first one's; nothing chooses the others (tests/kernels/check.cpp)."""

CASES = [
    case
    for kind in (*KINDS, EMULATED)
    for case in (Case(kind, False), Case(kind, True))
    if (kind.name, case.quantized) not in SAME_CODE
]


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture(scope="module")
def kernels(case: Case) -> Kernels:
    kind = case.kind
    if not runs_here(kind):
        pytest.skip(f"this processor cannot run the kernels {kind.name}")
    if os.environ.get(SANITIZED):
        kind = replace(kind, flags=(*kind.flags, *SANITIZERS))
    try:
        return Kernels(kind, open_library(kind))
    except NoLibrary as error:
        pytest.skip(f"this machine can have no kernels {kind.name}: {error}")


@pytest.fixture(scope="module")
def quantized(case: Case) -> bool:
    return case.quantized


@functools.lru_cache(2)
def random_weights(config: Qwen3Config, seed: int = 0) -> list[LayerWeights]:
    """float32, in values that bfloat16 has."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).bfloat16().float()

    def linear(outputs: int, inputs: int) -> torch.Tensor:
        scaled = random(outputs, inputs) / math.sqrt(inputs)
        return scaled.bfloat16().float()

    heads = config.num_attention_heads, config.num_key_value_heads
    layers = []
    for _ in range(config.num_hidden_layers):
        layers.append(
            LayerWeights(
                qkv=linear((heads[0] + 2 * heads[1]) * 128, config.hidden_size),
                output=linear(config.hidden_size, heads[0] * 128),
                gate_up=linear(2 * config.intermediate_size, config.hidden_size),
                down=linear(config.hidden_size, config.intermediate_size),
                input_norm=random(config.hidden_size) * 0.1 + 1,
                post_norm=random(config.hidden_size) * 0.1 + 1,
                qk_norm=random(sum(heads), 128) * 0.1 + 1,
            )
        )
    return layers


def converted(layers: Sequence[LayerWeights], dtype: torch.dtype, quantize: bool) -> list[LayerWeights]:
    def of(weight: Weight) -> Weight:
        assert isinstance(weight, torch.Tensor)
        return Int8Weight.of(weight) if quantize else weight.to(dtype)

    return [
        LayerWeights(
            **{name: of(getattr(one, name)) for name in ("qkv", "output", "gate_up", "down")},  # type: ignore[arg-type]
            **{name: getattr(one, name).to(dtype) for name in ("input_norm", "post_norm", "qk_norm")},
        )
        for one in layers
    ]


def torch_layers(config: Qwen3Config, dtype: torch.dtype, quantize: bool = False) -> TorchLayers:
    weights = converted(random_weights(config), dtype, quantize)
    return TorchLayers(config, [layer_of(one, dtype) for one in weights], TorchOperations(quantize))


def native_layers(kernels: Kernels, config: Qwen3Config, quantize: bool) -> NativeLayers:
    return NativeLayers(kernels, config, converted(random_weights(config), kernels.kind.dtype, quantize))


class Pass:
    """Sequences with random embeddings and random prefixes.

    Args:
        prefixes: the length of each; lengths: of each sequence, and which prefix it has; keeps: how many of the
            sequences, the first ones, keep their keys and values.
    """

    def __init__(
        self, config: Qwen3Config, prefixes: Sequence[int], lengths: Sequence[tuple[int, int]], keeps: int = 0
    ) -> None:
        self.config, self.keeps, self.lengths = config, keeps, lengths
        self.bases = [self._random(1000 + i, *self._entry(length)) for i, length in enumerate(prefixes)]
        self.rows = [self._random(i, length, config.hidden_size) for i, (length, _) in enumerate(lengths)]

    def _entry(self, length: int) -> tuple[int, ...]:
        return self.config.num_hidden_layers, 2, length, self.config.num_key_value_heads, 128

    def _random(self, seed: int, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16().float()

    def run(self, layers: Layers, dtype: torch.dtype, chosen: Sequence[int] | None = None) -> Results:
        """The results of the chosen sequences, (those that do not keep, hidden_size), and what is kept. float32."""
        chosen = range(len(self.rows)) if chosen is None else chosen
        bases = [base.to(dtype) for base in self.bases]
        kept = {i: torch.zeros(self._entry(self.lengths[i][0]), dtype=dtype) for i in chosen if i < self.keeps}
        after = [bases[self.lengths[i][1]] for i in sorted(chosen)]
        own = [self.lengths[i][0] for i in sorted(chosen)]
        places = [torch.arange(length) + base.shape[2] for length, base in zip(own, after, strict=True)]
        angles = rope_angles(torch.cat(places), self.config)
        x = torch.cat([self.rows[i] for i in sorted(chosen)]).to(dtype)
        with torch.inference_mode():
            out = layers(x, angles.cos(), angles.sin(), Packed.of(own, after, [kept[i] for i in sorted(kept)]))
        return out.float(), [entry.float() for entry in kept.values()]


Results = tuple[torch.Tensor, list[torch.Tensor]]


def no_worse(ours: Results, plain: Results, exact: Results) -> bool:
    """Whether the error against float32 is that of the plain operations, or smaller."""
    for mine, theirs, wanted in zip(*((result[0], *result[1]) for result in (ours, plain, exact)), strict=True):
        if wanted.numel():
            error, allowed, size = (mine - wanted).abs(), (theirs - wanted).abs(), wanted.square().mean().sqrt()
            if error.square().mean().sqrt() > 1.2 * allowed.square().mean().sqrt() + 1e-5 * size:
                return False
            if error.max() > 2 * allowed.max() + 1e-4 * size:
                return False
    return True


LENGTHS = [(length, i % 3) for i, length in enumerate([1, 2, 15, 16, 17, 31, 32, 33, 100, 5])]

PASSES = {
    "three prefixes": ([0, 16, 77], sorted(LENGTHS, key=lambda one: one[1]), 0),
    "prefixes between the panels": ([1, 31, 33], LENGTHS, 0),
    "one token": ([77], [(1, 0)], 0),
    "some are kept": ([5, 32, 0], LENGTHS, 4),
    "all are kept": ([20], [(40, 0), (3, 0)], 2),
    "long": ([600], [(700, 0), (513, 0)], 1),
}


@pytest.mark.parametrize("name", PASSES)
def test_the_kernels_equal_the_plain_operations(kernels: Kernels, quantized: bool, name: str) -> None:
    prefixes, lengths, keeps = PASSES[name]
    given = Pass(SMALL, prefixes, lengths, keeps)
    exact = given.run(torch_layers(SMALL, torch.float32), torch.float32)
    dtype = kernels.kind.dtype
    plain = given.run(torch_layers(SMALL, dtype, quantized), dtype)
    ours = given.run(native_layers(kernels, SMALL, quantized), dtype)
    assert len(ours[0]) == len(lengths) - keeps and len(ours[1]) == keeps
    assert no_worse(ours, plain, exact)


def test_real_widths_equal_the_plain_operations(kernels: Kernels, quantized: bool) -> None:
    compare_widths(kernels, quantized, REAL)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.kind.dtype == torch.bfloat16], ids=str, indirect=True)
@pytest.mark.parametrize("config", [WIDE, WIDEST], ids=["4B", "8B"])
def test_larger_widths_equal_the_plain_operations(kernels: Kernels, quantized: bool, config: Qwen3Config) -> None:
    """In bfloat16 only: the loops over the widths are the same code in float32."""
    compare_widths(kernels, quantized, config)


def compare_widths(kernels: Kernels, quantized: bool, config: Qwen3Config) -> None:
    given = Pass(config, [77], [(length, 0) for length in (1, 30, 105, 64)], 1)
    exact = given.run(torch_layers(config, torch.float32), torch.float32)
    dtype = kernels.kind.dtype
    plain = given.run(torch_layers(config, dtype, quantized), dtype)
    ours = given.run(native_layers(kernels, config, quantized), dtype)
    assert no_worse(ours, plain, exact)


@pytest.mark.parametrize("config", [SMALL, pytest.param(REAL, marks=pytest.mark.slow)], ids=["small", "0.6B"])
def test_a_sequence_has_its_bits_in_any_pass(kernels: Kernels, quantized: bool, config: Qwen3Config) -> None:
    prefixes, lengths = [0, 77, 16], [(1, 0), (33, 1), (105, 1), (250, 2), (8, 2), (64, 0), (130, 1)]
    tried = 12 if config is SMALL else 4
    given, layers, dtype = Pass(config, prefixes, lengths), native_layers(kernels, config, quantized), torch.float32
    together = given.run(layers, kernels.kind.dtype)[0]
    assert together.dtype == dtype and together.std() > 0.1
    for size in (1, 2, 5):
        for chosen in itertools.islice(itertools.combinations(range(len(lengths)), size), tried):
            assert torch.equal(given.run(layers, kernels.kind.dtype, chosen)[0], together[list(chosen)])


def test_a_prompt_in_chunks_has_the_bits_of_the_whole(kernels: Kernels, quantized: bool) -> None:
    """What a chunk keeps is the prefix of the next one."""
    dtype, layers = kernels.kind.dtype, native_layers(kernels, SMALL, quantized)
    whole = Pass(SMALL, [0], [(150, 0)])
    expected = whole.run(layers, dtype)[0]
    for ends in ([149], [1, 17, 64, 100], [15, 16, 31, 33, 148]):
        entry = torch.zeros(SMALL.num_hidden_layers, 2, 150, SMALL.num_key_value_heads, 128, dtype=dtype)
        x, start, out = whole.rows[0].to(dtype), 0, torch.empty(0)
        angles = rope_angles(torch.arange(150), SMALL)
        for end in (*ends, 150):
            keeps = [] if end == 150 else [entry[:, :, start:end]]
            packed = Packed.of([end - start], [entry[:, :, :start]], keeps)
            out = layers(x[start:end].clone(), angles[start:end].cos(), angles[start:end].sin(), packed)
            start = end
        assert torch.equal(out.float(), expected)


def test_what_is_no_number_stays_in_its_sequence(kernels: Kernels, quantized: bool) -> None:
    given = Pass(SMALL, [16], [(5, 0), (20, 0), (17, 0)])
    layers, dtype = native_layers(kernels, SMALL, quantized), kernels.kind.dtype
    expected = given.run(layers, dtype)[0]
    given.rows[1][3, 7] = float("nan")
    out = given.run(layers, dtype)[0]
    assert not out[1].isfinite().all()
    assert torch.equal(out[[0, 2]], expected[[0, 2]])


def test_threads_do_not_change_a_bit(kernels: Kernels, quantized: bool) -> None:
    given, layers = Pass(SMALL, [33], [(50, 0), (20, 0), (90, 0)], 1), native_layers(kernels, SMALL, quantized)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(given.run(layers, kernels.kind.dtype))
    finally:
        torch.set_num_threads(before)
    for out, kept in results:
        assert torch.equal(out, results[0][0]) and torch.equal(kept[0], results[0][1][0])


# The choice


def test_the_kind_is_said_once_and_can_be_overridden(
    kind: Kind, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(OVERRIDE, kind.name)
    with caplog.at_level(logging.INFO):
        kernels = choose_kernels(kind.dtype)
    assert kernels is not None and kernels.kind == kind
    assert [record.getMessage() for record in caplog.records] == [f"Kernels: {kind.name}."]
    monkeypatch.setenv(OVERRIDE, "plain")
    assert choose_kernels(kind.dtype) is None


@pytest.mark.parametrize(
    ("sets", "dtype", "expected"),
    [
        ({"avx2", "avx_vnni", "avx512_f", "avx512_vnni", "avx512_bf16"}, torch.bfloat16, "avx512_bf16"),
        ({"avx2", "avx_vnni", "avx512_f", "avx512_vnni", "avx512_bf16"}, torch.float32, "avx512_vnni"),
        ({"avx2", "avx512_f", "avx512_vnni"}, torch.float32, "avx512_vnni"),
        ({"avx2", "avx512_f"}, torch.float32, "avx2"),
        ({"avx2", "avx_vnni"}, torch.float32, "avx_vnni"),
        ({"avx2"}, torch.float32, "avx2"),
        ({"avx2"}, torch.bfloat16, None),
        (set(), torch.float32, None),
    ],
)
def test_a_processor_gets_the_best_of_its_kinds(
    sets: set[str], dtype: torch.dtype, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not sets <= set(instruction_sets()):
        pytest.skip("this processor cannot run the kernels of that one")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(sets, True))
    chosen = choose_kernels(dtype)
    assert (chosen.kind.name if chosen else None) == expected


def test_an_unknown_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OVERRIDE, "sse2")
    with pytest.raises(SettingsError, match=r"sse2.*plain"):
        choose_kernels(torch.bfloat16)


def test_a_compiler_that_fails_costs_only_speed(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'error: unrecognized command-line option' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(OVERRIDE, kind.name)
    assert choose_kernels(kind.dtype) is None
    assert "unrecognized command-line option" in caplog.text and "plain operations run" in caplog.text


@pytest.mark.slow
def test_installed_kernels_need_no_compiler_and_no_cache(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in an image, whose build compiles them."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(compiling, "INSTALLED", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    (tmp_path / "none").touch()
    library = compiling.compile_installed(kind, compiling.find_compiler() or pytest.skip(NO_KERNELS), tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(OVERRIDE, kind.name)
    assert choose_kernels(kind.dtype) is not None
    assert [record.getMessage() for record in caplog.records] == [f"Kernels: {kind.name}."]
    for content in (library.read_bytes()[:9999], b"", b"\x7fELF" + bytes(99)):
        library.write_bytes(content)
        assert choose_kernels(kind.dtype) is None, "a damaged library is not loaded"
    assert "damaged" in caplog.text
    foreign = tmp_path / f"{kind.name}-{compiling.source_digest(kind)}-{checksum(library)}.so"
    library.rename(foreign)
    assert choose_kernels(kind.dtype) is None, "a foreign one neither"
    assert "cannot be loaded" in caplog.text
    monkeypatch.setattr(compiling, "FLAGS", ("-O0",))
    assert compiling.find_installed(kind) == [], "a library of other sources or flags is not used"
    assert "there is no C++ compiler" in caplog.text


@pytest.mark.slow
def test_two_processes_may_start_at_once(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(OVERRIDE, kind.name)
    code = (
        "import torch; from rerankd.engine.qwen3.kernels.choice import choose_kernels\n"
        f"assert choose_kernels({kind.dtype}) is not None"
    )
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert len(list((tmp_path / "rerankd").glob("kernels-*.so"))) >= 1


def test_a_foreign_library_is_not_loaded(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that lacks the functions, under a name and checksum that fit."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def compile_another(kind: Kind, compiler: str, library: Path) -> None:
        source = tmp_path / "other.cpp"
        source.write_text('extern "C" int other() { return 1; }')
        subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(library)], check=True)

    monkeypatch.setattr(library_module, "compile_kernels", compile_another)
    with pytest.raises(NoLibrary, match="is_available"):
        open_library(kind)
