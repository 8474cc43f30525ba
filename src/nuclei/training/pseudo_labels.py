"""Pseudo-labels: label maps of the test images, predicted by an earlier experiment."""

import logging
from pathlib import Path

from nuclei.arrays import LabelMap
from nuclei.data.external_sets import PooledImages
from nuclei.data.prepared_images import Images
from nuclei.data.splits import Fold
from nuclei.errors import UserError
from nuclei.io.files import read_json
from nuclei.io.probability_maps import Maps
from nuclei.models.checkpoint_file import find_result, load_checkpoint
from nuclei.postprocessing.parameters import Tuned
from nuclei.postprocessing.watershed import measure_certainty, segment_maps
from nuclei.training.fine_tuning import check_unseen

log = logging.getLogger(__name__)

LEAST_CERTAINTY = 0.85
"""Least certainty of a test image's maps for it to be trained on."""


def label_test_images(
    runs: Path, experiment: str, fold: Fold, images: Images | PooledImages
) -> dict[str, LabelMap]:
    """Label maps (H, W) of the test images by id, from the experiment's network of the same fold.

    They are its test.npz, segmented with the parameters that cv.json has for this fold, so that
    neither network nor parameters have seen the fold's held-out images. Images with uncertain maps
    are left out: nuclei that the network misses would be learned as background.

    Raises:
        UserError: the run is missing, not predicted or not tuned; it was trained on images that
            this fold holds out.
    """
    folder = runs / experiment / f"fold_{fold.number}"
    checkpoint = find_result(folder)
    check_unseen("pseudo_labels", checkpoint, load_checkpoint(checkpoint)["trained_on"], fold)
    cv = runs / experiment / "cv.json"
    if not cv.is_file():
        raise UserError(f"training.pseudo_labels: {cv} is missing; run `make {cv}`, which tunes the experiment")
    tuned = Tuned.from_dict(read_json(cv)["fold"][str(fold.number)]["parameters"])
    archive, ids, labelled = Maps(folder / "test.npz"), images.ids("test"), {}
    for image_id in ids:
        maps = archive[image_id]
        if measure_certainty(maps) >= LEAST_CERTAINTY:
            labelled[image_id] = segment_maps(maps, tuned.of(images.modality(image_id)))
    log.info("%d of %d test images labelled by %s", len(labelled), len(ids), folder)
    return labelled
