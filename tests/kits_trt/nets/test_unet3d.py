"""The 3D U-Net against MONAI's own, with MONAI's weights."""

from collections.abc import Collection

import pytest
import torch
from monai.networks.nets import UNet
from torch import Tensor

from kits_trt.nets import net_config
from kits_trt.nets.cost import net_cost
from kits_trt.nets.unet3d import UNet3d, UNet3dConfig


def monai_net(channels: tuple[int, ...]) -> UNet:
    """Return MONAI's net as its tutorials build it."""
    return UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=3,
        channels=channels,
        strides=(2,) * (len(channels) - 1),
        num_res_units=2,
        norm="batch",
    )


def lively_monai_net(channels: tuple[int, ...]) -> UNet:
    """Return the same with normalisations and slopes as training leaves them."""
    generator = torch.Generator().manual_seed(4)
    torch.manual_seed(4)
    net = monai_net(channels)
    for name, array in net.state_dict().items():
        if name.endswith("running_var"):
            array.uniform_(0.5, 2.0, generator=generator)
        elif name.endswith(("running_mean", "N.bias")):
            array.normal_(0.0, 0.3, generator=generator)
        elif name.endswith("A.weight"):
            array.uniform_(0.05, 0.4, generator=generator)
    return net


def is_idle(name: str, names: Collection[str]) -> bool:
    """Say whether this is the bias of a convolution that is normalised at once."""
    return name.endswith(".conv.bias") and name.replace(".conv.bias", ".adn.N.bias") in names


def weights_from_monai(net: UNet) -> list[Tensor]:
    """Return MONAI's weights in order, idle biases moved into the means behind them."""
    state = net.state_dict()
    weights = []
    for name, array in state.items():
        if name.endswith(".adn.N.running_mean"):
            weights.append(array - state[name.replace(".adn.N.running_mean", ".conv.bias")])
        elif not is_idle(name, state):
            weights.append(array)
    return weights


def net_from_monai(net: UNet, config: UNet3dConfig) -> UNet3d:
    ours = config.build()
    names = ours.state_dict().keys()
    ours.load_state_dict(dict(zip(names, weights_from_monai(net), strict=True)))
    return ours


@pytest.mark.parametrize("channels", [(4, 8, 16), (3, 5, 6, 7)])
@pytest.mark.parametrize("training", [False, True])
def test_logits_are_those_of_monais_net(channels: tuple[int, ...], training: bool) -> None:
    theirs = lively_monai_net(channels).train(training)
    ours = net_from_monai(theirs, UNet3dConfig(window=(16, 32, 16), channels=channels))
    patches = torch.randn(2, 1, 16, 32, 16)
    expected = theirs(patches).detach()
    logits = ours.train(training).final_logits(patches).detach()
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-4)
    assert float(expected.std()) > 0.1


def test_the_paper_preset_is_monais_net_without_the_biases_that_cannot_learn() -> None:
    config = net_config("unet", "paper")
    with torch.device("meta"):
        theirs, ours = monai_net((16, 32, 64, 128, 256)), config.build()
    arrays = dict(theirs.named_parameters())
    idle = sum(array.numel() for name, array in arrays.items() if is_idle(name, arrays))
    # Two a level down and two a level up, but for the linear convolution of the last one.
    assert idle == 2 * (16 + 32 + 64 + 128 + 256) + 2 * (64 + 32 + 16) + 3
    found, expected = (net_cost(net, config.patch_shape) for net in (ours, theirs))
    assert found.flop == expected.flop
    assert found.parameters == expected.parameters - idle
