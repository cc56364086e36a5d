"""Makes a checkpoint of a bundle, so that a training can begin from its weights.

``python -m kits_export.checkpoint_from_bundle -o start.safetensors``, then
``kits-train SYSTEM --start start.safetensors``; without ``--bundle`` from the one in the package.

An export folds batch normalisations into the convolutions before them, and what they once held is
gone. So each is given the mean and the spread of what its convolution makes of some scans, and a
scale and a shift that undo them: in evaluation the net computes what the bundle does, and in
training what it normalises is near what it was. Heads that only a training needs are drawn anew.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from kits_export.masks import VerifyCase, cases_from, phantom_cases
from kits_runtime.bundle import Bundle, open_bundle
from kits_runtime.cascade import run_cascade
from kits_runtime.clock import Clock
from kits_runtime.engines import EngineOptions, choose_backend, open_engine
from kits_runtime.engines.protocol import net_spec_from_manifest
from kits_runtime.errors import BundleError, KitsError, ParityError
from kits_runtime.infer import RunNet
from kits_runtime.segmenter import default_bundle_path
from kits_trt.nets import SegmentationNet, build_net
from kits_trt.train.checkpoint import PRESETS, write_system_checkpoint
from kits_trt.train.norms import norms_of
from kits_trt.train.provenance import PHANTOM_LICENCE

logger = logging.getLogger(__name__)

Floats = NDArray[np.float32]

MOST_APART = 1e-3
"""Float32 sums in another order; scores lie between 0 and 1."""
_PHANTOMS = (5, 9)  # of those that verify an export, two with tumours
_MOST_WINDOWS, _MOST_VOXELS = 96, 1 << 22


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m kits_export.checkpoint_from_bundle")
    add = parser.add_argument
    add("--bundle", type=Path, default=default_bundle_path(), help="default: the packaged one")
    add("--cases", type=Path, help="scans that settle the norms (default: two built-in phantoms)")
    add("-o", "--out", type=Path, required=True, help="the checkpoint, a .safetensors file")
    options = parser.parse_args(argv)
    try:
        cases = cases_from(options.cases) if options.cases else phantom_cases(_PHANTOMS)
        apart = write_checkpoint_of(open_bundle(options.bundle), options.out, cases=cases)
    except KitsError as error:
        logger.error("%s", error)
        return error.exit_code
    for name, most in apart.items():
        logger.info("%s: scores at most %.2g from the bundle's", name, most)
    logger.info("%s", options.out)
    return 0


def write_checkpoint_of(
    bundle: Bundle, out: Path, *, cases: Sequence[VerifyCase]
) -> dict[str, float]:
    """Writes the checkpoint and tells how far each net's scores lie from the bundle's.

    Raises:
        BundleError: A weight is not where the net of that name has one.
        ParityError: A net computes something else than the bundle.
    """
    manifest = bundle.manifest
    preset = next(known for known in PRESETS if known == manifest.preset)
    models = {name: onnx.load_from_string(bundle.net_bytes(name, "fp32")) for name in manifest.nets}
    nets: dict[str, SegmentationNet] = {}
    apart: dict[str, float] = {}
    with ExitStack() as stack:
        engines = {name: stack.enter_context(_reference(bundle, name)) for name in manifest.nets}
        seen = _windows_of(bundle, cases, engines)
        for name, model in models.items():
            net = build_net(name, preset, classes=manifest.nets[name].out_channels)
            patches = torch.from_numpy(seen[name])
            take_weights(net, model, patches[:1], where=f"{bundle.path}: {name}")
            undo_norms(net.eval(), patches)
            expected = engines[name](seen[name])
            apart[name] = _require_same(net, patches, expected, where=f"{bundle.path}: {name}")
            nets[name] = net
    write_system_checkpoint(out, nets, _facts_of(bundle))
    return apart


def take_weights(
    net: SegmentationNet, model: onnx.ModelProto, patches: Tensor, *, where: str
) -> None:
    """Gives a net the weights of its graph; norms pass on what they get, plus the folded shift.

    Raises:
        BundleError: A weight has another shape than the net's, or slopes are more or fewer.
    """
    weights = _weights_in(model)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if name in weights:
                _copy(value, weights[name], f"{where}: {name}")
        for convolution, norm in _normed_convolutions(net):
            _pass_on(norm, weights.get(f"{convolution}.weight_bias"), f"{where}: {convolution}")
        slopes = [weights[node.input[1]] for node in model.graph.node if node.op_type == "PRelu"]
        called = _called(net, nn.PReLU, patches)
        if len(called) != len(slopes):
            raise BundleError(
                f"{where}: found {len(slopes)} PReLU in the graph, expected {len(called)}; export "
                "the bundle again"
            )
        for module, slope in zip(called, slopes, strict=True):
            _copy(module.weight, slope.reshape(-1), f"{where}: a slope")


def _normed_convolutions(net: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    """The name of each convolution that a norm follows, and the norm."""
    for key, among in net.named_modules():
        if isinstance(among, nn.Sequential):
            for (name, _), (_, norm) in pairwise(among.named_children()):
                if isinstance(norm, _BatchNorm):
                    yield f"{key}.{name}", norm


def _pass_on(norm: _BatchNorm, shift: Floats | None, where: str) -> None:
    """Lets a norm add a shift and do nothing else."""
    with torch.no_grad():
        norm.bias.zero_()
        if shift is not None:
            _copy(norm.bias, shift, where)
    nothing = torch.zeros(norm.num_features)
    _undo(norm, nothing, nothing + (1 - norm.eps))


def _undo(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Gives a norm statistics, and what undoes them beside the shift that it has."""
    norm.load_state_dict(
        {
            "running_mean": mean,
            "running_var": variance,
            "weight": torch.sqrt(variance + norm.eps),
            "bias": norm.bias.detach() + mean,
            "num_batches_tracked": torch.tensor(1),
        }
    )


