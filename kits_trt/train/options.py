"""What ``kits-train`` can be asked on its command line."""

import argparse
import re
from pathlib import Path

from kits_runtime.cli.telling import add_telling
from kits_trt.systems import SYSTEMS

NAME = "kits-train"


def parser_of_command() -> argparse.ArgumentParser:
    """The parser of ``kits-train``."""
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Trains the nets of a published system, as its paper says, and validates the "
        "whole. Leaves last.safetensors, best.safetensors, run.json, metrics.csv and curves.png. "
        "Several processes share each batch when torchrun starts them: torchrun --nproc-per-node N "
        "--no-python -- kits-train SYSTEM ...; without '--' it takes --start for its own.",
    )
    parser.add_argument(
        "system", choices=sorted(SYSTEMS), metavar="SYSTEM", help=", ".join(SYSTEMS)
    )
    _add_data(parser.add_argument_group("data"))
    _add_course(parser.add_argument_group("training"))
    _add_machine(parser.add_argument_group("machine"))
    add_telling(parser)
    return parser


def _add_data(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="cases: KiTS or nnU-Net raw layout")
    add("--out", type=Path, metavar="RUN", help="folder of the run; made if missing")
    add(
        "--validation-data",
        type=Path,
        metavar="DIR",
        help="validate on these cases and learn from all of --data (default: the paper's split)",
    )
    add("--check-data", action="store_true", help="name bad cases and end")
    add(
        "--cyst",
        choices=("background", "kidney", "class"),
        default="kidney",
        help="what cysts (label 3) count as (default: %(default)s)",
    )
    add("--cache", type=Path, metavar="DIR", help="prepared cases (default: RUN/cache)")


def _add_course(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--preset", choices=("paper", "small"), default="paper", help="(default: %(default)s)")
    add("--net", metavar="NAME", help="train this net alone (default: all, in order)")
    add("--resume", action="store_true", help="go on with what is in RUN")
    add("--start", type=Path, metavar="CKPT", help="begin from the weights of a checkpoint")
    add("--seed", type=_from_zero, default=0, help="(default: %(default)s)")
    add("--epochs", type=_count, help="of each net (default: the recipe's)")
    add("--max-steps", type=_count, metavar="N", help="of each net")
    add("--minutes", type=_minutes, help="of each net; the learning rate follows the clock")
    add("--batch-size", type=_count, metavar="N", help="(default: the recipe's)")
    add("--learning-rate", type=_rate, metavar="LR", help="at its highest (default: the recipe's)")
    add("--validate-every", type=_count, default=1, metavar="N", help="epochs (default: 1)")


def _add_machine(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--device", type=_device, default="auto", help="auto, cpu or cuda[:N] (default: auto)")
    add("--amp", action="store_true", help="bfloat16 on a CPU, float16 on a GPU where safe")
    add("--workers", type=_from_zero, default=1, help="threads that draw samples (default: 1)")
    add("--threads", type=_count, help="processors for torch (default: its own choice)")


def _count(text: str) -> int:
    return _whole(text, lowest=1)


def _from_zero(text: str) -> int:
    return _whole(text, lowest=0)


def _whole(text: str, *, lowest: int) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < lowest:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a whole number from {lowest}")
    return int(text)


def _minutes(text: str) -> float:
    return _above_0(text, below=1e6, expected="a number of minutes above 0")


def _rate(text: str) -> float:
    return _above_0(text, below=1.0, expected="a number between 0 and 1")


def _above_0(text: str, *, below: float, expected: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < below:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected {expected}")
    return number


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"found {text!r}; expected auto, cpu, cuda or cuda:N")
    return text
