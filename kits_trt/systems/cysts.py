"""A system that also says where cysts are, for data that has them labelled (KiTS21 and KiTS23)."""

from collections.abc import Mapping
from dataclasses import replace

from kits_runtime.errors import UsageError
from kits_runtime.manifest.schema import Argmax, Stage
from kits_trt.systems.recipe import CrossEntropy, Recipe
from kits_trt.systems.system import NetShape, System

CYST = 3
_CLASSES = (0, 1, 2)


def with_cysts(system: System) -> System:
    """The system with a fourth class in each net that tells kidney and tumour apart.

    Raises:
        UsageError: No net of the system does that: its nets say kidney or tumour alone.
    """
    telling = {
        net
        for stage in system.stages
        if isinstance(stage.decide, Argmax) and stage.decide.labels == _CLASSES
        for net in stage.nets
    }
    if not telling:
        raise UsageError(
            f"{system.name}: its nets say kidney or tumour alone, expected one that tells them "
            "apart to add cysts as a class. Choose unet3d or multistage25d, or keep cysts as "
            "kidney or background."
        )
    return replace(
        system,
        labels=(*system.labels, "cyst"),
        nets={name: _wider(shape, name in telling) for name, shape in system.nets.items()},
        stages=tuple(_deciding(stage, telling) for stage in system.stages),
        recipes={
            name: _teaching(recipe) if name in telling else recipe
            for name, recipe in system.recipes.items()
        },
    )


def _wider(shape: NetShape, tells: bool) -> NetShape:
    return replace(shape, out_channels=shape.out_channels + 1) if tells else shape


def _deciding(stage: Stage, telling: set[str]) -> Stage:
    if not telling.issuperset(stage.nets):
        return stage
    return replace(stage, decide=Argmax(labels=(*_CLASSES, CYST)))


def _teaching(recipe: Recipe) -> Recipe:
    target: Mapping[int, int] = {**recipe.target, CYST: CYST}
    loss = recipe.loss
    if isinstance(loss, CrossEntropy):  # a cyst weighs as much as kidney, its rival
        loss = CrossEntropy(weights=(*loss.weights, loss.weights[1]))
    return replace(recipe, target=target, loss=loss)
