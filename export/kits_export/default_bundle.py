"""Makes the bundle that comes with the package from the two checkpoints of its training.

``python -m kits_export.default_bundle --kidney run/resunet3d.safetensors \
--tumour run/msvnet.safetensors``

An export like any other, of fp32 files whose weights are stored as halves, at half the size.
"""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kits_export.export import Exported, ExportOptions, export_bundle
from kits_export.findings import table_lines
from kits_export.masks import VerifyCase
from kits_export.parity import Gates
from kits_export.trained import TrainedSystem, built_system, hash_of_files
from kits_runtime.errors import KitsError
from kits_runtime.segmenter import default_bundle_path
from kits_trt.train.checkpoint import read_checkpoint

logger = logging.getLogger(__name__)


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
        trained = trained_by_net(
            {"resunet3d": options.kidney, "msvnet": options.tumour}, commit=options.commit
        )
        made = make_default_bundle(trained, options.out)
    except KitsError as error:
        logger.error("%s", error)
        return error.exit_code
    for line in table_lines(made.findings):
        logger.info("%s", line)
    logger.info("%s: %d bytes", options.out, options.out.stat().st_size)
    return 0


def trained_by_net(checkpoints: Mapping[str, Path], *, commit: str | None) -> TrainedSystem:
    """``resunet-msvnet`` small from one checkpoint a net.

    Raises:
        BundleError: a file is damaged or of another net.
    """
    nets = {}
    metrics: dict[str, float] = {}
    for name, path in checkpoints.items():
        nets[name], facts = read_checkpoint(path)
        metrics[f"{name}: mean Dice on held-out phantoms"] = round(float(facts["dice_mean"]), 4)
        metrics[f"{name}: steps of its last training"] = float(facts["step"])
    said = {
        "data": "Procedural phantoms of this project alone; no patient's image or label.",
        "licence": "Apache-2.0",
        "metrics": metrics,
        "commit": commit,
        "remarks": [
            "Trained briefly, to show the way from a scan to a mask.",
            "Kidneys include cysts. Tumours are looked for inside the kidneys that were found.",
        ],
    }
    return TrainedSystem(
        system=built_system("resunet-msvnet", "small"),
        nets=nets,
        facts=said,
        sha256=hash_of_files(checkpoints.values()),
    )


def make_default_bundle(
    trained: TrainedSystem,
    out: Path,
    *,
    cases: Sequence[VerifyCase] = (),
    gates: Gates | None = None,
) -> Exported:
    """Writes the bundle, in place of the one that may be there.

    Raises:
        ParityError: a net computes something else after its export.
    """
    options = ExportOptions(
        precision="fp32", weights="float16", gates=gates or Gates(), overwrite=True
    )
    return export_bundle(trained, out, cases=cases, options=options)


if __name__ == "__main__":
    sys.exit(main())
