import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nuclei.config import Config, ModelConfig, PredictionConfig, TrainingConfig
from nuclei.errors import UserError
from nuclei.evaluation.ensemble_weights import EnsembleWeights
from nuclei.evaluation.scores import TunedScore
from nuclei.inference.predictor import load_predictor
from nuclei.inference.weights import (
    SHIPPED,
    find_best,
    find_files,
    find_member,
    load_trained,
    load_weights,
    read_ensemble,
    read_tuned,
)
from nuclei.io.files import write_json
from nuclei.models.factory import build_model
from nuclei.models.weights_file import Card, UnseenScore, read_weights, write_weights
from nuclei.postprocessing.parameters import Parameters, Tuned
from nuclei.publishing.model_card import make_card, make_ensemble_card, write_page
from nuclei.synthetic.images import make_image

CPU = torch.device("cpu")
TUNED = replace(Parameters(), foreground_threshold=0.55, min_area=33)
OTHER = replace(TUNED, foreground_threshold=0.6)
IMAGE = make_image("small_fluorescence", 0, 64, 80)[0]


OURS = ModelConfig(width=4, depth=2)
LITE0 = ModelConfig(architecture="encoder_unet", encoder="tu-tf_efficientnet_lite0", frozen_stages=2)


def checkpoint(seed=0, name="tiny", model=OURS):
    torch.manual_seed(seed)
    config = Config(
        name=name,
        model=model,
        training=TrainingConfig(precision="32-true"),
        prediction=PredictionConfig(flips=1),
    )
    network = build_model(config.model, 3, pretrained=False)
    seen = ["image01", "image00"]
    return {"config": config.model_dump(), "model": network.state_dict(), "fold": seed, "trained_on": seen}


def card_of(content, score=0.5, parameters=TUNED):
    tuned = TunedScore(
        experiment=content["config"]["name"], parameters=parameters.to_dict(), score=score, n_images=7
    )
    return make_card(content, tuned, "generated images", "CC0-1.0")


def write(path, seed=0, score=0.5, name="tiny", parameters=TUNED, model=OURS):
    content = checkpoint(seed, name, model)
    write_weights(path, content["model"], card_of(content, score, parameters))
    return content


