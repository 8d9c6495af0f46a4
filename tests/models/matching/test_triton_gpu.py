"""The Triton kernel under Triton's interpreter, compiled for an H100, on CUDA, and unavailable."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.matching import triton_gpu as matching_triton
from models.matching.blocks import partners_by_blocks
from models.matching.mutual import mutual_nn_count
from tests.models.matching.test_mutual import plain_pairs, unit

needs_triton = pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="triton is not installed")

# One process for all cases: starting it takes longer than they do. The interpreter's arithmetic is NumPy's,
# which warns of the infinities that some cases hold on purpose.
CASES = """
import json, traceback, warnings
warnings.simplefilter("ignore")
import numpy as np, torch
from models.matching.triton_gpu import partners_of_queries, partners_on_cuda
from models.matching.displacements import largest_squares
from models.matching.votes import FULL, _square_votes_on_cuda
from tests.models.matching.test_mutual import unit

def plain(query, candidate):
    similarity = query.double().numpy() @ candidate.double().numpy().T
    forth, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
    partner = np.where(back[forth] == np.arange(len(query)), forth, -1)
    return partner.tolist(), similarity.max(axis=1)

def check(queries, candidates, case):
    partner, best = partners_of_queries(queries, candidates)
    assert (partner >= 0).any(dim=2).all(), case
    for b, query in enumerate(queries):
        for k, candidate in enumerate(candidates[b]):
            expected, largest = plain(query, candidate)
            assert partner[b, k].tolist() == expected, (case, b, k)
            np.testing.assert_allclose(best[b, k].numpy(), largest, atol=1e-4, err_msg=str(case))

def random():
    shapes = [(1, 1, 1, 1, 3), (2, 2, 70, 5, 20), (1, 1, 64, 65, 128), (1, 2, 1, 130, 40)]
    shapes += [(1, 1, 260, 129, 150), (1, 1, 270, 190, 40)]
    single, half = torch.float32, torch.float16
    for seed, (batch, count, rows, columns, width) in enumerate(shapes):
        rng = np.random.default_rng(seed)
        # float32 alone has the variant of mixed kinds; large shapes take the interpreter a second each.
        for kinds in ((single, single), (half, half), (single, half))[rows > 200 :]:
            queries = torch.from_numpy(unit(rng, batch, rows, width)).to(kinds[0])
            candidates = torch.from_numpy(unit(rng, batch, count, columns, width)).to(kinds[1])
            check(queries, candidates, (seed, kinds))

def ties():
    for seed in range(4):
        rng = np.random.default_rng(seed)
        levels, rows, columns = 1 + seed % 2, int(rng.integers(1, 150)), int(rng.integers(1, 150))
        queries = torch.from_numpy(rng.integers(-levels, levels + 1, (1, rows, 2)).astype(np.float32))
        stored = rng.integers(-levels, levels + 1, (1, 2, columns, 2)).astype(np.float16)
        check(queries, torch.from_numpy(stored), seed)
    check(torch.zeros(1, 70, 4), -torch.zeros(1, 1, 70, 4), "zeros")
    check(-torch.ones(1, 70, 4), torch.ones(1, 1, 70, 4), "all negative")
    signs = torch.tensor([[-0.0, 1.0], [0.0, 1.0]] * 40)  # products of both zeros
    check(signs[None] * torch.tensor([1.0, 0.0]), torch.ones(1, 1, 90, 2), "zeros of both signs")

def not_finite():
    for value in (float("nan"), float("inf"), float("-inf")):
        for where in (0, 1):
            for place in (0, -1):
                pair = [torch.ones(70, 3), torch.ones(2, 70, 3).half()]
                pair[where].view(-1)[place] = value
                try:
                    partners_on_cuda(*pair)
                except ValueError as error:
                    assert "placeray verify" in str(error)
                else:
                    raise AssertionError((value, where, place))

def fast():
    rng = np.random.default_rng(0)
    query, candidates = torch.from_numpy(unit(rng, 90, 40)), unit(rng, 2, 80, 40)
    partner, _ = partners_on_cuda(query, candidates, fast=True)
    expected, _ = partners_on_cuda(query.half(), candidates.astype(np.float16))
    assert torch.equal(partner, expected)
    assert (partner >= 0).any()

def no_candidates():
    assert partners_on_cuda(torch.ones(90, 4), torch.ones(0, 80, 4))[0].shape == (0, 90)

def votes():
    for seed, (grid, other) in enumerate([((14, 14), (14, 14)), ((9, 13), (14, 7)), ((1, 1), (1, 1))]):
        rng = np.random.default_rng(seed)
        cells, others = grid[0] * grid[1], other[0] * other[1]
        drawn = rng.integers(0, others, (5, cells))
        partner = torch.from_numpy(np.where(rng.random((5, cells)) < 0.6, drawn, -1))
        weights = torch.from_numpy(rng.integers(0, FULL + 1, (5, cells))) * (partner >= 0)
        expected = largest_squares(partner.numpy(), weights.float().numpy(), grid, other)
        found = _square_votes_on_cuda(partner, weights.float(), grid, other)
        for here, there in zip(found, expected, strict=True):
            assert here.tolist() == there.tolist(), (grid, other)

outcome = {}
for case in (random, ties, not_finite, fast, no_candidates, votes):
    try:
        case()
        outcome[case.__name__] = "passed"
    except Exception:
        outcome[case.__name__] = traceback.format_exc()
print(json.dumps(outcome))
"""


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str]:
    """Run the cases with the kernel interpreted; the variable must be set before triton is imported."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", CASES], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outcome: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return outcome


