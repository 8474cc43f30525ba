"""Runs as the pipeline leaves them: generated images, maps that blur and lose nuclei."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from nuclei.data.targets import energy_target
from nuclei.evaluation.scores import score_image, score_otsu, summarise_scores
from nuclei.io.files import write_csv, write_json, write_text
from nuclei.io.images import write_image, write_label_map
from nuclei.io.probability_maps import write_maps
from nuclei.postprocessing.parameters import Parameters, Tuned
from nuclei.postprocessing.watershed import segment_maps
from nuclei.reporting.score_records import write_members
from nuclei.synthetic.images import make_image

MODALITIES = ("small_fluorescence", "purple_tissue", "grey_tissue", "large_fluorescence", "pink_purple_tissue")


def write_runs(
    folder: Path, experiments: dict[str, float], count: int = 10, size: int = 128, image_ids: Sequence[str] = ()
) -> None:
    """Writes processed/, splits.csv and runs/; each experiment loses its fraction of the nuclei.

    The last experiment is an ensemble of the others; `otsu` is there too. Images are `size` x
    `size` pixels, and `image_ids` are the ids of the first ones.
    """
    rows, truths = [], {}
    for number in range(count):
        modality, file = MODALITIES[number % len(MODALITIES)], f"image{number:03d}"
        image_id = image_ids[number] if number < len(image_ids) else file
        image, truths[image_id] = make_image(modality, number, size, size)
        write_image(folder / "processed" / "images" / f"{file}.png", image)
        write_label_map(folder / "processed" / "labels" / f"{file}.png", truths[image_id])
        row = {"image_id": image_id, "subset": "train", "image": f"images/{file}.png"}
        row |= {"label": f"labels/{file}.png", "height": size, "width": size}
        rows.append(row | {"nuclei": int(truths[image_id].max()), "modality": modality, "group": image_id})
    write_csv(folder / "processed" / "index.csv", pd.DataFrame(rows))
    table = pd.DataFrame(rows)[["image_id", "group", "modality", "nuclei"]].assign(
        fold=np.arange(count) // 2 % 2
    )
    write_csv(folder / "splits.csv", table)
    for seed, (name, lost) in enumerate(experiments.items()):
        maps = {
            image_id: spoil(truth, lost, seed * 1000 + n) for n, (image_id, truth) in enumerate(truths.items())
        }
        write_maps(folder / "runs" / name / "oof.npz", maps.items())
        records = [score_image(truths[i], segment_maps(maps[i], Parameters())) for i in table.image_id]
        summary = summarise_scores(
            name, table, records, dict.fromkeys((0, 1), Tuned(Parameters(), {}))
        ).to_dict()
        scores = {"score_default_parameters": summary["score"], "score_fitted": summary["score"]}
        write_json(
            folder / "runs" / name / "cv.json", {**summary, "parameters": Parameters().to_dict(), **scores}
        )
        if name == list(experiments)[-1]:
            write_members(folder / "runs" / name, dict.fromkeys(list(experiments)[:-1], 1.0))
        else:
            for fold in (0, 1):
                write_text(folder / "runs" / name / f"fold_{fold}" / "log.csv", make_log(seed + fold, lost))
    otsu = score_otsu("otsu", folder / "processed", folder / "splits.csv")
    write_json(folder / "runs" / "otsu" / "cv.json", otsu.to_dict())


def spoil(truth: np.ndarray, lost: float, seed: int) -> np.ndarray:
    """Maps of a network that loses a fraction of the nuclei, merges some, and blurs all."""
    rng = np.random.default_rng(seed)
    kept = np.where(rng.random(truth.max() + 1) < 1 - lost, np.arange(truth.max() + 1), 0)[truth]
    target = energy_target(kept.astype(np.int32), 0.15, 4.0)
    if rng.random() < lost:
        target[2] = np.maximum(
            target[2], cv2.dilate(target[0], np.ones((3, 3), np.uint8)) * 0.6
        )  # cores run together
    blurred = np.stack([cv2.GaussianBlur(channel, (0, 0), 1.0 + 2 * lost) for channel in target])
    noise = cv2.GaussianBlur(rng.normal(0, 1, truth.shape).astype(np.float32), (0, 0), 3) * 4 * lost
    return np.round(np.clip(blurred * 1.3 + noise, 0, 1) * 255).astype(np.uint8)


def make_log(seed: int, lost: float) -> str:
    rng = np.random.default_rng(seed)
    lines = ["epoch,step,loss,learning_rate,images_per_second,validation_score,minutes"]
    for epoch in range(1, 13):
        loss = 0.2 + lost + np.exp(-epoch / 3) + rng.normal(0, 0.02)
        score = f"{0.8 - lost - np.exp(-epoch / 4) / 2 + rng.normal(0, 0.01):.4f}" if epoch % 3 == 0 else ""
        lines.append(f"{epoch},{epoch * 100},{loss:.4f},0.001,20,{score},{epoch * 1.5:.2f}")
    return "\n".join(lines) + "\n"
