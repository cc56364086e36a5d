"""The state of a training in one file: weights, optimiser, and how far it has come.

It lies beside ``last.safetensors`` and holds the weights as well, so that what belongs together
appears in one rename. Tensors are ``net/<name>`` and ``optimiser/<parameter>.<name>``; the header
holds JSON under ``kits-training``. Nothing in it is executed when it is read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from kits_runtime.errors import BundleError, UsageError
from kits_runtime.files import replacing
from kits_trt.train.course import Course, course_from_plain
from kits_trt.train.optimise import load_optimiser, optimiser_tensors
from kits_trt.train.trainee import Trainee

FORMAT = 1
_HEADER_KEY = "kits-training"
_NET, _OPTIMISER = "net/", "optimiser/"

Settings = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """What was read: the course, the settings of the run, and tensors by their names."""

    course: Course
    settings: Settings
    scaler: Mapping[str, float]
    tensors: Mapping[str, Tensor]


def write_state(path: Path, trainee: Trainee, course: Course, settings: Settings) -> None:
    """Write the state; the file appears complete or not at all.

    ``settings`` are what must be the same for a training to go on from here, as JSON takes it.
    """
    net = {f"{_NET}{name}": value for name, value in trainee.net.state_dict().items()}
    own = {f"{_OPTIMISER}{k}": v for k, v in optimiser_tensors(trainee.optimiser).items()}
    tensors = {
        name: value.detach().cpu().contiguous().clone() for name, value in (net | own).items()
    }
    header = {
        "format": FORMAT,
        "course": course.to_plain(),
        "settings": dict(settings),
        "scaler": trainee.scaler.state_dict(),
    }
    text = json.dumps(header, sort_keys=True, allow_nan=False)
    with replacing(path) as stream:
        stream.write(save(tensors, metadata={_HEADER_KEY: text}))


def read_state(path: Path) -> TrainingState:
    """Return the state of a training.

    Raises:
        BundleError: The file is missing, damaged or no such state.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            header = json.loads((opened.metadata() or {})[_HEADER_KEY])
        if header["format"] != FORMAT:
            raise ValueError(f"format {header['format']!r}")
        return TrainingState(
            course=course_from_plain(header["course"]),
            settings=dict(header["settings"]),
            scaler=dict(header["scaler"]),
            tensors=load_file(path),
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BundleError(
            f"{path}: found {reason}, expected the state of a training in format {FORMAT}; "
            "begin again without --resume, or with --start last.safetensors"
        ) from error


def require_same_settings(found: Settings, expected: Settings, *, where: str) -> None:
    """Check that a training goes on as it was begun.

    Raises:
        UsageError: A setting differs; the message names it.
    """
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            raise UsageError(
                f"{where}: found a training with {name} {_short(found.get(name))}, expected "
                f"{_short(expected.get(name))} as asked for now; --resume goes on only with what "
                "it was begun with"
            )


def restore(trainee: Trainee, state: TrainingState, *, where: str) -> None:
    """Give a trainee the weights, the optimiser and the scaler of a state.

    Raises:
        BundleError: The tensors are not those of its net.
    """
    net = {k.removeprefix(_NET): v for k, v in state.tensors.items() if k.startswith(_NET)}
    own = {k.removeprefix(_OPTIMISER): v for k, v in state.tensors.items() if k not in net}
    own = {k: v for k, v in own.items() if not k.startswith(_NET)}
    try:
        trainee.net.load_state_dict(net)
        load_optimiser(trainee.optimiser, own)
    except (RuntimeError, ValueError, KeyError) as error:
        raise BundleError(
            f"{where}: found tensors that do not fit ({' '.join(str(error).split())[:160]}), "
            f"expected those of {state.course.net}; begin again without --resume"
        ) from error
    if state.scaler:
        trainee.scaler.load_state_dict(dict(state.scaler))


def _short(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 80 else f"{text[:80]}..."