@pytest.mark.integration
@needs_triton
@pytest.mark.parametrize("case", ["random", "ties", "not_finite", "fast", "no_candidates", "votes"])
def test_kernel_interpreted_agrees_with_float64(case: str, interpreted: dict[str, str]) -> None:
    assert interpreted[case] == "passed", interpreted[case]


def test_matching_on_cpu_loads_no_triton() -> None:
    code = (
        "import json, sys, torch\n"
        "from models.matching.mutual import mutual_nn_count\n"
        "before = set(sys.modules)\n"
        "counts = mutual_nn_count(torch.eye(3), torch.eye(3)[None]).tolist()\n"
        "loaded = sorted({'triton', 'models.matching.triton_kernel'} & (set(sys.modules) - before))\n"
        "print(json.dumps([counts, loaded, 'models.matching.triton_kernel' in before]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=120)
    assert json.loads(done.stdout) == [[3], [], False]


def test_missing_triton_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "models.matching.triton_kernel", raising=False)
    matching_triton._kernel.cache_clear()
    with pytest.raises(matching_triton.Unavailable, match="install the version that fits torch"):
        matching_triton.partners_on_cuda(torch.ones(2, 3), torch.ones(1, 2, 3))


def test_triton_cannot_compile_warns_once_then_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = pytest.importorskip("triton.runtime.errors")

    class Broken:
        calls = 0

        class nearest_both_ways:  # noqa: N801
            def __class_getitem__(cls, grid: object) -> object:
                def launch(*args: object, **options: object) -> None:
                    Broken.calls += 1
                    raise errors.OutOfResources(2, 1, "shared memory")

                return launch

    monkeypatch.setattr(matching_triton, "_kernel", lambda: Broken)
    monkeypatch.setattr(matching_triton, "_REFUSED", set())
    query, candidates = torch.ones(2, 3), torch.ones(1, 2, 3)
    with (
        pytest.warns(RuntimeWarning, match="without its Triton kernel"),
        pytest.raises(matching_triton.Unavailable),
    ):
        matching_triton.partners_on_cuda(query, candidates)
    with pytest.raises(matching_triton.Unavailable, match="first warning"):
        matching_triton.partners_on_cuda(query, candidates)
    assert Broken.calls == 2  # with three stages and with two, and never again


@needs_triton
def test_triton_that_cannot_start_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime import driver

    class NoCompiler:
        def get_current_target(self) -> None:
            raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(driver, "_active", NoCompiler())
    assert matching_triton._obstacle(torch.device("cpu")) == ""
    reason = matching_triton._obstacle(torch.device("cuda"))
    assert "C compiler" in reason
    monkeypatch.setattr(matching_triton, "_obstacle", lambda device: reason)
    monkeypatch.setattr(matching_triton, "_REFUSED", set())
    with (
        pytest.warns(RuntimeWarning, match="without its Triton kernel.*C compiler"),
        pytest.raises(matching_triton.Unavailable, match="C compiler"),
    ):
        matching_triton.partners_on_cuda(torch.ones(2, 3), torch.ones(1, 2, 3))


@pytest.mark.integration
@needs_triton
@pytest.mark.parametrize(
    ("rows", "kinds", "channels", "blocks_per_multiprocessor"),
    [
        (3721, ("bf16", "bf16"), 128, 2),
        pytest.param(196, ("fp16", "fp16"), 112, 4, marks=pytest.mark.slow),
        pytest.param(3721, ("fp32", "fp16"), 128, 2, marks=pytest.mark.slow),
        pytest.param(3721, ("bf16", "bf16"), 200, 2, marks=pytest.mark.slow),
    ],
)
def test_kernel_compiles_for_an_h100(
    rows: int,
    kinds: tuple[str, str],
    channels: int,
    blocks_per_multiprocessor: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from models.matching.triton_kernel import nearest_both_ways

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants, options = matching_triton._variant(rows, channels, halves=kinds[0] == kinds[1])
    pointers = [*kinds, "fp32", "i32", "i64", "i32"]
    types = [*(f"*{kind}" for kind in pointers), *["i32"] * 5, *["constexpr"] * len(constants)]
    names = nearest_both_ways.arg_names
    source = ASTSource(
        fn=nearest_both_ways,
        signature=dict(zip(names, types, strict=True)),
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i in range(len(pointers))},
    )
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={**options, "num_stages": 3})
    assert "wgmma.mma_async" in made.asm["ptx"]  # the tensor cores, by Hopper's own instructions
    assert made.metadata.shared * blocks_per_multiprocessor <= 227 << 10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("shape", [(196, 196, 112), (1, 7, 3), (700, 650, 128)])
def test_count_on_cuda_equals_plain(shape: tuple[int, int, int]) -> None:
    rows, columns, width = shape
    rng = np.random.default_rng(0)
    query, candidates = unit(rng, rows, width), unit(rng, 5, columns, width)
    expected = [len(plain_pairs(query, candidate)) for candidate in candidates]
    on_device = torch.from_numpy(query).cuda(), torch.from_numpy(candidates).cuda()
    exact = mutual_nn_count(*on_device)
    assert exact.device.type == "cuda"
    assert exact.tolist() == expected
    fast = mutual_nn_count(*on_device, precision="fast").tolist()
    assert max(abs(a - b) for a, b in zip(fast, expected, strict=True)) <= 3
    blocks = (partners_by_blocks(*on_device)[0] >= 0).sum(dim=1)
    assert blocks.tolist() == expected
