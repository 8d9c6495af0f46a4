"""The addresses that the chart's probes ask exist on a real head, and need no token."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from tests.support.kuberay_rules import Documents, clusters
from tests.support.ray_head import AGENT, running_head


@pytest.mark.cluster
@pytest.mark.ray
def test_probes_are_answered_without_a_token(documents: Documents, tmp_path: Path) -> None:
    asked = {
        (probe["httpGet"]["port"], probe["httpGet"]["path"])
        for _, cluster in clusters(documents)
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
        for name, probe in group["template"]["spec"]["containers"][0].items()
        if name.endswith("Probe")
    }
    with running_head(tmp_path) as environment:
        # Ray's default ports, and the ones of this head; the third port is that of Serve's proxies.
        places = {8265: environment["RAY_ADDRESS"], 52365: environment[AGENT]}
        assert {port for port, _ in asked} == {*places, 8000}
        for port, path in asked:
            if port in places:
                assert requests.get(f"{places[port]}{path}", timeout=10).status_code == 200, path
