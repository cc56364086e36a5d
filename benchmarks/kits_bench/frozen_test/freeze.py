"""Freezes a new version of the test: hashes the label maps and decides how each is rendered.

``python -m kits_bench.frozen_test.freeze --anatomy DIR --number N`` writes ``version-N.json``
beside this module and refuses to replace one. Then ``VERSION`` in ``configuration`` is raised.

Rendering at 512 x 512 with all slices costs 5 to 60 seconds of a processor a case. So that the
whole test takes minutes, a quarter of the maps, of those with few slices, keep their full size; of
the others one row and one column in two stay, and slices are thinned to 320 at most. The nets of
the packaged bundle look at coarser grids than that.
"""

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from kits_bench.frozen_test.configuration import (
    Configuration,
    FrozenCase,
    Subset,
    labels_sha256,
    text_of,
)
from kits_bench.frozen_test.probe import probe_renderer
from kits_runtime.errors import KitsError, UsageError
from kits_runtime.files import replacing
from kits_trt.evaluation.label_maps import read_labels
from kits_trt.evaluation.pairs import label_files
from kits_trt.phantom.phases import PHASE_WEIGHTS, PHASES, Phase

logger = logging.getLogger(__name__)

SEED = 190_411
_HIGHEST_LABEL = 2
_MOST_SLICES = 320
_FEW_SLICES = 175
_ONE_IN = 8  # of the cases ordered by thickness goes to the dev subset


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m kits_bench.frozen_test.freeze")
    parser.add_argument("--anatomy", type=Path, required=True, help="KiTS19 label maps")
    parser.add_argument("--number", type=int, required=True, help="of the new version")
    options = parser.parse_args(argv)
    try:
        path = Path(__file__).with_name(f"version-{options.number}.json")
        if path.exists():
            raise UsageError(
                f"{path.name}: found it already, expected none. Choose another number."
            )
        configuration = freeze(options.anatomy, options.number)
        with replacing(path) as stream:
            stream.write(text_of(configuration).encode())
    except KitsError as error:
        logger.error("%s", error)
        return error.exit_code
    logger.info("%s: %d cases, %s", path.name, len(configuration.cases), configuration.sha256)
    return 0


def freeze(anatomy: Path, version: int) -> Configuration:
    """The configuration for all label maps of a folder.

    Raises:
        ScanError: A label map cannot be read.
    """
    maps = {}
    for case, path in sorted(label_files(anatomy).items()):
        given = read_labels(path, _HIGHEST_LABEL)
        maps[case] = (given.labels.shape, given.spacing_mm, labels_sha256(given.labels))
        logger.info("%s %s", case, maps[case][2][:12])
    by_thickness = sorted(maps, key=lambda case: (maps[case][1][0], case))
    dev = set(by_thickness[_ONE_IN // 2 :: _ONE_IN])
    full = set(_full_size({case: facts[0][0] for case, facts in maps.items()}))
    phases = _phases(maps, dev)
    cases = []
    for case, (shape, spacing_mm, sha256) in maps.items():
        subset: Subset = "dev" if case in dev else "test"
        cases.append(
            FrozenCase(
                case=case,
                labels_sha256=sha256,
                spacing_mm=tuple(round(step, 6) for step in spacing_mm),  # type: ignore[arg-type]
                subset=subset,
                phase=phases[case],
                every_slice=-(-shape[0] // _MOST_SLICES),
                every_pixel=1 if case in full else 2,
            )
        )
    return Configuration(version=version, seed=SEED, renderer=probe_renderer(), cases=tuple(cases))


def _full_size(slices: dict[str, int]) -> list[str]:
    """A quarter of all cases, spread over those with few slices."""
    few = sorted((case for case, count in slices.items() if count <= _FEW_SLICES))
    wanted = min(len(few), len(slices) // 4)
    order = np.random.default_rng([SEED, 1]).permutation(len(few))[:wanted]
    return [few[place] for place in order]


def _phases(cases: Iterable[str], dev: set[str]) -> dict[str, Phase]:
    """The phases of each subset, as frequent as the phantom draws them, in a drawn order."""
    phases: dict[str, Phase] = {}
    for index, subset in enumerate((dev, set(cases) - dev)):
        names = sorted(subset)
        edges = np.rint(np.cumsum((0.0, *PHASE_WEIGHTS)) * len(names)).astype(int)
        dealt = [p for p, a, b in zip(PHASES, edges, edges[1:], strict=False) for _ in range(b - a)]
        order = np.random.default_rng([SEED, 2, index]).permutation(len(names))
        phases.update({names[place]: phase for place, phase in zip(order, dealt, strict=True)})
    return phases


if __name__ == "__main__":
    sys.exit(main())
