import pytest
from digital_phantom import manifest_of

from kits_runtime.dealing import dealt_out
from kits_runtime.engines import EngineOptions
from kits_trt.systems import SYSTEMS, Preset


@pytest.mark.parametrize(
    ("system", "preset", "net", "at_once"),
    [
        ("unet3d", "paper", "unet", 2),
        ("unet3d", "small", "unet", 2),
        ("cascaded-vnet", "small", "roi-vnet", 1),  # one window is the whole grid
        ("cascaded-vnet", "small", "kidney-vnet", 1),  # or a box
        ("cascaded-vnet", "paper", "roi-vnet", 1),
        ("resunet-msvnet", "paper", "resunet3d", 1),  # large
        ("resunet-msvnet", "paper", "msvnet", 1),  # slices, four a call
    ],
)
def test_only_many_small_windows_are_asked_for_two_at_a_time(
    system: str, preset: Preset, net: str, at_once: int
) -> None:
    declared = SYSTEMS[system](preset)
    shape = manifest_of(system, preset).nets[net]

    options = dealt_out(EngineOptions(threads=2), net, shape, declared.stages)

    assert (options.at_once, options.batch) == (at_once, 4 if net == "msvnet" else 1)


def test_one_thread_is_not_shared() -> None:
    manifest = manifest_of("unet3d", "paper")

    options = dealt_out(EngineOptions(threads=1), "unet", manifest.nets["unet"], manifest.stages)

    assert options.at_once == 1
