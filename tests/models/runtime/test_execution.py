"""Device and precision: defaults, and how they reach the code that loads a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from models.runtime import execution
from models.runtime.execution import BadExecution, Execution, execution_of, multiply_exactly, native_dtype
from pipelines.cli import main
from pipelines.evaluation.job import evaluate
from pipelines.indexing.job import index
from serving.engine import QueryEngine
from serving.settings import ServeSettings
from serving.stages.extract import open_extract_worker
from tests.support.city_store import CityStore
from tests.support.pictures import write_photos

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


def test_dtype_is_float32_on_a_cpu_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "native_dtype", lambda _: torch.bfloat16)
    assert Execution().dtype(CPU) is torch.float32
    assert Execution().dtype(GPU) is torch.bfloat16
    for device in (CPU, GPU):
        assert Execution(precision="fp32").dtype(device) is torch.float32
        assert Execution(precision="bf16").dtype(device) is torch.bfloat16


def test_execution_of_ignores_other_options() -> None:
    assert execution_of({"model": "m", "precision": "bf16", "compile": True}) == Execution(
        precision="bf16", compiled=True
    )
    assert execution_of({"store": "s"}) == Execution()
    with pytest.raises(BadExecution, match="choose one of auto, fp32, bf16"):
        execution_of({"precision": "fp8"})


@pytest.mark.parametrize(
    ("device", "dtype", "rounded"),
    [(GPU, torch.float32, False), (GPU, torch.bfloat16, True), (CPU, torch.float32, True)],
)
def test_multiply_exactly_disables_tf32_for_float32(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, dtype: torch.dtype, rounded: bool
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    multiply_exactly(device, dtype)
    assert torch.backends.cudnn.allow_tf32 is rounded


ASKED = Execution(precision="bf16", compiled=True)


class Seen(Exception):
    """What reached the function that was replaced."""


def stop(*_: object, **options: Any) -> NoReturn:
    raise Seen(options["execution"])


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("pipelines.indexing.job.index", ["index", "x", "--store", "s"]),
        ("pipelines.query.ask_store", ["query", "x", "--store", "s"]),
        ("pipelines.evaluation.job.evaluate", ["evaluate", "x"]),
        ("pipelines.embed.embed", ["embed", "x", "--model", "m", "--out", "o"]),
    ],
)
def test_flags_are_passed_to_the_function_of_the_verb(
    function: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(function, stop)
    with pytest.raises(Seen) as passed_on:
        main([*arguments, "--precision", "bf16", "--compile"])
    assert passed_on.value.args == (ASKED,)


@pytest.mark.parametrize(
    "call",
    [
        lambda store: QueryEngine.open(store, execution=ASKED),
        lambda store: open_extract_worker(ServeSettings(store=store, precision="bf16", compile=True)),
    ],
    ids=["engine", "worker"],
)
def test_execution_is_passed_to_the_loader(
    call: Callable[[str], object], city_store: CityStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.weights.load_extractor", stop)
    with pytest.raises(Seen) as passed_on:
        call(city_store.uri)
    assert passed_on.value.args == (ASKED,)


def test_evaluate_passes_the_execution_on(
    city_store: CityStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for function in ("pipelines.evaluation.database.index", "pipelines.evaluation.job.QueryEngine.open"):
        monkeypatch.setattr(function, stop)
        for store in (city_store.uri,) if "open" in function else (None, str(tmp_path / "none")):
            with pytest.raises(Seen) as passed_on:
                evaluate(city_store.folder / "city", store_uri=store, execution=ASKED)
            assert passed_on.value.args == (ASKED,)


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_index_plans_with_the_execution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def planned(*_: object, execution: Execution, **__: object) -> NoReturn:
        raise Seen(execution)

    monkeypatch.setattr("pipelines.indexing.job.Request", planned)
    write_photos(tmp_path / "photos", 1)
    with pytest.raises(Seen) as passed_on:
        index(tmp_path / "photos", str(tmp_path / "store"), execution=ASKED)
    assert passed_on.value.args == (ASKED,)
