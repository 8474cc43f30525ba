"""Our EfficientNet-Lite0 against timm's, which it takes the place of."""

import pytest
import torch

from nuclei.models.depthwise import replace_depthwise
from nuclei.models.efficientnet_lite import LITE0, Lite0Encoder


def make_both(seed: int, in_channels: int = 3):
    """Ours and the library's encoder from the same seed, each with the next random numbers."""
    from nuclei.models.smp import import_library

    library = import_library().encoders
    torch.manual_seed(seed)
    ours, after = Lite0Encoder(in_channels), torch.rand(4)
    torch.manual_seed(seed)
    theirs = library.get_encoder(LITE0, in_channels=in_channels, depth=5, weights=None)
    return ours, theirs, after, torch.rand(4)


@pytest.mark.parametrize("in_channels", [1, 3])
def test_a_seed_gives_the_librarys_tensors_under_its_names_and_the_same_numbers_next(in_channels):
    ours, theirs, after, expected = make_both(5, in_channels)
    tensors, wanted = ours.state_dict(), theirs.state_dict()
    assert list(tensors) == list(wanted)
    assert all(torch.equal(tensors[name], wanted[name]) for name in wanted)
    assert torch.equal(after, expected)
    assert (ours.out_channels, ours.output_stride) == (theirs.out_channels, theirs.output_stride)


@pytest.mark.parametrize("training", [False, True])
def test_features_and_gradients_are_the_librarys_to_the_bit(training):
    ours, theirs, _, _ = make_both(5)
    image = torch.rand(2, 3, 67, 64)
    gradients = []
    for encoder in (ours, theirs):
        replace_depthwise(encoder)
        encoder.train(training)
        with torch.autocast("cpu", torch.bfloat16):
            features = encoder(image)
        features[-1].float().sum().backward()
        gradients.append((features, [parameter.grad for parameter in encoder.parameters()]))
    for one, other in zip(*gradients, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
