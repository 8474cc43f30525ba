"""Distributed training and prediction: process launch, clear errors, parallel prediction.

Lightning Fabric launches the processes: it starts those of one machine itself, and under `torchrun`
or Slurm it joins those that are there. Only the first process writes results.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from nuclei.arrays import UInt8Array
from nuclei.data.prepared_images import Images
from nuclei.errors import UserError
from nuclei.inference.predictor import Predictor, predict_images
from nuclei.io.locks import folder_lock
from nuclei.io.probability_maps import Maps, write_maps
from nuclei.progress import name_job
from nuclei.training.fabric import Fabric


def launch(device: torch.device, devices: int, nodes: int, precision: str = "32-true") -> Fabric:
    """Launches `devices` processes on each of `nodes` machines; returns this process's handle.

    Raises:
        UserError: fewer than one of either; more than the machine has, or than were started from
            outside.
    """
    if devices < 1 or nodes < 1:
        raise UserError(f"expected at least one device and one node, got --devices {devices} --nodes {nodes}")
    try:
        fabric = Fabric(
            accelerator=device.type,
            devices=devices,
            num_nodes=nodes,
            precision=precision,  # type: ignore[arg-type]
        )
        with explain_lost_processes():
            fabric.launch()
    except (RuntimeError, LookupError) as error:  # Fabric: the machine cannot meet the settings
        raise UserError(f"--device {device.type} --devices {devices} --nodes {nodes}: {error}") from error
    return fabric


@contextmanager
def explain_lost_processes() -> Iterator[None]:
    """Turns a failed communication between processes into a clear error.

    Raises:
        UserError: another process has ended early.
    """
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()
        if not lost:
            raise
        raise UserError(
            "another process of this run has ended (killed, probably out of memory, or stopped by "
            "its own error, shown above), so this one ends too. The same command resumes from the "
            f"last finished epoch. The failed communication: {' '.join(str(error).split())[:200]}"
        ) from error


@contextmanager
def lock_folder(fabric: Fabric, folder: Path) -> Iterator[bool]:
    """The first process holds the lock of a folder; yields whether it had to wait for another run.

    Several processes do not wait: the communication between them would time out meanwhile.

    Raises:
        UserError: another run writes there, and this one has several processes.
    """
    if not fabric.is_global_zero:
        yield False
        return
    with folder_lock(folder, wait=fabric.world_size == 1) as waited:
        yield waited


def predict_in_parallel(
    fabric: Fabric,
    predictor: Predictor,
    images: Images,
    ids: Sequence[str],
    path: Path,
    fold: int | None,
    kind: str,
) -> None:
    """Writes the maps of all images to `path`: each process predicts a part, the first joins them.

    The file's bytes do not depend on the number of processes. Several machines need a shared
    folder. `fold` and the `kind` of images name the progress, which the first process shows.
    """
    job = f"{name_job('predict', predictor.config.name, fold)}, {kind}"
    if fabric.world_size == 1:
        write_maps(path, predict_images(predictor, images, ids, job))
        return
    ordered, parts = sorted(ids), [_part_name(path, rank) for rank in range(fabric.world_size)]
    write_maps(
        parts[fabric.global_rank],
        predict_images(
            predictor, images, ordered[fabric.global_rank :: len(parts)], job, fabric.is_global_zero
        ),
    )
    fabric.barrier()
    if fabric.is_global_zero:
        write_maps(path, _joined(parts, ordered))
        for part in parts:
            part.unlink()
    fabric.barrier()


def _part_name(path: Path, rank: int) -> Path:
    return path.with_name(f".{path.stem}.part{rank}{path.suffix}")


def _joined(parts: Sequence[Path], ordered: Sequence[str]) -> Iterator[tuple[str, UInt8Array]]:
    archives = [Maps(part) for part in parts]
    for number, image_id in enumerate(ordered):
        yield image_id, archives[number % len(archives)][image_id]
