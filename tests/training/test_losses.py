"""Better predictions cost less, nothing explodes, each term is that of the literature."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nuclei.config import LossConfig, TargetConfig
from nuclei.models.activation import activate
from nuclei.training.losses import SegmentationLoss, build_loss, overlap_loss

TERMS = ("cross_entropy", "dice", "focal", "tversky", "lovasz")
NONE = dict.fromkeys(TERMS, 0.0)
ENERGY, THREE_CLASS = TargetConfig(scheme="energy"), TargetConfig(scheme="three_class")
both_schemes = pytest.mark.parametrize("scheme", [ENERGY, THREE_CLASS], ids=["energy", "three_class"])
every_term = pytest.mark.parametrize("term", TERMS)


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)


def only(term: str, scheme: TargetConfig, **changes: float) -> SegmentationLoss:
    return build_loss(LossConfig(**{**NONE, term: 1.0, **changes}), scheme)


def make_target(scheme: TargetConfig, size: int = 24) -> Tensor:
    """Two images with a disc, cut by a border of two pixels, its core falling off to the rim."""
    yy, xx = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    distance = torch.stack([(yy - 11).hypot(xx - 11), (yy - 12).hypot(xx - 14)])
    disc = distance < 8
    border = disc & (torch.stack([xx, xx]) - 11).abs().le(1)
    if scheme.scheme == "energy":
        return torch.stack([disc.float(), border.float(), (1 - distance / 8).clamp(0, 1)], 1)
    return torch.stack([~disc, disc & ~border, border], 1).float()


def right_logits(target: Tensor, scheme: TargetConfig) -> Tensor:
    """Those whose activation is the target, up to 1e-4."""
    probabilities = target.clamp(1e-4, 1 - 1e-4)
    return probabilities.log() if scheme.scheme == "three_class" else probabilities.logit()


@both_schemes
@every_term
def test_a_better_prediction_costs_less(term: str, scheme: TargetConfig) -> None:
    loss, target = only(term, scheme), make_target(scheme)
    right, wrong = right_logits(target, scheme), right_logits(1 - target, scheme)
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    # A tenth of the logits, since a hinge is content with a pixel that is right by more than 1.
    costs = [loss((right * share + wrong * (1 - share)) / 10, target).item() for share in shares]
    assert all(worse > better for worse, better in itertools.pairwise(costs))


@pytest.mark.parametrize("term", ["dice", "tversky", "lovasz"])
@both_schemes
def test_a_perfect_prediction_costs_nothing_in_overlap(term: str, scheme: TargetConfig) -> None:
    target = make_target(scheme)
    assert only(term, scheme)(right_logits(target, scheme), target) < 0.01


@both_schemes
@every_term
@pytest.mark.parametrize("content", ["empty", "full"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_empty_and_all_full_give_finite_losses_and_gradients(
    term: str, scheme: TargetConfig, content: str, dtype: torch.dtype
) -> None:
    target = torch.zeros(2, 3, 16, 16)
    if scheme.scheme == "three_class":
        target[:, 0 if content == "empty" else 1] = 1
    elif content == "full":
        target[:] = 1
    for level in (-200.0, 0.0, 200.0):
        logits = (level * torch.ones(2, 3, 16, 16) + torch.randn(2, 3, 16, 16)).to(dtype).requires_grad_()
        # a power under 1 has a steep gradient where a pixel is right
        changes = {"focal_gamma": 0.5} if term == "focal" else {}
        loss = only(term, scheme, **changes)(logits, target)
        loss.backward()
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()


def test_an_empty_batch_gives_no_gift() -> None:
    empty = torch.zeros(4, 3, 32, 32)
    assert overlap_loss(torch.full_like(empty, 0.5), empty, 0.5) > 0.99
    few = empty.clone()
    few[0, :, 5, 5:15] = 1
    assert overlap_loss(few, empty, 0.5) > 0.8
    assert overlap_loss(empty, empty, 0.5) == 0


def test_overlap_runs_over_the_batch_so_that_an_image_without_border_does_not_count_for_itself() -> None:
    probabilities, target = torch.rand(2, 3, 16, 16), (torch.rand(2, 3, 16, 16) > 0.7).float()
    target[0] = 0
    side_by_side = [torch.cat(list(tensor), 2)[None] for tensor in (probabilities, target)]
    torch.testing.assert_close(overlap_loss(probabilities, target, 0.5), overlap_loss(*side_by_side, 0.5))


@pytest.mark.parametrize("term", ["cross_entropy", "dice", "focal", "tversky"])
@pytest.mark.parametrize("value", [0.2, 0.5, 0.8])
def test_a_soft_core_is_cheapest_where_it_is_met_exactly(term: str, value: float) -> None:
    target = torch.full((1, 3, 8, 8), value)
    loss = only(term, ENERGY)
    costs = {
        p: loss(torch.full_like(target, p).logit(), target).item() for p in (value - 0.1, value, value + 0.1)
    }
    assert min(costs, key=costs.__getitem__) == value


@pytest.mark.parametrize("beta", [0.5, 0.7])
def test_overlap_terms_equal_the_librarys_where_no_channel_is_empty(beta: float) -> None:
    losses = library_losses()
    logits, target = torch.randn(2, 3, 40, 40), (torch.rand(2, 3, 40, 40) > 0.6).float()
    target[:, 2] = torch.rand(2, 40, 40)  # the core is soft
    theirs = losses.TverskyLoss("multilabel", alpha=1 - beta, beta=beta)(logits, target)
    torch.testing.assert_close(overlap_loss(logits.sigmoid(), target, beta), theirs, rtol=0, atol=1e-3)
    if beta == 0.5:
        dice = losses.DiceLoss("multilabel")(logits, target)
        torch.testing.assert_close(only("dice", ENERGY)(logits, target), dice, rtol=0, atol=1e-3)


def test_focal_equals_the_librarys_and_without_gamma_is_cross_entropy() -> None:
    logits, target = torch.randn(2, 3, 16, 16), make_target(ENERGY, 16)
    theirs = library_losses().FocalLoss("multilabel", gamma=2.0)(logits, target)
    torch.testing.assert_close(only("focal", ENERGY)(logits, target), theirs)
    for scheme in (ENERGY, THREE_CLASS):
        target = make_target(scheme, 16)
        plain = only("cross_entropy", scheme)(logits, target)
        torch.testing.assert_close(only("focal", scheme, focal_gamma=0.0)(logits, target), plain)


def test_cross_entropy_is_torchs_own() -> None:
    logits = torch.randn(2, 3, 16, 16)
    energy, classes = make_target(ENERGY, 16), make_target(THREE_CLASS, 16)
    expected = functional.binary_cross_entropy_with_logits(logits, energy)
    torch.testing.assert_close(only("cross_entropy", ENERGY)(logits, energy), expected)
    expected = functional.cross_entropy(logits, classes.argmax(1))
    torch.testing.assert_close(only("cross_entropy", THREE_CLASS)(logits, classes), expected)


def test_lovasz_of_hard_predictions_is_the_jaccard_loss() -> None:
    target = (torch.rand(1, 3, 20, 20) > 0.5).float()
    found = (torch.rand(1, 3, 20, 20) > 0.5).float()
    jaccard = [
        1 - (found[:, c] * target[:, c]).sum() / (found[:, c] + target[:, c]).clamp(max=1).sum() for c in (0, 1)
    ]
    cost = only("lovasz", ENERGY)(found * 2 - 1, target)  # the hinge of a wrong pixel is then exactly 2
    torch.testing.assert_close(cost, 2 * torch.stack(jaccard).mean())


def library_losses():  # type: ignore[no-untyped-def]
    from nuclei.models.smp import import_library

    return import_library().losses


@both_schemes
def test_pixel_weights_move_the_mean_and_only_the_mean(scheme: TargetConfig) -> None:
    loss, target = only("cross_entropy", scheme), make_target(scheme)
    logits = torch.randn_like(target)
    ones = torch.ones(2, 1, 24, 24)
    torch.testing.assert_close(loss(logits, target, ones * 5), loss(logits, target))
    left = ones.clone()
    left[..., 12:] = 0
    torch.testing.assert_close(loss(logits, target, left), loss(logits[..., :12], target[..., :12]))
    assert loss(logits, target, ones * 0) == 0


@both_schemes
def test_deep_supervision_weighs_the_scales_by_halves_against_the_averaged_target(scheme: TargetConfig) -> None:
    loss = build_loss(LossConfig(focal=0.5), scheme)
    target, weight = make_target(scheme), torch.rand(2, 1, 24, 24)
    scales = [torch.randn(2, 3, size, size) for size in (24, 12, 6)]
    alone = [
        loss(scale, functional.avg_pool2d(target, factor), functional.avg_pool2d(weight, factor))
        for scale, factor in zip(scales, (1, 2, 4), strict=True)
    ]
    expected = (4 * alone[0] + 2 * alone[1] + alone[2]) / 7
    torch.testing.assert_close(loss(scales, target, weight), expected)
    torch.testing.assert_close(loss(scales[:1], target), loss(scales[0], target))


@both_schemes
def test_every_term_takes_coarse_scales_of_odd_images(scheme: TargetConfig) -> None:
    loss = build_loss(LossConfig(**dict.fromkeys(TERMS, 1.0)), scheme)
    target = make_target(scheme, 33)[..., :31]
    scales = [torch.randn(2, 3, *size, requires_grad=True) for size in ((33, 31), (16, 15), (8, 7))]
    loss(scales, target, torch.rand(2, 1, 33, 31)).backward()
    assert all(torch.isfinite(scale.grad).all() and scale.grad.any() for scale in scales)


@both_schemes
def test_autocast_does_not_change_the_loss(scheme: TargetConfig) -> None:
    loss, target = build_loss(LossConfig(**dict.fromkeys(TERMS, 1.0)), scheme), make_target(scheme)
    logits = torch.randn_like(target).bfloat16()
    expected = loss(logits.float(), target)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(loss(logits, target), expected, rtol=0, atol=0)


def test_terms_add_up_by_their_weights_and_those_of_weight_zero_are_absent() -> None:
    target = make_target(ENERGY)
    logits = torch.randn_like(target)
    loss = build_loss(LossConfig(cross_entropy=0.5, dice=0.0, tversky=2.0), ENERGY)
    parts = loss.terms(logits, target, None)
    assert set(parts) == {"cross_entropy", "tversky"}
    torch.testing.assert_close(parts["tversky"], 2 * only("tversky", ENERGY)(logits, target))
    torch.testing.assert_close(loss(logits, target), sum(parts.values()))


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"logits \(2, 2, 24, 24\) and target \(2, 3, 24, 24\) differ"):
        build_loss(LossConfig(), ENERGY)(torch.randn(2, 2, 24, 24), make_target(ENERGY))


def test_activation_gives_foreground_border_and_core() -> None:
    logits = torch.tensor([0.0, 2.0, -3.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(
        activate(logits, ENERGY), torch.tensor([0.5, 0.880797, 0.0474259]).view(1, 3, 1, 1)
    )
    background, body, border = torch.tensor([0.5, 0.3, 0.2])
    logits = torch.stack([background, body, border]).log().view(1, 3, 1, 1) + 7
    expected = torch.stack([1 - background, border, body * (1 - border)]).view(1, 3, 1, 1)
    torch.testing.assert_close(activate(logits.bfloat16(), THREE_CLASS), expected, rtol=0, atol=0.02)
    torch.testing.assert_close(activate(logits, THREE_CLASS), expected)


@both_schemes
def test_activation_of_the_right_logits_is_the_target_in_canonical_channels(scheme: TargetConfig) -> None:
    target = make_target(scheme)
    probabilities = activate(right_logits(target, scheme), scheme)
    if scheme.scheme == "three_class":
        target = torch.stack([1 - target[:, 0], target[:, 2], target[:, 1]], 1)
    torch.testing.assert_close(probabilities, target, rtol=0, atol=1e-3)