def undo_norms(net: nn.Module, patches: Tensor) -> None:
    """Gives each norm that passes on the statistics of what it gets; outputs stay."""
    found: dict[_BatchNorm, tuple[Tensor, Tensor]] = {}

    def measure(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
        found[norm] = (inputs[0].mean(axes), inputs[0].var(axes, unbiased=False))

    norms = norms_of(net)
    with _hooks([norm.register_forward_pre_hook(measure) for norm in norms]), torch.no_grad():
        net(patches)
    for norm, (mean, variance) in found.items():
        _undo(norm, mean, variance)


def _copy(value: Tensor, found: Floats, where: str) -> None:
    if tuple(value.shape) != found.shape:
        raise BundleError(
            f"{where}: found shape {found.shape}, expected {tuple(value.shape)}; the bundle was "
            "exported from another net; take the release that made it"
        )
    value.copy_(torch.from_numpy(found))


def _weights_in(model: onnx.ModelProto) -> dict[str, Floats]:
    """The graph's numbers by name; those that are stored as halves under the name they get."""
    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    widened = {
        node.output[0]: stored[node.input[0]]
        for node in model.graph.node
        if node.op_type == "Cast" and node.input[0] in stored
    }
    return {
        name: np.array(values, np.float32)
        for name, values in {**stored, **widened}.items()
        if values.dtype in (np.float16, np.float32)
    }


def _called(net: nn.Module, kind: type[nn.PReLU], patches: Tensor) -> list[nn.PReLU]:
    """The modules of a kind in the order in which a net calls them, which is the graph's."""
    called: list[nn.PReLU] = []

    def tell(module: nn.Module, _inputs: object) -> None:
        assert isinstance(module, nn.PReLU)
        called.append(module)

    modules = [module for module in net.modules() if isinstance(module, kind)]
    with _hooks([module.register_forward_pre_hook(tell) for module in modules]):
        net.eval()(patches)
    return called


@contextmanager
def _hooks(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _reference(bundle: Bundle, name: str) -> Iterator[RunNet]:
    spec = net_spec_from_manifest(name, bundle.manifest.nets[name])
    choice = choose_backend("ort-cpu", device="cpu")
    model = bundle.net_bytes(name, "fp32")
    with open_engine(model, spec, backend=choice, options=EngineOptions()) as engine:
        yield engine.run


def _windows_of(
    bundle: Bundle, cases: Sequence[VerifyCase], nets: Mapping[str, RunNet]
) -> dict[str, Floats]:
    """Windows of each net as the pipeline cuts them from these scans, evenly drawn."""
    kept: dict[str, list[Floats]] = {name: [] for name in nets}

    def kept_of(name: str) -> RunNet:
        def run(patches: Floats) -> Floats:
            kept[name].extend(patch.copy() for patch in patches)
            return nets[name](patches)

        return run

    watched = {name: kept_of(name) for name in nets}
    for case in cases:
        run_cascade(case.volume, bundle.manifest, nets=watched, clock=Clock())
    unseen = sorted(name for name, windows in kept.items() if not windows)
    if unseen:
        raise BundleError(
            f"{bundle.path}: found no window of {unseen[0]} in {len(cases)} scans, expected some; "
            "give scans that show kidneys with --cases"
        )
    return {name: np.stack(_some(windows)) for name, windows in kept.items()}


def _some(windows: Sequence[Floats]) -> list[Floats]:
    voxels = windows[0].size
    most = max(2, min(_MOST_WINDOWS, _MOST_VOXELS // voxels))
    places = np.linspace(0, len(windows) - 1, min(most, len(windows)))
    return [windows[round(place)] for place in places.tolist()]


def _require_same(net: SegmentationNet, patches: Tensor, expected: Floats, *, where: str) -> float:
    with torch.inference_mode():
        apart = float(np.abs(net(patches).numpy() - expected).max())
    if not apart <= MOST_APART:
        raise ParityError(
            f"{where}: found scores {apart:.3g} from the bundle's, expected at most {MOST_APART}; "
            "the graph is not that of the net of this name"
        )
    return apart


def _facts_of(bundle: Bundle) -> dict[str, object]:
    manifest = bundle.manifest
    licence = manifest.card.licence
    return {
        "system": manifest.system,
        "preset": manifest.preset,
        "labels": list(manifest.labels),
        "licence": licence,
        "commit": manifest.provenance.commit,
        "data": {
            "description": manifest.card.training_data,
            "real_anatomy": licence != PHANTOM_LICENCE,
        },
        "metrics": _metrics_of(bundle),
        "bundle_sha256": bundle.sha256,
    }


def _metrics_of(bundle: Bundle) -> dict[str, dict[str, float]]:
    """The card's metrics by net; those of the whole system are not of any net's."""
    metrics: dict[str, dict[str, float]] = {name: {} for name in bundle.manifest.nets}
    for full, value in bundle.manifest.card.metrics.items():
        name, _, metric = full.partition(": ")
        if name in metrics:
            metrics[name][metric] = value
    return metrics


if __name__ == "__main__":
    sys.exit(main())