def test_a_file_comes_back_with_its_config_and_parameters(tmp_path):
    content = write(tmp_path / "fold_3.safetensors", seed=3, score=0.625)
    card, tensors = read_weights(tmp_path / "fold_3.safetensors")
    assert (card.name, card.fold, card.score, card.images, card.licence) == ("tiny", 3, 0.625, 7, "CC0-1.0")
    assert card.trained_on == ["image00", "image01"]
    assert read_tuned(tmp_path) == Tuned(TUNED, {})
    assert tensors.keys() == content["model"].keys()
    for name, tensor in content["model"].items():
        assert tensors[name].dtype == (torch.float16 if tensor.is_floating_point() else tensor.dtype)
        assert torch.allclose(tensors[name].to(tensor.dtype), tensor, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("model", [OURS, LITE0], ids=["unet", "encoder_unet"])
def test_half_precision_leaves_the_maps_as_they_are(tmp_path, model):
    content = write(tmp_path / "tiny.safetensors", model=model)
    exact = load_predictor(content, "checkpoint", CPU)(IMAGE).astype(int)
    assert np.abs(load_weights(tmp_path / "tiny.safetensors", CPU)(IMAGE) - exact).max() <= 1


def test_numbers_beyond_half_precision_are_kept(tmp_path):
    content = checkpoint()
    write_weights(tmp_path / "a.safetensors", {"large": torch.tensor([1e6, 1.5])}, card_of(content))
    assert read_weights(tmp_path / "a.safetensors")[1]["large"].tolist() == [1e6, 1.5]


def test_a_folder_means_the_mean_of_its_files(tmp_path):
    for fold in (0, 1):
        write(tmp_path / f"fold_{fold}.safetensors", seed=fold)
    single = [load_weights(tmp_path / f"fold_{fold}.safetensors", CPU)(IMAGE).astype(float) for fold in (0, 1)]
    assert np.abs(single[0] - single[1]).max() > 1
    assert np.array_equal(load_weights(tmp_path, CPU)(IMAGE), np.floor((single[0] + single[1]) / 2 + 0.5))


def write_ensemble(folder, scores=(0.5, 0.4)):
    for seed, name in enumerate(("one", "other")):
        write(folder / name / "fold_0.safetensors", seed, (0.5, 0.4)[seed], name)
        write(folder / name / "fold_1.safetensors", seed + 2, (0.5, 0.4)[seed], name)
    tuned = TunedScore(experiment="ensemble", parameters=OTHER.to_dict(), score=0.6, n_images=7)
    weights = {"all": {"one": 1.0, "other": 0.25}, "grey_tissue": {"one": 2.0, "other": 1.0}}
    found = EnsembleWeights(weights=weights, fold={}, n_images=7, score=0.6, score_equal=0.5)
    card = make_ensemble_card(tuned, found, dict(zip(("one", "other"), scores, strict=True)))
    write_json(folder / "ensemble.json", card.model_dump(mode="json"))
    return folder / "ensemble.json"


def test_an_ensemble_is_its_members_by_their_weights_with_parameters_of_its_own(tmp_path):
    path = write_ensemble(tmp_path)
    one, other = (load_weights(tmp_path / name, CPU) for name in ("one", "other"))
    maps = load_weights(path, CPU)(IMAGE).astype(float)
    assert np.abs(maps - (one(IMAGE) + 0.25 * other(IMAGE).astype(float)) / 1.25).max() <= 1
    assert load_weights(path, CPU).parameters == OTHER
    assert read_tuned(path) == Tuned(OTHER, {})
    assert find_files(path) == [
        tmp_path / name / f"fold_{k}.safetensors" for name in ("one", "other") for k in (0, 1)
    ]
    assert (
        len({load_weights(source, CPU).digest for source in (path, tmp_path / "one", tmp_path / "other")}) == 3
    )


def test_the_prediction_on_the_card_of_an_ensemble_replaces_that_of_its_networks(tmp_path):
    path = write_ensemble(tmp_path)
    values = json.loads(path.read_text())
    assert "prediction" not in values
    asked = PredictionConfig(flips=1, scales=(0.71, 1.0), rim_level=0.4)
    path.write_text(json.dumps(values | {"prediction": asked.model_dump(mode="json")}))
    assert {predictor.config.prediction for predictor in load_weights(path, CPU).predictors} == {asked}
    own = load_weights(tmp_path / "one", CPU).predictors[0].config.prediction
    assert load_trained(tmp_path / "one/fold_0.safetensors", CPU).config.prediction == own != asked


def test_an_ensemble_whose_member_was_made_again_is_refused(tmp_path):
    path = write_ensemble(tmp_path, scores=(0.5, 0.3))
    for read in (lambda source: load_weights(source, CPU), read_tuned, find_files):
        with pytest.raises(
            ValueError, match=r"weights of other that score 0\.3, .*other has 0\.4; make it again"
        ):
            read(path)


def test_an_ensemble_of_another_version_is_refused(tmp_path):
    path = write_ensemble(tmp_path)
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(ValueError, match="version 2, this release reads version 1"):
        load_weights(path, CPU)


@pytest.mark.parametrize(("text", "message"), [(None, "no such card"), ("{}", "no card of an ensemble")])
def test_what_is_no_card_of_an_ensemble_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "ensemble.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_weights(tmp_path / "ensemble.json", CPU)


def test_the_same_weights_give_the_same_bytes_and_others_another_digest(tmp_path):
    paths = [tmp_path / name / "fold_0.safetensors" for name in "abc"]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        write(path, seed)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    digests = [load_weights(path.parent, CPU).digest for path in paths]
    assert digests[0] == digests[1] != digests[2]


def test_a_file_that_is_too_large_is_refused_and_not_written(tmp_path):
    content = checkpoint()
    huge = {"layer": torch.zeros(13_000_000)}
    with pytest.raises(ValueError, match=r"26\.0 MB in half precision, more than the 25 MB.*smaller network"):
        write_weights(tmp_path / "a.safetensors", huge, card_of(content))
    assert not list(tmp_path.iterdir())


def test_another_version_is_refused_with_a_remedy(tmp_path):
    content = checkpoint()
    card = card_of(content).model_copy(update={"version": 2})
    write_weights(tmp_path / "a.safetensors", content["model"], card)
    with pytest.raises(
        ValueError, match=r"version 2, this release reads version 1; take weights and code of the same"
    ):
        read_weights(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("missing", "no such file of weights; make one with `make weights"),
        ("cut", "not a readable .safetensors file"),
        ("foreign", "it has no card"),
        ("card", "its card: not valid JSON"),
        ("keys", "its card: extra = 1: Extra inputs"),
        ("empty", "no .safetensors file there"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_a_remedy(tmp_path, spoil, said):
    path = tmp_path / "a.safetensors"
    content = write(path)
    if spoil == "missing":
        path.unlink()
    elif spoil == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif spoil == "empty":
        path = tmp_path / "nothing"
        path.mkdir()
    else:
        values = card_of(content).model_dump()
        values["extra"] = 1
        cards = {"foreign": None, "card": {"nuclei": "{"}, "keys": {"nuclei": json.dumps(values)}}
        save_file({"a": torch.zeros(1)}, path, cards[spoil])
    with pytest.raises(ValueError, match=said):
        load_weights(path, CPU)


@pytest.mark.parametrize("other", [{"name": "other"}, {"parameters": Parameters()}])
def test_a_folder_of_different_experiments_is_refused(tmp_path, other):
    write(tmp_path / "fold_0.safetensors")
    write(tmp_path / "fold_1.safetensors", **other)
    with pytest.raises(ValueError, match="different experiments or tunings"):
        load_weights(tmp_path, CPU)


def test_parameters_of_another_experiment_are_refused():
    with pytest.raises(ValueError, match=r"the checkpoint is of tiny, cv\.json of other"):
        make_card(checkpoint(), TunedScore(experiment="other", parameters=None, score=0.5, n_images=7), "", "")


def test_a_card_has_the_score_on_unseen_sources_only_where_it_is_known(tmp_path):
    card = card_of(checkpoint())
    assert "unseen" not in card.model_dump(mode="json")
    figure = UnseenScore(score=0.4, low=0.3, high=0.5, images=9, sources=3)
    known = Card.model_validate_json(card.model_copy(update={"unseen": figure}).model_dump_json())
    assert known.unseen == figure
    write_page(tmp_path / "README.md", [known], [1_234_567])
    assert "0.4000 (0.300 to 0.500 over 3 resampled sources" in (tmp_path / "README.md").read_text()


def test_a_card_needs_tuned_parameters():
    with pytest.raises(UserError, match=r"cv\.json of tiny holds no post-processing parameters"):
        make_card(checkpoint(), TunedScore(experiment="tiny", parameters=None, score=0.5, n_images=7), "", "")


def test_the_best_folder_is_that_with_the_highest_score(tmp_path):
    with pytest.raises(ValueError, match="no weights there; name some"):
        find_best(tmp_path, tmp_path / "none")
    for name, score in (("first", 0.4), ("second", 0.6), ("third", 0.5)):
        write(tmp_path / name / "fold_0.safetensors", score=score, name=name)
    assert find_best(tmp_path, tmp_path / "none") == tmp_path / "second"


def test_the_network_in_the_package_is_the_default(tmp_path):
    write(tmp_path / "folder" / "fold_0.safetensors", score=0.9, name="folder")
    write(tmp_path / "packaged" / "everyone.safetensors", score=0.1, name="everyone")
    assert find_best(tmp_path, tmp_path / "packaged") == tmp_path / "packaged" / "everyone.safetensors"


def test_a_member_is_a_folder_beside_the_card_or_a_file_in_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr("nuclei.inference.weights.PACKAGED", tmp_path / "packaged")
    card, file = tmp_path / "ensemble.json", tmp_path / "packaged" / "one.safetensors"
    write(file, score=0.1, name="one")
    assert find_member(card, "one") == file
    assert find_member(card, "two") == tmp_path / "two"
    (tmp_path / "one").mkdir()
    assert find_member(card, "one") == tmp_path / "one"


def test_the_page_says_what_is_in_the_folder(tmp_path):
    card = card_of(checkpoint(model=LITE0), score=0.5678)
    write_page(tmp_path / "README.md", [card], [1_234_567])
    page = (tmp_path / "README.md").read_text()
    for part in (
        "# tiny",
        "0.5678",
        "CC0-1.0",
        "generated images, 7 images",
        "1.2 MB",
        "foreground_threshold 0.55",
        "encoder tu-",
    ):
        assert part in page


@pytest.mark.parametrize("name", ["model.pt", "fold_0.safetensors"])
def test_one_network_is_loaded_from_a_checkpoint_as_from_its_weights(tmp_path, name):
    content = write(tmp_path / "fold_0.safetensors")
    torch.save(content, tmp_path / "model.pt")
    expected = load_predictor(content, "content", CPU)(IMAGE).astype(int)
    assert abs(load_trained(tmp_path / name, CPU)(IMAGE) - expected).max() <= 1


DEEP = {"a": 1}
for _ in range(300):
    DEEP = {"a": DEEP}


def spoil_card(path, change):
    """Writes a file of weights whose card's values went through `change`."""
    content = checkpoint()
    values = card_of(content).model_dump(mode="json")
    change(values)
    save_file(content["model"], path, {"nuclei": json.dumps(values)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda card: card.update(name="`id`"), "'`id`' is not a valid name"),
        (lambda card: card["config"].update(name="-rf"), r"config\.name = '-rf', expected the card's 'tiny'"),
        (
            lambda card: card["config"]["model"].update(width=10**9),
            r"config\.model\.width = 1e\+09, .* at most 4096",
        ),
        (
            lambda card: card["config"]["prediction"].update(scales=[1.0] * 3000),
            "scales has 3000 values, .* at most",
        ),
        (lambda card: card["config"].update(model=DEEP), "not valid JSON .*recursion limit"),
        (lambda card: card.update(score=float("nan")), "not valid JSON"),
        (lambda card: card["parameters"].update(border_weight=float("inf")), "not valid JSON"),
        (
            lambda card: card["parameters"].update(min_seed_area=2.5),
            "min_seed_area is 2.5; give a whole number",
        ),
        (lambda card: card.update(parameters=[]), r"parameters: .*expected a table, got \[\]"),
        (
            lambda card: card["config"]["model"].update(width=8),
            r"shape \(4, .* but the network of its config has \(8, ",
        ),
    ],
)
def test_a_card_that_lies_is_refused_in_one_line(tmp_path, change, said):
    spoil_card(tmp_path / "a.safetensors", change)
    with pytest.raises(UserError, match=said) as caught:
        load_weights(tmp_path / "a.safetensors", CPU)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    content = checkpoint()
    next(iter(content["model"].values())).flatten()[0] = value
    write_weights(tmp_path / "a.safetensors", content["model"], card_of(content))
    with pytest.raises(UserError, match="holds NaN or infinity"):
        load_weights(tmp_path / "a.safetensors", CPU)


def test_a_file_with_an_unsafe_name_in_a_folder_is_refused(tmp_path):
    write(tmp_path / "$(id).safetensors")
    with pytest.raises(UserError, match=r"'\$\(id\)\.safetensors' is not a valid name"):
        load_weights(tmp_path, CPU)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda card: card["members"].update({"`id`": 0.5}), "'`id`' is not a valid name"),
        (lambda card: card["members"].update({"../one": 0.5}), "'../one' is not a valid name"),
        (lambda card: card["members"].update(one=float("nan")), "not valid JSON"),
        (lambda card: card.update(members={}), "members = {}: .* at least 1 item"),
        (lambda card: card["members"].update({f"m{k}": 0.5 for k in range(10_000)}), "at most 32 items"),
        (lambda card: card["weights"].pop("all"), "'all' is missing"),
        (
            lambda card: card["weights"]["all"].pop("one"),
            r"weights\.all is for \['other'\], expected one for each",
        ),
        (lambda card: card["weights"]["all"].update(one=0), "weights.all.one = 0: .* greater than 0"),
        (lambda card: card.update(prediction={"scales": [1e9]}), "prediction"),
        (lambda card: card.update(prediction={"flip": 1}), "prediction"),
        (lambda card: card.update(parameters=DEEP), "not valid JSON .*recursion limit"),
    ],
)
def test_an_ensemble_card_that_lies_is_refused_in_one_line(tmp_path, change, said):
    path = write_ensemble(tmp_path)
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=said) as caught:
        load_weights(path, CPU)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_card_that_nests_100_000_deep_is_refused(tmp_path):
    (tmp_path / "ensemble.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="recursion limit"):
        find_files(tmp_path / "ensemble.json")


def test_the_ensemble_weights_are_read_under_their_old_name(tmp_path):
    path = write_ensemble(tmp_path)
    expected = read_ensemble(path)
    path.write_text(path.read_text().replace('"weights"', '"shares"'))
    assert read_ensemble(path) == expected


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="no shipped weights in this checkout")
def test_the_shipped_ensemble_is_read():
    card = read_ensemble(SHIPPED / "ensemble_of_folds.json")
    assert card.weights["all"] == {"encoder_resunet": 1.0, "resunet_wide": 0.5}
    assert card.parameters.of("grey_tissue").min_seed_area == 5
