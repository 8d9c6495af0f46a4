"""Where the time of one answer goes: each stage in an answer and by itself, beside its floor.

    python -m benchmarks.bench_answer

`QueryEngine` answers photos of the demo city with the default model, with as many threads as cores, in a
process of its own per round. A floor is operations over the rate of a large product, or bytes over the rate
of reading memory, both measured in the same process; for decoding it is Pillow alone.
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.bandwidth import read_gb_per_s
from benchmarks.floors import product_rate
from benchmarks.machine import describe_machine
from benchmarks.results import command_line, make_parser, write_results
from benchmarks.serve_stores import demo_city
from benchmarks.subprocesses import apart
from benchmarks.timing import median_ms

PHOTOS = 40
PARTS = ("decode", "model", "descriptor", "search", "fetch", "match", "score")


def main() -> None:
    parser = make_parser(__doc__, "answer.json")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="placeray-bench-") as scratch:
        city, photos = demo_city(Path(scratch))
        rounds = [apart(measure, city, *photos[:PHOTOS]) for _ in range(args.rounds)]
    figures = {
        kind: {
            name: round(statistics.median(each[kind][name] for each in rounds), 2) for name in rounds[0][kind]
        }
        for kind in rounds[0]
    }
    print(f"{'':>10} {'alone':>7} {'floor':>7}  ms")
    for name in PARTS:
        print(f"{name:>10} {figures['alone_ms'][name]:7.2f} {figures['floor_ms'].get(name, 0):7.2f}")
    print("in answers:", figures["answer_ms"])
    machine = describe_machine(rounds=args.rounds, photos=PHOTOS)
    write_results(args.out, {"command": command_line(), "machine": machine, **figures})


def measure(store: str, *paths: str) -> dict[str, dict[str, float]]:
    """Return milliseconds: of the stages within answers, of their parts by themselves, and floors."""
    import torch
    from PIL import Image

    from models.images.decoder import decode_image
    from serving.counting import CandidateMatcher
    from serving.engine import QueryEngine
    from serving.matching_options import default_candidates

    torch.set_num_threads(os.cpu_count() or 1)
    engine = QueryEngine.open(store)
    snapshot, card, codec = engine.store.snapshot, engine.store.card, engine.store.codec
    candidates = default_candidates(card)
    photos = [Path(path).read_bytes() for path in paths]

    def described(made: Any) -> Any:
        return engine._describer.describe(snapshot.card, made[0], made[1])

    def matched(one: Any) -> CandidateMatcher:
        features, (stored, readable) = one
        matcher = CandidateMatcher(features, card, codec=codec, matching=engine.matching)
        matcher.match(stored, readable)
        return matcher

    def search(descriptor: Any) -> Any:
        return snapshot.search(descriptor, k=candidates, method=engine.method)

    alone: dict[str, float] = {}
    alone["decode"], images = median_ms(decode_image, photos)
    alone["model"], made = median_ms(lambda image: engine.extractor.extraction([image.pixels]), images)
    alone["descriptor"], descriptors = median_ms(described, made)
    alone["search"], found = median_ms(search, descriptors)
    alone["fetch"], stored = median_ms(
        engine.store.fetch, [[hit.record for hit in hits[0]] for hits in found]
    )
    alone["match"], matchers = median_ms(
        matched, [(one[1][0], two) for one, two in zip(made, stored, strict=True)]
    )
    alone["score"], _ = median_ms(CandidateMatcher.scores, matchers)

    answers = median_ms(engine.answer, photos)[1]
    stages = {
        name: statistics.median(answer.timings_ms[name] for answer in answers)
        for name in answers[0].timings_ms
    }
    floors = {
        "decode": median_ms(lambda photo: Image.open(io.BytesIO(photo)).convert("RGB").load(), photos)[0]
    }
    rate, gb_per_s = product_rate(torch.float32), read_gb_per_s(os.cpu_count() or 1)
    aggregation = engine._describer.aggregation(snapshot.card)
    cells = card.grid_height * card.grid_width
    floors["model"] = 1e3 * gflop_per_photo(card.model) / rate
    if aggregation is not None:
        floors["descriptor"] = aggregation.projection.nbytes / gb_per_s / 1e6
    floors["search"] = snapshot.count * card.descriptor_dim * 4 / gb_per_s / 1e6
    floors["fetch"] = candidates * codec.row_bytes / gb_per_s / 1e6
    floors["match"] = 2 * candidates * cells**2 * codec.channels / rate / 1e6
    machine = {"product_gflops": rate, "read_gb_per_s": gb_per_s, "threads": torch.get_num_threads()}
    return {"answer_ms": stages, "alone_ms": alone, "floor_ms": floors, "rates": machine}


def gflop_per_photo(model: str) -> float:
    """Return the operations of a network as trained, in thousands of millions."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from models.weights import load_network

    network, card = load_network(model)
    for weights in network.parameters():  # not inference mode, where layers are replaced by others
        weights.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, card.preprocessing.height, card.preprocessing.width))
    return float(counter.get_total_flops()) / 1e9


if __name__ == "__main__":
    main()
