"""The record of the benchmarks: a run of one section leaves the others."""

import sys
from pathlib import Path

import pytest

from nuclei.io.files import read_json

ROW = {"name": "work", "peer": "other", "ours_seconds": 0.5, "peer_seconds": 2.0, "ratio": 4.0, "least": 3.0}
ROW |= {
    "most": 5.0,
    "pairs": 5,
    "bar": 3.0,
    "ours_memory": 1.0,
    "peer_memory": 2.0,
    "equal": "values",
    "clock": "CPU",
}


@pytest.fixture
def record(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    yield pytest.importorskip("record")
    for name in ("record", "rows", "trials", "data", "peers", "harness"):
        sys.modules.pop(name, None)


def test_measuring_a_section_anew_replaces_its_rows_and_leaves_the_others_with_the_run_that_measured_them(
    record, tmp_path
):
    record.update(tmp_path, "metric", "monday", [ROW])
    record.update(tmp_path, "crops", "monday", [ROW])
    record.update(tmp_path, "metric", "tuesday", [ROW | {"ratio": 2.0}])
    sections = read_json(tmp_path / "results.json")
    assert sections["crops"] == {"run": "monday", "rows": [ROW]}
    assert [row["ratio"] for row in sections["metric"]["rows"]] == [2.0]
    page = (tmp_path / "RESULTS.md").read_text()
    assert (
        "| work | other | 500.00 ms CPU | 2.00 s CPU | **2.00** (3.00 to 5.00, 5 pairs) | 3: missed |" in page
    )
    assert page.endswith("1. monday\n2. tuesday\n")


def test_what_a_gpu_does_stands_beside_what_the_processor_does(record, tmp_path):
    for device in ("cpu", "cuda"):
        record.update(
            tmp_path, record.section_key("training", device), device, [ROW | {"name": f"step, {device}"}]
        )
    assert record.section_key("metric", "cuda") == "metric"
    plain = {"name": "usual", "speed": 1000.0, "share": 0.1, "mib": 512.0, "operations": 10.1e9}
    fed = plain | {"name": "fed", "ratio": 1.04, "against": "held", "bar": 1.02, "share_bar": 0.25}
    record.update(tmp_path, record.DEVICE, "cuda", [plain, fed])
    page = (tmp_path / "RESULTS.md").read_text()
    assert page.index("| step, cpu |") < page.index("| step, cuda |")
    assert "10.10 billion multiply-adds" in page
    assert "| usual | 1,000 | 10.0% |  |  |  | 512 | 2 |" in page
    assert "| fed | 1,000 | 10.0% | 25%: missed | 1.04 of held | 1.02: missed | 512 | 2 |" in page


def test_the_committed_page_is_that_of_the_committed_results(record):
    folder = Path(__file__).parents[1] / "benchmarks"
    assert (folder / "RESULTS.md").read_text() == record.page(read_json(folder / "results.json"))
