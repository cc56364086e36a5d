"""The nets of all systems beside what the systems' manifests say of them; the committed page."""

import runpy
from pathlib import Path

import pytest
import torch

from kits_trt.nets import NETS, SYSTEM_NETS, net_config, net_for
from kits_trt.nets.cost import net_cost
from kits_trt.systems import SYSTEMS, Preset

PRESETS: tuple[Preset, ...] = ("paper", "small")


def test_every_system_has_exactly_the_nets_that_its_manifest_names() -> None:
    assert list(SYSTEM_NETS) == list(SYSTEMS)
    for name, build in SYSTEMS.items():
        for preset in PRESETS:
            assert list(SYSTEM_NETS[name]) == list(build(preset).nets)
            assert {stage_net for stage in build(preset).stages for stage_net in stage.nets} == set(
                SYSTEM_NETS[name]
            )


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", SYSTEMS)
def test_nets_have_the_channels_classes_and_size_of_their_systems(
    name: str, preset: Preset
) -> None:
    for net_name, shape in SYSTEMS[name](preset).nets.items():
        config = net_for(name, net_name, preset)
        assert config.patch_shape == (shape.in_channels, *shape.size_vox)
        with torch.device("meta"):
            scores = config.build().eval()(torch.empty((2, *config.patch_shape)))
        assert scores.shape == (2, shape.out_channels, *shape.size_vox)


def test_no_two_systems_use_one_name_so_that_a_name_alone_finds_its_net() -> None:
    names = [net for nets in SYSTEM_NETS.values() for net in nets]
    assert sorted(names) == sorted(set(names)) == sorted(NETS)
    for system, nets in SYSTEM_NETS.items():
        for net in nets:
            assert net_for(system, net, "small") is net_config(net, "small")


def test_nets_that_are_one_class_in_the_paper_share_their_configuration() -> None:
    vnets = [net_for("cascaded-vnet", f"{of}-vnet", "paper") for of in ("roi", "kidney", "tumour")]
    assert vnets[0] == vnets[1] == vnets[2]
    first = net_for("multistage25d", "res-unet-1", "paper")
    assert first == net_for("multistage25d", "res-unet-2", "paper")
    assert first != net_for("multistage25d", "res-net", "paper")


def test_paper_presets_cost_what_was_published_or_measured_of_their_architectures() -> None:
    gflop = {}
    for name in ("roi-vnet", "unet", "kidney-unet", "tumour-unet"):
        config = net_config(name, "paper")
        with torch.device("meta"):
            net = config.build()
        gflop[name] = net_cost(net, config.patch_shape).gflop
    assert gflop["roi-vnet"] == pytest.approx(2009, abs=1)
    assert gflop["unet"] == pytest.approx(6.3, abs=0.05)
    assert gflop["tumour-unet"] == gflop["kidney-unet"] / 2  # half the pixels


def test_small_presets_stay_below_40_gflop_a_window() -> None:
    for presets in NETS.values():
        with torch.device("meta"):
            net = presets["small"].build()
        assert net_cost(net, presets["small"].patch_shape).gflop < 40


def test_unknown_names_are_refused_with_the_names_that_exist() -> None:
    with pytest.raises(ValueError, match=r"system is 'vnet', must be one of .*'cascaded-vnet'"):
        net_for("vnet", "roi-vnet", "paper")
    with pytest.raises(ValueError, match=r"net of unet3d is 'res-net', must be one of \['unet'\]"):
        net_for("unet3d", "res-net", "paper")
    with pytest.raises(ValueError, match=r"preset of unet is 'tiny', .*'paper', 'small'"):
        net_for("unet3d", "unet", "tiny")


def test_the_committed_page_is_what_the_script_writes(
    pytestconfig: pytest.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = pytestconfig.rootpath / "scripts" / "write_network_table.py"
    monkeypatch.setattr("sys.argv", [str(script), str(tmp_path / "networks.md")])
    runpy.run_path(str(script), run_name="__main__")
    written = (tmp_path / "networks.md").read_text(encoding="utf-8")
    committed = pytestconfig.rootpath / "docs" / "networks.md"
    assert written == committed.read_text(encoding="utf-8")
    assert written.count("\n| ") == 2 + 2 * len(NETS)
