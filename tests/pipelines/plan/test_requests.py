"""What a commit to a bucket takes in requests is what the plan counts on."""

from __future__ import annotations

import uuid

from pipelines.plan.estimate import READS_PER_COMMIT, WRITES_PER_COMMIT
from storage.store import Store
from tests.support.fault_proxy import FaultProxy
from tests.support.store_samples import make_card, make_rows


def test_requests_of_a_commit_are_those_of_the_plan(faulty: FaultProxy) -> None:
    store = Store.create(f"s3://placeray/{uuid.uuid4().hex}?endpoint={faulty.url}", make_card())
    counts = []
    with store.lease():
        for number in range(6):
            rows = make_rows(store, [f"id{number}-{row}" for row in range(4)])  # writes a shard
            faulty.seen.clear()
            store.commit(rows)
            seen = [(method, path) for method, path in faulty.seen if "LEASE" not in path]
            lists = [path for method, path in seen if method == "GET" and "list-type" in path]
            written = [path for method, path in seen if method in ("PUT", "POST")]
            read = [path for method, path in seen if method in ("GET", "HEAD")]
            counts.append((len(written) + len(lists), len(read) - len(lists)))
    assert counts[-1] == (WRITES_PER_COMMIT, READS_PER_COMMIT)
