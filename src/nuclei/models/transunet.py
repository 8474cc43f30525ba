"""TransUNet: a UNet with self-attention at the bottleneck.

Letters: B batch, C channels, H height, W width of the bottleneck, N tokens (one per patch), D token
width, K attention heads, E width of a head (D = K x E).

Convolutions see a neighbourhood, self-attention the whole image. Its cost grows with the square of
the number of positions, which is smallest at the bottleneck.

Source: Chen et al. 2021, TransUNet (hybrid encoder); Dosovitskiy et al. 2021, ViT (pre-norm
layers). Unlike there nothing is pretrained, so the transformer's output is added to the features
instead of replacing them. Its last layer starts at zero: before training the network is the plain
UNet.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from nuclei.config import ModelConfig
from nuclei.errors import UserError
from nuclei.models.unet import pad_to
from nuclei.models.unet_variants import ConfigurableUNet

POSITIONS = 16
"""Side of the learned position grid: the bottleneck of a 256-pixel crop at depth 4."""


class TransUNet(ConfigurableUNet):
    """The configurable UNet with transformer layers between encoder and decoder."""

    def __init__(self, config: ModelConfig, out_channels: int) -> None:
        super().__init__(config, out_channels)
        self.multiple *= config.transformer_patch
        self.bridge = TransformerBridge(
            self.bottleneck_channels,
            config.transformer_layers,
            config.transformer_heads,
            config.transformer_patch,
            config.dropout,
        )


class TransformerBridge(nn.Module):
    """Features (B, C, H, W) plus the output of transformer layers on them, same shape."""

    def __init__(self, channels: int, layers: int, heads: int, patch: int, dropout: float) -> None:
        super().__init__()
        if channels % heads:
            raise UserError(
                f"model.transformer_heads = {heads} does not divide the {channels} channels of "
                "the bottleneck; use a divisor or change model.width"
            )
        self.patch = patch
        self.embed = nn.Conv2d(channels, channels, patch, stride=patch)
        self.position_1CHW = nn.Parameter(torch.empty(1, channels, POSITIONS, POSITIONS))
        nn.init.trunc_normal_(self.position_1CHW, std=0.02)
        self.layers = nn.ModuleList(TransformerLayer(channels, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.restore = nn.ConvTranspose2d(channels, channels, patch, stride=patch)
        nn.init.zeros_(self.restore.weight)
        nn.init.zeros_(self.restore.bias)  # type: ignore[arg-type]

    def forward(self, features_BCHW: Tensor) -> Tensor:
        height, width = features_BCHW.shape[-2:]
        rows, columns = (
            (height + self.patch - 1) // self.patch,
            (width + self.patch - 1) // self.patch,
        )
        padded_BCHW = pad_to(features_BCHW, rows * self.patch, columns * self.patch)
        embedded_BCHW = self.embed(padded_BCHW)
        size = embedded_BCHW.shape[-2:]
        embedded_BCHW = embedded_BCHW + self._positions(size[0], size[1]).to(embedded_BCHW.dtype)
        tokens_BND = embedded_BCHW.flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens_BND = layer(tokens_BND)
        attended_BCHW = self.norm(tokens_BND).transpose(1, 2).unflatten(2, size)
        restored_BCHW: Tensor = self.restore(attended_BCHW)
        more_h, more_w = rows * self.patch - height, columns * self.patch - width
        top, left = more_h // 2, more_w // 2
        # negative padding crops, and unlike a slice it does not branch on the size
        return features_BCHW + functional.pad(restored_BCHW, (-left, left - more_w, -top, top - more_h))

    def _positions(self, height: int, width: int) -> Tensor:
        size = (height, width)
        fitted_1CHW: Tensor = functional.interpolate(
            self.position_1CHW, size, mode="bilinear", align_corners=False
        )
        return fitted_1CHW


class TransformerLayer(nn.Module):
    """Pre-norm transformer layer: multi-head self-attention, two linear layers, each residual."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(channels)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        tokens_BND = tokens_BND + self.dropout(self._attend(self.norm1(tokens_BND)))
        out_BND: Tensor = tokens_BND + self.dropout(self.mlp(self.norm2(tokens_BND)))
        return out_BND

    def _attend(self, tokens_BND: Tensor) -> Tensor:
        heads_3BKNE = self.query_key_value(tokens_BND).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query_BKNE, key_BKNE, value_BKNE = heads_3BKNE.unbind(0)
        # torch chooses the implementation; the fast ones do not store the N x N attention weights
        mixed_BKNE = functional.scaled_dot_product_attention(query_BKNE, key_BKNE, value_BKNE)
        mixed_BND: Tensor = self.project(mixed_BKNE.transpose(1, 2).flatten(2))
        return mixed_BND
