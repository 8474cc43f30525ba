"""Networks without training whose answer is known."""

import torch


class Brightness(torch.nn.Module):
    """Takes what is bright for a nucleus, and nothing for a border, in any zoom."""

    smallest = multiple = 1

    def forward(self, pixels_BCHW):
        return 8 * pixels_BCHW * torch.tensor([1.0, -1.0, 1.0])[:, None, None]
