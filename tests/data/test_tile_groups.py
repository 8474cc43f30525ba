"""Tiles find their picture again, and unrelated images do not."""

import cv2
import numpy as np
import pytest

from nuclei.data import tile_groups
from nuclei.data.tile_groups import (
    find_groups,
    find_mosaics,
    find_near_duplicates,
    find_neighbours,
    image_signature,
)
from nuclei.synthetic.images import make_image, make_mosaic

SIZE = (96, 128)
MODALITIES = ("small_fluorescence", "purple_tissue", "grey_tissue")


def tiles_of(modality, seed, prefix):
    """Tiles under ids whose order says nothing about their places, and the ids by place."""
    places = [f"{prefix}{letter}" for letter in "cadb"]
    images = [image for image, _ in make_mosaic(modality, seed, *SIZE)]
    return dict(zip(places, images, strict=True)), tuple(places)


def strangers(modality, count, seed=100):
    return {f"stranger{k}": make_image(modality, seed + k, *SIZE)[0] for k in range(count)}


def signatures(*families):
    return {image_id: image_signature(image) for family in families for image_id, image in family.items()}


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_tiles_of_a_picture_are_put_in_their_places_among_strangers(modality):
    first, first_places = tiles_of(modality, 1, "x")
    second, second_places = tiles_of(modality, 2, "y")
    found = find_mosaics(signatures(first, second, strangers(modality, 5)))
    assert found == sorted([first_places, second_places])


@pytest.mark.parametrize("modality", MODALITIES)
def test_unrelated_images_stay_alone(modality):
    images = strangers(modality, 12)
    assert find_groups(signatures(images)) == {image_id: image_id for image_id in images}


def test_pictures_and_copies_are_found_where_not_all_images_are_compared(monkeypatch):
    pictures = [tiles_of("purple_tissue", seed, f"x{seed}") for seed in range(3)]
    images = strangers("purple_tissue", 20)
    images |= {"copy": (images["stranger7"] * 0.9).astype(np.uint8)}
    images = signatures(images, *(tiles for tiles, _ in pictures))
    together = find_groups(images)
    monkeypatch.setattr(tile_groups, "WINDOW", 16)
    assert find_groups(images) == together
    assert together["copy"] == together["stranger7"]
    assert all(len({together[tile] for tile in places}) == 1 for _, places in pictures)


def test_of_too_many_possible_mosaics_the_cheapest_are_the_pictures(monkeypatch):
    pictures = [tiles_of("purple_tissue", seed, f"x{seed}") for seed in range(3)]
    images = signatures(strangers("purple_tissue", 20), *(tiles for tiles, _ in pictures))
    monkeypatch.setattr(tile_groups, "MAX_CANDIDATES", 0)
    assert find_mosaics(images) == sorted(places for _, places in pictures)


def test_noise_on_one_background_is_no_mosaic():
    rng = np.random.default_rng(0)
    noise = {f"noise{k}": np.repeat(rng.normal(20, 2, (64, 64, 1)).astype(np.uint8), 3, 2) for k in range(12)}
    assert find_mosaics(signatures(noise)) == []
    assert find_neighbours(signatures(noise), []) == []


def test_black_edges_prove_nothing_although_all_other_images_are_bright():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 3, (12, 80, 80, 1), np.uint8).repeat(3, 3)
    images = {f"bright{k}": 100 + 10 * k + noise[k] for k in range(12)}
    for k in range(6):
        images[f"black{k}"] = np.zeros((80, 80, 3), np.uint8)
        cv2.circle(images[f"black{k}"], (20 + 6 * k, 40), 5 + 2 * k, (200, 200, 200), -1)
    assert find_mosaics(signatures(images)) == []
    assert find_neighbours(signatures(images), []) == []


@pytest.mark.parametrize("lost", range(4))
def test_three_tiles_of_a_picture_are_one_group_without_the_fourth(lost):
    tiles, places = tiles_of("purple_tissue", 3, "x")
    del tiles[places[lost]]
    groups = find_groups(signatures(tiles, strangers("purple_tissue", 6)))
    assert {groups[image_id] for image_id in tiles} == {min(tiles)}
    assert sum(group in tiles for group in groups.values()) == 3


def test_a_larger_picture_is_one_group():
    picture, _ = make_image("purple_tissue", 4, 2 * SIZE[0], 4 * SIZE[1])
    tiles = {
        f"x{row}{column}": picture[row * SIZE[0] :, column * SIZE[1] :][: SIZE[0], : SIZE[1]].copy()
        for row in range(2)
        for column in range(4)
    }
    groups = find_groups(signatures(tiles, strangers("purple_tissue", 4)))
    assert {groups[image_id] for image_id in tiles} == {"x00"}


def test_two_mosaics_are_not_joined_by_one_seam():
    """Of two mosaics side by side only the upper seam fits, as happens by chance."""
    picture, _ = make_image("purple_tissue", 5, 2 * SIZE[0], 4 * SIZE[1])
    other, _ = make_image("purple_tissue", 6, 2 * SIZE[0], 4 * SIZE[1])
    tiles = {
        f"{'left' if column < 2 else 'right'}{row}{column}": (picture if row == 0 else other)[
            row * SIZE[0] :, column * SIZE[1] :
        ][: SIZE[0], : SIZE[1]].copy()
        for row in range(2)
        for column in range(4)
    }
    shapes = signatures(tiles)
    mosaics = [("left00", "left01", "left10", "left11"), ("right02", "right03", "right12", "right13")]
    both = find_neighbours(shapes, mosaics)
    assert ("left01", "right02") in both
    assert ("left11", "right12") in both
    tiles["right12"] = tiles["right12"][::-1, ::-1].copy()
    assert ("left01", "right02") not in find_neighbours(signatures(tiles), mosaics)


def test_a_brighter_and_smaller_copy_is_a_near_duplicate():
    images = strangers("small_fluorescence", 4)
    copy = cv2.resize(images["stranger2"], (64, 48), interpolation=cv2.INTER_AREA)
    images["copy"] = np.clip(copy * 1.5 + 5, 0, 255).astype(np.uint8)
    assert find_near_duplicates(signatures(images)) == [("copy", "stranger2")]


def test_a_group_does_not_depend_on_the_order_of_the_images():
    tiles, _ = tiles_of("small_fluorescence", 7, "x")
    shapes = signatures(strangers("small_fluorescence", 3), tiles)
    backwards = dict(reversed(shapes.items()))
    assert find_groups(shapes) == find_groups(backwards)
    assert find_groups(shapes)["xd"] == "xa"


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (2, 3), (40, 1)])
def test_the_smallest_images_have_an_outline(shape):
    images = {f"tiny{k}": np.full((*shape, 3), 10 * k, np.uint8) for k in range(5)}
    assert set(find_groups(signatures(images))) == set(images)


def test_no_images_have_no_groups():
    assert find_groups({}) == {}
