"""Write reference/metrics.md: what /metrics exports, as Prometheus sees it."""

from __future__ import annotations

import mkdocs_gen_files
from prometheus_client.parser import text_string_to_metric_families

from serving.metrics import Metrics

INTRODUCTION = """# Metrics

`GET /metrics` in Prometheus' text format; `deploy/grafana-dashboard.json` shows them. Every series has the
label `replica`. Clients cannot create label values: unknown routes and reasons count as `other`.

| metric | type | meaning |
|---|---|---|
"""


def rows() -> str:
    """Return one line for each metric."""
    families = text_string_to_metric_families(Metrics("replica").render()[0].decode())
    return "".join(
        f"| `{one.name}{'_total' if one.type == 'counter' else ''}` | {one.type} | {one.documentation} |\n"
        for one in families
        if not one.name.endswith("_created")
    )


with mkdocs_gen_files.open("reference/metrics.md", "w") as file:
    file.write(INTRODUCTION + rows())
