"""Makes the bundle that comes with the package from the two checkpoints of its training.

``python -m kits_export.default_bundle --kidney run/resunet3d.safetensors \
--tumour run/msvnet.safetensors``

Each net is exported, compared with torch, stored with half-precision weights and compared again; a
difference beyond the tolerance leaves no bundle.
"""

import argparse
import hashlib
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from kits_export.half_storage import store_weights_as_half
from kits_export.onnx_from_torch import onnx_from_net
from kits_export.torch_parity import (
    MAX_SCORE_DIFFERENCE,
    ScoreDifference,
    require_torch_parity,
    score_difference,
)
from kits_export.write_bundle import NetContent, write_bundle
from kits_runtime.errors import KitsError, ParityError
from kits_runtime.manifest.schema import Card, ParityLink, Provenance
from kits_runtime.segmenter import default_bundle_path
from kits_trt.nets import net_config
from kits_trt.systems.resunet_msvnet import resunet_msvnet
from kits_trt.train.checkpoint import read_checkpoint

logger = logging.getLogger(__name__)

OPSET = 17
# Scores lie in 0 to 1. Weights rounded to eleven bits move them by some 1e-3 where a net is least
# certain, a boundary by far less than a voxel.
HALF_WEIGHTS_TOLERANCE = 2e-2
Facts = Mapping[str, str | int | float]
TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m kits_export.default_bundle")
    parser.add_argument("--kidney", type=Path, required=True, help="checkpoint of resunet3d")
    parser.add_argument("--tumour", type=Path, required=True, help="checkpoint of msvnet")
    parser.add_argument("--commit", help="the commit that trained them")
    parser.add_argument("-o", "--out", type=Path, default=default_bundle_path())
    options = parser.parse_args(argv)
    try:
        make_default_bundle(
            {"resunet3d": options.kidney, "msvnet": options.tumour},
            options.out,
            commit=options.commit,
        )
    except KitsError as error:
        logger.error("%s", error)
        return error.exit_code
    return 0


def make_default_bundle(checkpoints: Mapping[str, Path], out: Path, *, commit: str | None) -> None:
    """Writes the bundle of ``resunet-msvnet`` small from one checkpoint a net.

    Raises:
        ParityError: a net computes something else after its export.
    """
    nets = {}
    links: list[ParityLink] = []
    metrics: dict[str, float] = {}
    for name, path in checkpoints.items():
        nets[name], own_links, facts = _exported(name, path)
        links += own_links
        metrics[f"{name}: mean Dice on held-out phantoms"] = round(float(facts["dice_mean"]), 4)
        metrics[f"{name}: steps of its last training"] = float(facts["step"])
    out.parent.mkdir(parents=True, exist_ok=True)
    manifest = write_bundle(
        out,
        resunet_msvnet("small"),
        {name: {"fp32": content} for name, content in nets.items()},
        parity=tuple(links),
        provenance=Provenance(
            checkpoint_sha256=_hash_of(checkpoints.values()),
            commit=commit,
            opset=OPSET,
            tools={name: metadata.version(name).partition("+")[0] for name in TOOLS},
        ),
        card=_card(metrics),
    )
    logger.info("%s: %s %s, %d bytes", out, manifest.system, manifest.preset, out.stat().st_size)


def _exported(name: str, path: Path) -> tuple[NetContent, list[ParityLink], Facts]:
    net, facts = read_checkpoint(path)
    shape = net_config(name, "small").patch_shape
    exported = onnx_from_net(net, input_shape=shape)
    halved = store_weights_as_half(exported)
    exact = require_torch_parity(net, exported, patch_shape=shape)
    rounded = score_difference(net, halved, patch_shape=shape)
    if not rounded.largest <= HALF_WEIGHTS_TOLERANCE:
        raise ParityError(
            f"{name}: found scores {rounded.largest:.3g} apart after storing weights as half, "
            f"expected at most {HALF_WEIGHTS_TOLERANCE}. Store them as float32."
        )
    links = [
        _link(f"{name}: torch = ONNX fp32", exact, MAX_SCORE_DIFFERENCE),
        _link(f"{name}: torch = ONNX with half weights", rounded, HALF_WEIGHTS_TOLERANCE),
    ]
    content = NetContent(onnx=halved.SerializeToString(), tensors="float32", weights="float16")
    return content, links, facts


def _link(link: str, difference: ScoreDifference, tolerance: float) -> ParityLink:
    return ParityLink(
        link=link,
        measure="largest difference of scores on random patches",
        value=difference.largest,
        tolerance=tolerance,
    )


def _hash_of(paths: Iterable[Path]) -> str:
    """One hash for several files: that of their hashes in order."""
    each = "".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
    return hashlib.sha256(each.encode()).hexdigest()


def _card(metrics: Mapping[str, float]) -> Card:
    return Card(
        intended_use="Research on kidney and kidney-tumour segmentation in abdominal CT. "
        "Not a medical device; not for diagnosis or treatment.",
        training_data="Procedural phantoms of this project alone; no patient's image or label.",
        licence="Apache-2.0",
        metrics=metrics,
        remarks=(
            "Trained briefly, to show the way from a scan to a mask.",
            "Kidneys include cysts. Tumours are looked for inside the kidneys that were found.",
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
