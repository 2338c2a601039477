"""What a scrape of /metrics says."""

from __future__ import annotations

from collections.abc import Iterable

import httpx2
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """The figures at one moment."""

    def __init__(self, url: str) -> None:
        response = httpx2.get(f"{url}/metrics", timeout=60)
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        self.text = response.text
        self.families: dict[str, Metric] = {one.name: one for one in text_string_to_metric_families(self.text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def get(self, name: str, **labels: str) -> float:
        """The sum over the series of a name that have these labels; 0 where there is none."""
        return sum(
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    def labels(self, name: str, label: str) -> set[str]:
        """Every value of a label."""
        return {sample.labels[label] for sample in self.samples if sample.name == name}


def growth(before: Scrape, after: Scrape, names: Iterable[str], **labels: str) -> dict[str, float]:
    """How much each name grew."""
    return {name: after.get(name, **labels) - before.get(name, **labels) for name in names}
