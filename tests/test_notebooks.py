"""The notebooks run from top to bottom, and what they show is what the code says."""

import json
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks/unet_from_scratch.ipynb"
LARGEST_BYTES = 400_000
"""Outputs are a few small pictures of generated images."""


def code_cells():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def printed(cell):
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


@pytest.fixture(scope="module")
def shown():
    """What each code cell printed with three steps of training, and the names that were left."""
    import io
    from contextlib import redirect_stdout

    names, texts = {}, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOTEBOOK_STEPS", "3")
        patch.chdir(NOTEBOOK.parent)
        patch.syspath_prepend(str(ROOT / "src"))
        matplotlib.use("Agg")
        patch.setattr("matplotlib.pyplot.show", lambda: matplotlib.pyplot.close("all"))
        for number, cell in enumerate(code_cells()):
            text = io.StringIO()
            with redirect_stdout(text):
                exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, code cell {number}", "exec"), names)
            texts.append(text.getvalue())
    return texts, names


def test_all_cells_run_and_the_training_changes_the_loss(shown):
    losses = shown[1]["losses"]
    assert len(losses) == 3
    assert losses[-1] < losses[0]


def test_the_metric_of_the_notebook_is_the_competitions(shown):
    names = shown[1]
    truth = names["label_map"]
    own = names["scores_by_threshold"](truth, names["test_set"][0][1])
    assert own == pytest.approx(names["average_precision"](truth, names["test_set"][0][1]))


def test_printed_shapes_are_those_of_the_code(shown):
    exact = [
        index for index, cell in enumerate(code_cells()) if "trained" not in cell["metadata"].get("tags", [])
    ]
    committed = [printed(code_cells()[index]) for index in exact]
    assert committed == [shown[0][index] for index in exact]
    assert "31,036,481 parameters" in "".join(committed)


def test_the_notebook_stays_small():
    assert NOTEBOOK.stat().st_size < LARGEST_BYTES
