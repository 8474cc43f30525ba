"""Networks without training whose output is known."""

import torch


class Brightness(torch.nn.Module):
    """Finds nuclei where the image is bright and no borders, at any scale."""

    smallest = multiple = 1

    def forward(self, pixels_BCHW):
        return 8 * pixels_BCHW * torch.tensor([1.0, -1.0, 1.0])[:, None, None]
