"""Checkpoints of one network: safetensors with the facts in the header, written in one rename."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from kits_runtime.errors import BundleError
from kits_runtime.files import replacing
from kits_trt.nets import SegmentationNet, build_net

_HEADER_KEY = "kits"


def write_checkpoint(
    path: Path, net: SegmentationNet, facts: Mapping[str, str | int | float]
) -> None:
    """Write weights and facts; the file appears complete or not at all.

    ``facts`` must name ``net`` and ``preset``, so that the file says how to rebuild the network.
    """
    missing = sorted({"net", "preset"} - set(facts))
    if missing:
        raise ValueError(f"facts lack {missing}, expected at least 'net' and 'preset'; add them")
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: array.contiguous() for name, array in net.state_dict().items()}
    with replacing(path) as stream:
        stream.write(save(weights, metadata={_HEADER_KEY: json.dumps(facts, sort_keys=True)}))


def read_checkpoint(path: Path) -> tuple[SegmentationNet, dict[str, str | int | float]]:
    """Return the network in evaluation mode and the facts of its header.

    Raises:
        BundleError: The file is damaged, not ours, or its weights are not of the named network.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            header = opened.metadata() or {}
        facts: dict[str, str | int | float] = json.loads(header[_HEADER_KEY])
        net = build_net(str(facts["net"]), str(facts["preset"]))
        net.load_state_dict(load_file(path))
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BundleError(
            f"{path}: found {reason}, expected a checkpoint of one of our networks; "
            "train it again or choose another file"
        ) from error
    return net.eval(), facts
