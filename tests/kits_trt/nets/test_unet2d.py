"""The 2D U-Net: the original's graph written out a second time, and its size by hand."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from kits_trt.nets import net_config
from kits_trt.nets.cost import net_cost
from kits_trt.nets.unet2d import UNet2dConfig


def convolved_twice(pair: nn.Sequential, features: Tensor) -> Tensor:
    for layers in pair:
        layer = layers[0]
        features = functional.relu(functional.conv2d(features, layer.weight, layer.bias, padding=1))
    return features


def test_scores_are_the_sigmoid_of_the_original_graph_with_padding() -> None:
    torch.manual_seed(1)
    net = UNet2dConfig(base=2, crop=(32, 16)).build()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.bias, std=0.2)
    patches = torch.randn(2, 1, 32, 16)
    features, skips = patches, []
    for level, encoder in enumerate(net.encoders):
        if level > 0:
            features = functional.max_pool2d(features, 2)
        features = convolved_twice(encoder, features)
        skips.append(features)
    skips.pop()
    for up, decoder in zip(net.ups, net.decoders, strict=True):
        risen = functional.conv_transpose2d(features, up.weight, up.bias, stride=2)
        features = convolved_twice(decoder, torch.cat((skips.pop(), risen), dim=1))
    logits = functional.conv2d(features, net.head.weight, net.head.bias)
    torch.testing.assert_close(net.final_logits(patches), logits, atol=1e-5, rtol=1e-5)
    expected = 1.0 / (1.0 + np.exp(-logits.detach().numpy().astype(np.float64)))
    scores = net(patches).detach().numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert scores.shape == (2, 1, 32, 16)
    assert 0.0 < scores.min() < scores.max() < 1.0


def test_parameters_and_operations_are_those_of_64_to_1024_channels() -> None:
    for name, size in (("kidney-unet", (256, 256)), ("tumour-unet", (128, 256))):
        plane = size[0] * size[1]
        parameters, flop = 64 + 1, 2 * 64 * plane
        pairs = [(1, 64), (64, 128), (128, 256), (256, 512), (512, 1024)]
        pairs += [(1024, 512), (512, 256), (256, 128), (128, 64)]
        for index, (entry, leaving) in enumerate(pairs):
            weights = 9 * (entry + leaving) * leaving
            pixels = plane // (leaving // 64) ** 2
            parameters += weights + 2 * leaving
            flop += 2 * weights * pixels
            if index > 4:
                parameters += 4 * entry * leaving + leaving
                flop += 2 * entry * leaving * pixels
        config = net_config(name, "paper")
        with torch.device("meta"):
            net = config.build()
        cost = net_cost(net, config.patch_shape)
        assert (cost.parameters, cost.flop) == (parameters, flop)
        assert round(parameters / 1e6) == 31
