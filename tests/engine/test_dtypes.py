"""`auto` takes the dtype that multiplies fastest here, and offers int8 where that is faster still."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from rerankd.engine.loading import dtypes, rates
from rerankd.engine.loading.dtypes import choose_dtype, explain_auto
from rerankd.engine.loading.open import Choice, open_model
from rerankd.engine.loading.rates import ProductRates, product_rates

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("measured", "chosen", "offers_int8"),
    [
        (ProductRates(float32=130, bfloat16=97, int8=556), "float32", True),  # a virtual machine that hides AMX
        (ProductRates(float32=107, bfloat16=16, int8=None), "float32", False),
        (ProductRates(float32=134, bfloat16=630, int8=1590), "bfloat16", True),
        (ProductRates(float32=103, bfloat16=494, int8=510), "bfloat16", False),
    ],
    ids=["slow bfloat16", "AVX2", "AMX", "int8 gains nothing"],
)
def test_auto_takes_the_faster_of_the_two_and_says_what_int8_gains(
    monkeypatch: pytest.MonkeyPatch, measured: ProductRates, chosen: str, offers_int8: bool
) -> None:
    monkeypatch.setattr(dtypes, "product_rates", lambda with_int8: measured)
    assert choose_dtype("auto", CPU) == dtypes.DTYPES[chosen]
    line = explain_auto()
    assert f"auto computes in {chosen} " in line
    assert ("--dtype int8" in line) == offers_int8


def test_each_dtype_is_measured_here() -> None:
    found = product_rates(False)
    assert found.int8 is None
    assert 0 < found.float32 < 1e6 and 0 < found.bfloat16 < 1e6
    assert product_rates(False) is found, "once in a process"


def test_one_loaded_moment_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {torch.float32: iter([100.0, 101.0, 99.0]), torch.bfloat16: iter([20.0, 480.0, 30.0])}
    monkeypatch.setattr(rates, "_float_rate", lambda rows, weight: next(measured[rows.dtype]))
    monkeypatch.setattr(rates, "instruction_sets", lambda: ["avx512_bf16"])
    found = product_rates.__wrapped__(False)
    assert (found.float32, found.bfloat16) == (101, 480)


def test_emulated_bfloat16_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {torch.float32: iter([100.0]), torch.bfloat16: iter([16.0])}
    monkeypatch.setattr(rates, "_float_rate", lambda rows, weight: next(measured[rows.dtype]))
    monkeypatch.setattr(rates, "instruction_sets", lambda: ["avx2"])
    assert product_rates.__wrapped__(False).bfloat16 == 16


def test_the_log_says_what_auto_chose(tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        info = open_model(Choice(str(tiny_checkpoint), "cpu")).info
    [line] = [record.message for record in caplog.records if "--dtype auto" in record.message]
    assert f"computes in {info.dtype} (" in line
