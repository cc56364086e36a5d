"""Checkpoints: safetensors with the facts in the header, written in one rename.

A system's checkpoint is one file. Its tensors are called ``<net>/<name in the net's state>``, its
header holds one JSON object under ``kits``: ``format``, ``system``, ``preset``, ``nets``,
``labels``, and whatever else the training says of itself. While a system is being trained ``nets``
names those that have weights so far.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from kits_runtime.errors import BundleError
from kits_runtime.files import replacing
from kits_runtime.manifest.codec import shown
from kits_trt.nets import SYSTEM_NETS, SegmentationNet, build_net
from kits_trt.systems import SYSTEMS, System, with_cysts

FORMAT = 1
PRESETS = ("paper", "small")
_HEADER_KEY = "kits"
_OWN_FACTS = ("format", "labels", "nets")

Facts = Mapping[str, object]
State = Mapping[str, Tensor]


def write_system_checkpoint(path: Path, nets: Mapping[str, SegmentationNet], facts: Facts) -> None:
    """Write all nets of a system and its facts; the file appears complete or not at all.

    ``facts`` name ``system`` and ``preset`` and hold what JSON can; ``format``, ``nets`` and, where
    they are missing, ``labels`` are added.

    Raises:
        ValueError: The facts lack a name, or the nets are not those of the system.
    """
    system = str(facts.get("system"))
    expected = sorted(SYSTEM_NETS.get(system, nets))
    if sorted(nets) != expected:
        raise ValueError(f"nets are {sorted(nets)}, expected {expected}; give all of the system's")
    write_trained_nets(path, {name: net.state_dict() for name, net in nets.items()}, facts)


def write_trained_nets(path: Path, states: Mapping[str, State], facts: Facts) -> None:
    """Write the weights of those nets of a system that have been trained so far.

    Raises:
        ValueError: The facts lack a name, or there is no net or one of another system.
    """
    system, preset = facts.get("system"), facts.get("preset")
    if system not in SYSTEMS or preset not in PRESETS:
        raise ValueError(
            f"facts name system {system!r} and preset {preset!r}, expected one of "
            f"{sorted(SYSTEMS)} and one of {list(PRESETS)}; add them"
        )
    known = list(SYSTEM_NETS[str(system)])
    if not states or not set(states) <= set(known):
        raise ValueError(f"nets are {sorted(states)}, expected some of {known}; give no others")
    built = SYSTEMS[str(system)]("paper" if preset == "paper" else "small")
    own = {"format": FORMAT, "nets": [name for name in known if name in states]}
    weights = {
        f"{name}/{key}": value.detach().cpu().contiguous().clone()
        for name, state in states.items()
        for key, value in state.items()
    }
    full = {"labels": list(built.labels), **facts, **own}
    text = json.dumps(full, sort_keys=True, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        stream.write(save(weights, metadata={_HEADER_KEY: text}))


def read_system_checkpoint(path: Path) -> tuple[dict[str, SegmentationNet], dict[str, object]]:
    """Return the nets of a system, in evaluation mode, and the facts of the header.

    Raises:
        BundleError: The file is damaged or not ours, lacks a net, or a tensor is missing, too many,
            of another shape or type, or not finite; the message names it.
    """
    facts = _header(path)
    found, expected = _listed(facts["nets"]), sorted(SYSTEM_NETS[str(facts["system"])])
    if sorted(found) != expected:
        raise BundleError(
            f"{path}: found nets {sorted(found)}, expected {expected}; give a checkpoint with all "
            "nets of the system (kits-train --resume trains those that are missing)"
        )
    return read_trained_nets(path)


def read_trained_nets(path: Path) -> tuple[dict[str, SegmentationNet], dict[str, object]]:
    """Return the nets that a checkpoint holds, in evaluation mode, and the facts of the header.

    Raises:
        BundleError: As :func:`read_system_checkpoint`, but a net may be missing.
    """
    facts = _header(path)
    system = system_of(facts, where=str(path))
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _no_checkpoint(path, " ".join(str(error).split())) from error
    names = [name for name in system.nets if name in _listed(facts["nets"])]
    strange = sorted(name for name in tensors if name.partition("/")[0] not in names)
    if strange:
        raise BundleError(
            f"{path}: found tensor {shown(strange[0])}, expected those of the nets {names} of "
            f"{system.name} alone; write the checkpoint again"
        )
    states = {
        name: {
            key.removeprefix(f"{name}/"): value
            for key, value in tensors.items()
            if key.startswith(f"{name}/")
        }
        for name in names
    }
    return {
        name: net_from_state(
            state,
            (system.name, name, system.preset),
            where=f"{path}: {name}/",
            classes=system.nets[name].out_channels,
        )
        for name, state in states.items()
    }, facts


def system_of(facts: Facts, *, where: str) -> System:
    """The system that a checkpoint's facts name, with cysts as a class where they were trained.

    Raises:
        BundleError: Its labels are not those of the system.
    """
    built = SYSTEMS[str(facts["system"])]("paper" if facts["preset"] == "paper" else "small")
    labels = facts.get("labels", list(built.labels))
    if labels == list(built.labels):
        return built
    if labels != [*built.labels, "cyst"]:
        raise BundleError(
            f"{where}: found labels {shown(labels)}, expected {list(built.labels)}, perhaps with "
            "'cyst' at the end; write the checkpoint again"
        )
    return with_cysts(built)


def _listed(nets: object) -> list[str]:
    return [str(name) for name in nets] if isinstance(nets, list) else []


def net_from_state(
    state: State, place: tuple[str, str, str], *, where: str, classes: int | None = None
) -> SegmentationNet:
    """Return a net with these weights, in evaluation mode.

    Args:
        state: Weights by name, as ``state_dict`` gives them.
        place: System, net and preset.
        where: What stands before a tensor's name in messages.
        classes: Output channels where they are not those of the paper.

    Raises:
        BundleError: A tensor is missing, too many, of another shape or type, or not finite.
    """
    with torch.random.fork_rng(devices=[]):
        net = build_net(place[1], place[2], classes=classes)
    expected = net.state_dict()
    for name in expected:
        if name not in state:
            near = sorted(set(state) - set(expected))
            hint = f" (found {shown(near[0])} instead)" if near else ""
            raise BundleError(
                f"{where}{name}: missing tensor{hint}, expected one of shape "
                f"{tuple(expected[name].shape)}; give a checkpoint of {' '.join(place)}"
            )
    for name, value in state.items():
        if name not in expected:
            raise BundleError(
                f"{where}{name}: found a tensor too many, expected {len(expected)} of other names; "
                f"give a checkpoint of {' '.join(place)}"
            )
        _check_tensor(f"{where}{name}", value, expected[name])
    net.load_state_dict(dict(state))
    return net.eval()


def _check_tensor(where: str, found: Tensor, expected: Tensor) -> None:
    if found.shape != expected.shape:
        raise BundleError(
            f"{where}: found shape {tuple(found.shape)}, expected {tuple(expected.shape)}; give "
            "a checkpoint of this net and preset"
        )
    if found.is_floating_point() != expected.is_floating_point():
        raise BundleError(
            f"{where}: found {found.dtype}, expected {expected.dtype}; write the checkpoint again"
        )
    broken = int((~torch.isfinite(found)).sum())
    if broken:
        raise BundleError(
            f"{where}: found {broken} of {found.numel()} values that are NaN or infinite, "
            "expected finite weights; choose an earlier checkpoint"
        )


def _header(path: Path) -> dict[str, object]:
    """The facts of a system's checkpoint, after checking those that say how to read it."""
    try:
        with safe_open(path, framework="pt") as opened:
            facts = json.loads((opened.metadata() or {})[_HEADER_KEY])
        found = tuple(facts.get(key) for key in ("format", "system", "preset", "nets"))
    except (SafetensorError, OSError, KeyError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise _no_checkpoint(path, reason) from error
    _, system, preset, nets = found
    known = isinstance(system, str) and system in SYSTEMS and preset in PRESETS
    if found[0] != FORMAT or not known:
        raise BundleError(
            f"{path}: found format {shown(found[0])}, system {shown(system)}, preset "
            f"{shown(preset)}, expected format {FORMAT}, one of {sorted(SYSTEMS)} and one of "
            f"{list(PRESETS)}; train again, or use the release that wrote it"
        )
    if not isinstance(nets, list) or not set(map(str, nets)) <= set(SYSTEM_NETS[str(system)]):
        raise BundleError(
            f"{path}: found nets {shown(nets)}, expected {sorted(SYSTEM_NETS[str(system)])}; "
            "give a checkpoint with all nets of the system"
        )
    return dict(facts)


def _no_checkpoint(path: Path, reason: str) -> BundleError:
    return BundleError(
        f"{path}: found {reason}, expected a whole safetensors checkpoint of one of our systems; "
        "train it again or choose another file"
    )
