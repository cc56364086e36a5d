"""What the papers say of training, beside what the recipes say."""

import pytest

from kits_runtime.errors import UsageError
from kits_runtime.manifest.schema import Argmax
from kits_trt.nets import build_net, net_for
from kits_trt.systems import SYSTEMS, Preset, with_cysts
from kits_trt.systems.augmentation import Blur, CutOut, EqualiseHistogram, Mirror, Noise, Place
from kits_trt.systems.recipe import (
    Adam,
    BceDice,
    Constant,
    Crops,
    CrossEntropy,
    DeepDice,
    Dice,
    FirstCases,
    FocalDice,
    HardCases,
    OnPlateau,
    RandomSplit,
    Recipe,
    Sgd,
    SliceRuns,
    SliceStacks,
)

PRESETS: tuple[Preset, ...] = ("paper", "small")
every_system = pytest.mark.parametrize("name", SYSTEMS)
every_preset = pytest.mark.parametrize("preset", PRESETS)


def published(system: str, net: str) -> Recipe:
    return SYSTEMS[system]("paper").recipes[net]


@every_preset
@every_system
def test_each_net_has_a_recipe_for_a_stage_that_asks_it(name: str, preset: Preset) -> None:
    system = SYSTEMS[name](preset)
    stages = {stage.name: stage for stage in system.stages}
    assert list(system.recipes) == list(system.nets)
    for net, recipe in system.recipes.items():
        stage = stages[recipe.stage]
        assert net in stage.nets
        classes = range(max(2, system.nets[net].out_channels))
        assert set(recipe.target.values()) | {0} == set(classes)


@every_preset
@every_system
def test_the_classes_that_a_net_learns_are_those_that_its_stage_decides_on(
    name: str, preset: Preset
) -> None:
    system = SYSTEMS[name](preset)
    stages = {stage.name: stage for stage in system.stages}
    for recipe in system.recipes.values():
        decided = [label for label in stages[recipe.stage].decide.labels if label]
        for label in decided:
            assert recipe.target[label] == decided.index(label) + 1


def test_unet3d_draws_four_crops_half_of_them_on_foreground() -> None:
    recipe = published("unet3d", "unet")
    assert recipe.draw == Crops(per_case=4, foreground_share=1 / (1 + 1))
    assert recipe.loss == Dice()
    assert recipe.optimiser == Adam(learning_rate=1e-4)
    assert recipe.schedule == OnPlateau(factor=0.1, patience_epochs=10)
    assert recipe.epochs == 300
    assert recipe.split == RandomSplit(train_share=0.8)


@pytest.mark.parametrize(
    ("net", "learning_rate", "weights"),
    [
        ("res-unet-1", 1e-4, (0.3, 1.0, 3.0)),
        ("res-unet-2", 1e-4, (0.3, 1.0, 3.0)),
        ("res-net", 1e-3, (0.2, 0.25, 0.55)),
    ],
)
def test_multistage25d_trains_the_three_settings_of_table_1(
    net: str, learning_rate: float, weights: tuple[float, ...]
) -> None:
    recipe = published("multistage25d", net)
    assert recipe.optimiser == Adam(learning_rate=learning_rate, weight_decay=0.1)
    assert recipe.loss == CrossEntropy(weights=weights)
    assert recipe.schedule == Constant()
    assert (recipe.batch_size, recipe.epochs) == (32, 250)
    assert recipe.split == RandomSplit(train_share=190 / 210)


def test_multistage25d_balances_three_groups_to_localise_and_two_to_segment() -> None:
    first, second = (published("multistage25d", net).draw for net in ("res-unet-1", "res-net"))
    assert isinstance(first, SliceStacks)
    assert isinstance(second, SliceStacks)
    assert first.shares == {("background",): 1 / 3, ("kidney",): 1 / 3, ("tumour",): 1 / 3}
    assert second.shares == {("kidney",): 0.5, ("tumour",): 0.5}


def test_multistage25d_changes_slices_with_tumour_alone() -> None:
    augment = published("multistage25d", "res-unet-1").augment
    assert {item.groups for item in augment} == {("tumour",)}
    turn, mirror, zoom = (item.change for item in augment)
    assert turn == Place(degrees=30.0, chance=1.0)
    assert mirror == Mirror(axes=(2,), chance=0.5)
    assert isinstance(zoom, Place)
    assert zoom.chance == 0.66


def test_multistage25d_changes_slices_in_three_two_and_one_way_as_table_1_has_marks() -> None:
    nets = ("res-unet-1", "res-unet-2", "res-net")
    ways = [published("multistage25d", net).augment for net in nets]
    assert [len(augment) for augment in ways] == [3, 2, 1]
    assert ways[1] == ways[0][:2]
    assert ways[2] == ways[0][:1]
    small = SYSTEMS["multistage25d"]("small").recipes
    assert {small[net].augment for net in nets} == {ways[0]}


