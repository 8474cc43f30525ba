"""Packages a trained network for Kaggle Models: model and variation metadata, and files."""

import shutil
from pathlib import Path

from nuclei.errors import UserError
from nuclei.io.files import atomic_path, write_json
from nuclei.io.names import check_name
from nuclei.submission.kaggle_notebook import check_user

SLUG = "nuclei-segmentation"
TITLE = "Nuclei segmentation"
DESCRIPTION = """# Model summary
Foreground, touching border and core of every nucleus in a microscope image, as probability maps; a watershed
on core minus border makes instances of them. Trained on the 2018 Data Science Bowl (BBBC038v1, CC0)."""
USAGE = """`image`: RGB, (B, 3, H, W) float32, 0..255 as in the file, any size; `maps`: foreground, border, core, 0..1.
```python
maps = onnxruntime.InferenceSession("model.onnx").run(["maps"], {"image": image})[0]
```"""


def pack_model(files: list[Path], out: Path, user: str, experiment: str) -> None:
    """Writes `out/model-metadata.json` for `kaggle models create`, and `out/variation`.

    The variation has metadata and copies of `files`.

    Raises:
        UserError: an invalid name of a user or experiment; a file that is missing.
    """
    user, experiment = check_user(user), check_name(experiment)
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise UserError(f"{', '.join(missing)}: no such file; run `make export EXP={experiment}` first")
    model = {"ownerSlug": user, "title": TITLE, "slug": SLUG, "subtitle": "", "isPrivate": True}
    write_json(out / "model-metadata.json", model | {"description": DESCRIPTION})
    variation = {
        "ownerSlug": user,
        "modelSlug": SLUG,
        "instanceSlug": experiment.replace("_", "-"),
        "framework": "onnx",
    }
    variation |= {"licenseName": "MIT", "overview": f"The experiment {experiment}.", "usage": USAGE}
    write_json(out / "variation" / "model-instance-metadata.json", variation)
    for path in files:
        with atomic_path(out / "variation" / path.name) as temporary:
            shutil.copyfile(path, temporary)
