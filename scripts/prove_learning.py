"""Shows that a system learns: trains it briefly on phantoms and writes down what it reached.

``python scripts/prove_learning.py unet3d --seed 0``

Phantoms are made once (120 to learn from, 12 to validate on), shared by all systems and seeds. The
record goes to ``benchmarks/results/learning/<system>-seed<seed>.json``, the curves beside it. It
ends with code 6 where the system's Dice of kidney with tumour is not 0.5 above that of the best
mask that never looks at the scan.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from kits_bench.machine import machine_facts
from kits_trt.phantom.cli import main as make_phantoms
from kits_trt.systems import SYSTEMS
from kits_trt.train.cli import main as train

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "learning"
NEEDED_ABOVE_FIXED = 0.5
SETS = {"teach": (120, 0), "validate": (12, 1_000_000)}
# Steps of each net, five to twenty-five minutes of one core in all; who finds kidneys has most.
# The same number on any machine, so that a record can be made again.
STEPS = {
    "cascaded-vnet": {"roi-vnet": 600, "kidney-vnet": 1100, "tumour-vnet": 500},
    "resunet-msvnet": {"resunet3d": 600, "msvnet": 100},
    "unet3d": {"unet": 2000},
    "multistage25d": {"res-unet-1": 400, "res-unet-2": 400, "res-net": 80},
    "unet2d-pair": {"kidney-unet": 1200, "tumour-unet": 300},
}
MOST_EPOCHS = 1000  # more than any of them has: steps end a training


def main() -> int:
    """Train one system with one seed; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=sorted(SYSTEMS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "learning")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-amp", action="store_true")
    options = parser.parse_args()
    for name, (count, seed) in SETS.items():
        if not (options.work / name / f"case_{count - 1:05d}").is_dir():
            arguments = [str(options.work / name), "--cases", str(count), "--seed", str(seed)]
            make_phantoms([*arguments, "--for-training", "192", "--overwrite"])
    run = options.work / f"{options.system}-seed{options.seed}"
    shutil.rmtree(run, ignore_errors=True)
    begun = time.monotonic()
    for net, steps in STEPS[options.system].items():
        code = train(_arguments(options, run, net, steps))
        if code:
            return code
    return _recorded(options, run, seconds=time.monotonic() - begun)


def _arguments(options: argparse.Namespace, run: Path, net: str, steps: int) -> list[str]:
    plain = {
        "--data": options.work / "teach",
        "--validation-data": options.work / "validate",
        "--cache": options.work / "cache",
        "--out": run,
        "--preset": "small",
        "--net": net,
        "--epochs": MOST_EPOCHS,
        "--max-steps": steps,
        "--seed": options.seed,
        "--threads": options.threads,
        "--validate-every": 5,
    }
    pairs = [text for name, value in plain.items() for text in (name, str(value))]
    return [options.system, *pairs, *([] if options.no_amp else ["--amp"])]


def _recorded(options: argparse.Namespace, run: Path, *, seconds: float) -> int:
    record = json.loads((run / "run.json").read_text())
    reached = record["system_dice"] - record["fixed_mask_dice"]
    name = f"{options.system}-seed{options.seed}"
    options.results.mkdir(parents=True, exist_ok=True)
    told = {
        **record,
        "kind": "learning",
        "dice_above_fixed_mask": reached,
        "needed": NEEDED_ABOVE_FIXED,
        "seconds": round(seconds, 1),  # of all nets; the run's own are those of the last one
        "machine": machine_facts(),
    }
    (options.results / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n")
    shutil.copyfile(run / "curves.png", options.results / f"{name}.png")
    shutil.copyfile(run / "metrics.csv", options.results / f"{name}.csv")
    print(f"{name}: {record['system_dice']:.4f}, {reached:.4f} above the best fixed mask")
    return 0 if reached >= NEEDED_ABOVE_FIXED else 6


if __name__ == "__main__":
    sys.exit(main())
