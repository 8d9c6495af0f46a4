"""Which precision is meant where."""

from __future__ import annotations

import pytest
import torch

from models import execution
from models.execution import BadExecution, Execution, execution_of, native_dtype

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("amx", "avx512"), [(False, False), (True, False), (False, True)])
def test_native_dtype_is_bfloat16_only_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    expected = torch.bfloat16 if amx or avx512 else torch.float32
    assert native_dtype("cpu") is expected
    assert native_dtype("cuda") is torch.bfloat16
    assert Execution(precision="bf16").dtype(CPU) is expected


def test_dtype_exact_on_a_cpu_unless_asked_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "native_dtype", lambda _: torch.bfloat16)
    assert Execution().dtype(CPU) is torch.float32
    assert Execution().dtype(GPU) is torch.bfloat16
    for device in (CPU, GPU):
        assert Execution(precision="fp32").dtype(device) is torch.float32
        assert Execution(precision="bf16").dtype(device) is torch.bfloat16


def test_execution_of_takes_its_own_names_only() -> None:
    assert execution_of({"model": "m", "precision": "bf16", "compile": True}) == Execution(
        precision="bf16", compiled=True
    )
    assert execution_of({"store": "s"}) == Execution()
    with pytest.raises(BadExecution, match="choose one of auto, fp32, bf16"):
        execution_of({"precision": "fp8"})