def test_unet2d_pair_learns_from_positive_slices_only() -> None:
    kidney = published("unet2d-pair", "kidney-unet")
    tumour = published("unet2d-pair", "tumour-unet")
    assert kidney.draw == SliceStacks(per_case=None, shares={("kidney", "tumour"): 1.0})
    assert tumour.draw == SliceStacks(per_case=None, shares={("tumour",): 1.0})
    assert (kidney.target[1], kidney.target[2]) == (1, 1)
    assert dict(tumour.target) == {2: 1}
    for recipe in (kidney, tumour):
        assert recipe.loss == BceDice(dice_share=0.5)
        assert isinstance(recipe.optimiser, Adam)
        assert isinstance(recipe.schedule, OnPlateau)
        assert recipe.epochs == 50
        assert recipe.patience_epochs is not None
        assert recipe.split == RandomSplit(train_share=0.9)


@pytest.mark.parametrize("net", ["roi-vnet", "kidney-vnet", "tumour-vnet"])
def test_cascaded_vnet_takes_one_random_crop_a_step_with_noise(net: str) -> None:
    recipe = published("cascaded-vnet", net)
    assert recipe.draw == Crops(per_case=1, foreground_share=None)
    assert [type(item.change) for item in recipe.augment] == [Noise]
    assert recipe.loss == Dice()
    assert recipe.optimiser == Sgd(learning_rate=1e-3, momentum=0.9, weight_decay=0.01)
    assert recipe.batch_size == 1
    assert recipe.split == RandomSplit(train_share=190 / 210)
    assert recipe.epochs == (56 if net == "tumour-vnet" else 47)


def test_resunet_msvnet_draws_slice_runs_within_fifty_slices_of_the_kidneys() -> None:
    recipe = published("resunet-msvnet", "resunet3d")
    assert recipe.draw == SliceRuns(per_case=1, margin_slices=50)
    assert [item.change for item in recipe.augment] == [Mirror(axes=(2,), chance=0.5)]
    assert recipe.loss == DeepDice(mu=0.33, factor=0.8, every_epochs=15)
    assert recipe.epochs == 500
    assert recipe.split == RandomSplit(train_share=190 / 210)


def test_resunet_msvnet_teaches_tumours_on_the_first_195_cases_and_repeats_hard_ones() -> None:
    recipe = published("resunet-msvnet", "msvnet")
    assert recipe.split == FirstCases(count=195, of=210)
    assert isinstance(recipe.loss, FocalDice)
    assert recipe.hard_cases == HardCases(share=0.4, times=2.0)
    changes = {type(item.change) for item in recipe.augment}
    assert changes == {Place, CutOut, EqualiseHistogram, Blur}
    place = next(item.change for item in recipe.augment if isinstance(item.change, Place))
    assert place.degrees > 0
    assert place.shift > 0


@every_preset
@pytest.mark.parametrize("name", ["unet3d", "multistage25d"])
def test_cysts_become_a_fourth_class_where_nets_tell_classes_apart(
    name: str, preset: Preset
) -> None:
    system = with_cysts(SYSTEMS[name](preset))
    assert system.labels == ("background", "kidney", "tumour", "cyst")
    assert {shape.out_channels for shape in system.nets.values()} == {4}
    assert {stage.decide for stage in system.stages} == {Argmax(labels=(0, 1, 2, 3))}
    for recipe in system.recipes.values():
        assert dict(recipe.target) == {1: 1, 2: 2, 3: 3}
        if isinstance(recipe.loss, CrossEntropy):
            assert recipe.loss.weights[3] == recipe.loss.weights[1]


@pytest.mark.parametrize("name", ["cascaded-vnet", "resunet-msvnet", "unet2d-pair"])
def test_systems_that_say_kidney_or_tumour_alone_refuse_cysts(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}.*Choose unet3d or multistage25d"):
        with_cysts(SYSTEMS[name]("small"))


def test_a_net_is_built_with_as_many_channels_as_it_is_asked_for() -> None:
    net = build_net("res-net", "small", classes=4)
    head = [layer for layer in net.modules() if hasattr(layer, "out_channels")][-1]
    assert head.out_channels == 4
    assert net_for("multistage25d", "res-net", "small").classes == 3


def test_a_sigmoid_net_keeps_its_one_channel() -> None:
    with pytest.raises(ValueError, match="1 output channel, not 4"):
        build_net("kidney-unet", "small", classes=4)
