"""Load on a service: clients that each send the next photo when the last answer has arrived."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

import aiohttp

__all__ = ["STAGES", "percentiles", "send_load"]

STAGES = ("decode", "extract", "search", "fetch", "rerank")


def send_load(url: str, clients: str, seconds: str, *paths: str) -> dict[str, Any]:
    """Send photos from some clients at once for some seconds; without photos, request `/healthz`."""

    photos = [Path(path).read_bytes() for path in paths]
    taken: list[float] = []
    statuses: dict[int, int] = {}
    work: dict[str, list[float]] = {stage: [] for stage in (*STAGES, "total")}
    outside: list[float] = []

    async def client(session: aiohttp.ClientSession, number: int, ends: float) -> None:
        while time.perf_counter() < ends:
            started = time.perf_counter()
            if photos:
                headers = {"content-type": "image/jpeg"}
                request = session.post(f"{url}/v1/query", data=photos[number % len(photos)], headers=headers)
            else:
                request = session.get(f"{url}/healthz")
            async with request as reply:
                answer = await reply.json()
            statuses[reply.status] = statuses.get(reply.status, 0) + 1
            ms = (time.perf_counter() - started) * 1e3
            if not photos:
                taken.append(ms)
            elif reply.status == 200:
                taken.append(ms)
                for stage, value in answer["timings_ms"].items():
                    work[stage].append(value)
                outside.append(ms - sum(answer["timings_ms"][stage] for stage in STAGES))
            number += 7

    async def run() -> float:
        started = time.perf_counter()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            ends = started + float(seconds)
            await asyncio.gather(*(client(session, number, ends) for number in range(int(clients))))
        return time.perf_counter() - started

    elapsed = asyncio.run(run())
    return {
        **percentiles(taken),
        "per_s": len(taken) / elapsed,
        "statuses": statuses,
        "stages_mean_ms": {stage: statistics.mean(values or [0]) for stage, values in work.items()},
        "outside_stages_p50_ms": statistics.median(outside or [0]),
    }


def percentiles(ms: list[float]) -> dict[str, float]:
    ordered = sorted(ms)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return {"p50_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99), "answers": len(ordered)}
