"""Makes the bundle that comes with the package from the checkpoint of its training.

``python -m kits_export.default_bundle --ckpt run/best.safetensors``

An export like any other, of fp32 files whose weights are stored as halves, at half the size.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kits_export.export import Exported, ExportOptions, export_bundle
from kits_export.findings import table_lines
from kits_export.masks import VerifyCase
from kits_export.parity import Gates
from kits_export.trained import TrainedSystem, trained_from_checkpoint
from kits_runtime.errors import BundleError, KitsError
from kits_runtime.segmenter import default_bundle_path
from kits_trt.train.provenance import PHANTOM_LICENCE, has_real_anatomy

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m kits_export.default_bundle")
    parser.add_argument("--ckpt", type=Path, required=True, help="checkpoint of the whole system")
    parser.add_argument("--commit", help="the commit that trained them")
    parser.add_argument("-o", "--out", type=Path, default=default_bundle_path())
    options = parser.parse_args(argv)
    try:
        trained = with_remarks(trained_from_checkpoint(options.ckpt), commit=options.commit)
        require_free(trained, where=str(options.ckpt))
        made = make_default_bundle(trained, options.out)
    except KitsError as error:
        logger.error("%s", error)
        return error.exit_code
    for line in table_lines(made.findings):
        logger.info("%s", line)
    logger.info("%s: %d bytes", options.out, options.out.stat().st_size)
    return 0


def with_remarks(trained: TrainedSystem, *, commit: str | None = None) -> TrainedSystem:
    """The system with what the card of the packaged bundle says besides its training's own facts.

    ``commit`` is that of the training where its checkpoint does not know it.
    """
    said = {
        **trained.facts,
        "commit": trained.facts.get("commit") or commit,
        "remarks": [
            "Trained briefly, to show the way from a scan to a mask.",
            "Kidneys include cysts. Tumours are looked for in the kidneys found, and close by.",
        ],
    }
    return replace(trained, facts=said)


def require_free(trained: TrainedSystem, *, where: str) -> None:
    """Check that the weights are as free as the package that they are to come with.

    Raises:
        BundleError: patients' data had a part in them, or nobody knows.
    """
    licence = trained.facts.get("licence")
    real = has_real_anatomy(trained.facts)
    if licence != PHANTOM_LICENCE or real:
        raise BundleError(
            f"{where}: found {'data of patients' if real else 'training data'} under licence "
            f"{licence or 'unknown'!r}, expected procedural phantoms alone, {PHANTOM_LICENCE!r}; "
            "train on those for the package, or use kits-export for a bundle of your own"
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
