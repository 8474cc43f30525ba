"""Averages probability maps image by image: the folds of a run, or the runs of an ensemble."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from nuclei.arrays import UInt8Array
from nuclei.errors import UserError
from nuclei.io.probability_maps import Maps, mean_of_maps

log = logging.getLogger(__name__)


Mode = Literal["disjoint", "common"]
"""disjoint: each image is in one input only, such as out-of-fold maps; common: every image is in
every input.
"""


def average_maps(
    inputs: Sequence[Path | str],
    sizes: Mapping[str, tuple[int, int]],
    mode: Mode | None = None,
    weights: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
) -> Iterator[tuple[str, UInt8Array]]:
    """Yields image ids in sorted order, each with the mean of its maps (C, H, W) uint8 over the
    inputs that hold it.

    `sizes` gives height and width of exactly the images that must be there. Where `mode` is absent
    it is the one that fits all images. `weights` has one weight per input, for all images or by
    image id; only their ratios matter, and they are equal where absent. Halves round up. All but
    the shapes is checked before the first image is read, and one image at a time is in memory.

    Raises:
        UserError: no input, or one given twice; images in too many or too few inputs, or not the
            expected ones; weights that do not fit; maps of another size than their image or number
            of channels.
    """
    if not inputs:
        raise UserError("no maps to average; name at least one .npz")
    if len({Path(path).resolve() for path in inputs}) < len(inputs):
        raise UserError(f"maps given twice among {[str(path) for path in inputs]}; use a weight instead")
    archives = [Maps(path) for path in inputs]
    holders = _find_holders(archives)
    _check_expected(archives, set(holders), set(sizes))
    mode = _check_holders(archives, holders, mode)
    if weights is not None and mode == "disjoint" and len(archives) > 1:
        raise UserError("each image is in one input only, so weights have no effect; leave them out")
    if not isinstance(weights, Mapping):
        weights = dict.fromkeys(holders, [1.0] * len(archives) if weights is None else weights)
    _check_weights(len(archives), weights, holders)
    log.info("%d inputs, %s: %d images", len(archives), mode, len(holders))
    return _average(archives, holders, sizes, weights)


def _find_holders(archives: list[Maps]) -> dict[str, list[int]]:
    """The indices of the archives that hold each image, by image id in sorted order."""
    holders: dict[str, list[int]] = {}
    for index, archive in enumerate(archives):
        for image_id in archive.ids:
            holders.setdefault(image_id, []).append(index)
    return dict(sorted(holders.items()))


def _average(
    archives: list[Maps],
    holders: dict[str, list[int]],
    sizes: Mapping[str, tuple[int, int]],
    weights: Mapping[str, Sequence[float]],
) -> Iterator[tuple[str, UInt8Array]]:
    channels: int | None = None
    for image_id, indices in holders.items():
        maps = [archives[index][image_id] for index in indices]
        for index, each in zip(indices, maps, strict=True):
            channels = each.shape[0] if channels is None else channels
            if each.shape != (channels, *sizes[image_id]):
                raise UserError(
                    f"{archives[index].path}: maps of image {image_id} are {each.shape}, expected "
                    f"{(channels, *sizes[image_id])}; predict again from the current prepared images"
                )
        yield image_id, mean_of_maps(maps, [weights[image_id][index] for index in indices])


def _check_expected(archives: list[Maps], found: set[str], expected: set[str]) -> None:
    missing, unknown = sorted(expected - found), sorted(found - expected)
    if missing or unknown:
        raise UserError(
            f"{', '.join(str(archive.path) for archive in archives)}: {len(missing)} of {len(expected)} images are "
            f"missing {missing[:3]} and {len(unknown)} are unknown {unknown[:3]}; predict every fold and every "
            "member from the same prepared images and splits"
        )


def _check_holders(archives: list[Maps], holders: dict[str, list[int]], mode: Mode | None) -> Mode:
    """The mode that fits all images."""
    if mode is None:
        mode = "disjoint" if all(len(indices) == 1 for indices in holders.values()) else "common"
    wanted = 1 if mode == "disjoint" else len(archives)
    odd = [image_id for image_id, indices in holders.items() if len(indices) != wanted]
    if odd:
        names = [str(archives[index].path) for index in holders[odd[0]]]
        raise UserError(
            f"{len(odd)} of {len(holders)} images are not in "
            f"{'one input only' if mode == 'disjoint' else f'all {len(archives)} inputs'}, first {odd[0]}, which is "
            f"in {names}; predict the folds and members again with the current splits"
        )
    return mode


def _check_weights(count: int, weights: Mapping[str, Sequence[float]], images: Collection[str]) -> None:
    missing = sorted(set(images) - set(weights))
    if missing:
        raise UserError(f"no weights for {len(missing)} of {len(images)} images, such as {missing[0]}")
    for each in weights.values():
        if len(each) != count or not all(np.isfinite(weight) and weight > 0 for weight in each):
            raise UserError(f"expected {count} weights above 0, one for each input; got {list(each)}")
