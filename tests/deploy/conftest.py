"""The rendered chart."""

from __future__ import annotations

import copy

import pytest

from tests.support.kuberay_rules import Documents
from tests.support.rendered_chart import rendered


@pytest.fixture
def documents(tmp_path_factory: pytest.TempPathFactory) -> Documents:
    """Everything the chart can make, to be changed at will."""
    return copy.deepcopy(rendered(tmp_path_factory.getbasetemp()))
