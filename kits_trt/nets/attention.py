"""Modules that weigh features: squeeze-and-excitation by channel, attention gates by place."""

import torch
from torch import Tensor, nn

from kits_trt.nets.blocks import BlockKind, conv_norm_act, map_head


class SqueezeExcite(nn.Module):
    """Channel weights from the channels' own means (Hu et al., CVPR 2018).

    The two fully connected layers are 1x1 convolutions on the pooled map, so that the exported
    graph is a mean, two convolutions, a sigmoid and a product, all of a static shape.
    """

    def __init__(self, kind: BlockKind, channels: int, *, reduction: int) -> None:
        super().__init__()
        self.axes = tuple(range(2, 2 + kind.ndim))
        hidden = max(1, channels // reduction)
        self.squeeze = map_head(kind, channels, hidden)
        self.excite = map_head(kind, hidden, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Return the features, each channel times its weight in (0, 1)."""
        pooled = features.mean(dim=self.axes, keepdim=True)
        return features * torch.sigmoid(self.excite(torch.relu(self.squeeze(pooled))))


class AttentionGate(nn.Module):
    """A weight in (0, 1) for every place of a short connection.

    Encoder and decoder features of one level are concatenated (not added, as in Attention
    U-Net), mixed by 1x1 convolutions and squashed to one weight a place, by which the encoder
    features are multiplied.
    """

    def __init__(self, kind: BlockKind, channels: tuple[int, int]) -> None:
        super().__init__()
        hidden = max(1, channels[0] // 2)
        self.mix = conv_norm_act(kind, (sum(channels), hidden), kernel=1)
        self.weigh = map_head(kind, hidden, 1)

    def forward(self, encoded: Tensor, decoded: Tensor) -> Tensor:
        """Return the encoder features, each place times its weight."""
        weights = torch.sigmoid(self.weigh(self.mix(torch.cat((encoded, decoded), dim=1))))
        return encoded * weights
