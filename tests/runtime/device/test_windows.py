"""Windows of a device's region give the slabs that the host's give."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from compiled_kernels import compiled_launch, compiler
from device_arrays import get, put, strict_arrays
from hypothesis import given
from hypothesis import strategies as st
from stages import Join, slices, stage, unhurried

from kits_runtime.arrays import Arrays
from kits_runtime.device.windows import DeviceInput, device_slabs
from kits_runtime.infer import Slab, WindowedInput, slabs
from kits_runtime.manifest.schema import Argmax, Patches, Stage

Floats = npt.NDArray[np.float32]
JOINS: list[Join] = ["keep_centre", "mean", "gaussian"]
joins = st.sampled_from(JOINS)


@pytest.fixture(
    scope="module",
    params=[
        "twins",
        pytest.param("sources", marks=pytest.mark.skipif(compiler() is None, reason="no compiler")),
    ],
)
def arrays(request: pytest.FixtureRequest) -> Arrays:
    return strict_arrays() if request.param == "twins" else strict_arrays(compiled_launch())


def net(patches: Floats) -> Floats:
    """Two classes that depend on the place in the window and on all channels."""
    ramp = np.linspace(0.5, 1.5, patches[0, 0].size, dtype=np.float32).reshape(patches.shape[2:])
    first = patches.sum(axis=1) * ramp
    return np.stack([first, patches[:, -1] - ramp], axis=1)


def other(patches: Floats) -> Floats:
    return np.stack([patches[:, 0] * 3, patches[:, -1] * patches[:, 0]], axis=1)


def whole(stream: Iterator[Slab], read: Any) -> list[tuple[int, Any]]:
    """Slices one by one; None is background."""
    found = []
    for slab in stream:
        scores = None if slab.scores is None else read(slab.scores)
        for z in range(slab.depth):
            found.append((len(found), None if scores is None else scores[:, z].copy()))
    return found


def check(asked: Stage, region: Floats, arrays: Arrays, batch: int, kept: Any = None) -> list[int]:
    """Both ways agree; returns how many windows the device's net was asked for at each time."""
    calls: list[int] = []

    def there(function: Any) -> Any:
        def ask(patches: Any) -> Any:
            calls.append(len(patches))
            return put(np.concatenate([function(one[None]) for one in get(patches)]))

        return ask

    def here(function: Any) -> Any:
        return lambda patches: np.concatenate([function(one[None]) for one in patches])

    on_device = put(region)
    given_there = DeviceInput(
        between=lambda first, last: on_device[first:last],
        shape=(region.shape[0], region.shape[1], region.shape[2]),
        air=-3.0,
        arrays=arrays,
        batch=batch,
        kept=kept,
    )
    functions = [net, other][: len(asked.nets)]
    found = whole(device_slabs(given_there, asked, [there(f) for f in functions]), get)
    given_here = WindowedInput(values=region, air=-3.0, kept=kept)
    expected = whole(slabs(given_here, asked, [here(f) for f in functions]), np.copy)
    assert len(found) == len(expected) == len(region)
    for (_, ours), (_, theirs) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    return calls


@unhurried
@given(
    size=st.tuples(*[st.integers(1, 11)] * 3),
    window=st.tuples(*[st.integers(2, 6)] * 3),
    join=joins,
    batch=st.integers(1, 5),
    nets=st.integers(1, 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_patches_in_batches_give_the_host_s_scores(
    arrays: Arrays,
    size: tuple[int, int, int],
    window: tuple[int, int, int],
    join: Join,
    batch: int,
    nets: int,
    seed: int,
) -> None:
    stride = tuple(max(1, n // 2) for n in window)
    windows = Patches(shape=window, stride=stride, join=join)  # type: ignore[arg-type]
    asked = stage(windows=windows, nets=("a", "b")[:nets])
    region = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    calls = check(asked, region, arrays, batch)
    assert max(calls) <= batch


@unhurried
@given(
    size=st.tuples(*[st.integers(1, 21), st.integers(1, 9), st.integers(1, 9)]),
    window=st.tuples(st.integers(2, 6), st.integers(2, 6)),
    depth=st.sampled_from([1, 3, 5]),
    join=joins,
    neighbours=st.sampled_from(["volume", "kept"]),
    combine=st.sampled_from(["mean", "vote"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_slices_give_the_host_s_scores(
    arrays: Arrays,
    size: tuple[int, int, int],
    window: tuple[int, int],
    depth: int,
    join: Join,
    neighbours: str,
    combine: str,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    windows = slices(window, depth=depth, stride=(2, 2), join=join, neighbours=neighbours)
    asked = stage(windows=windows, nets=("a", "b"), combine=combine)
    region = rng.standard_normal(size).astype(np.float32)
    kept = rng.random(size[0]) < rng.random()
    check(asked, region, arrays, 1, kept)
    check(asked, region, arrays, 1)


def test_windows_of_a_layer_go_to_the_net_together(arrays: Arrays) -> None:
    windows = Patches(shape=(4, 4, 4), stride=(4, 4, 4), join="keep_centre")
    asked = stage(windows=windows, decide=Argmax(labels=(0, 1)))
    region = np.random.default_rng(0).standard_normal((8, 8, 12)).astype(np.float32)
    assert check(asked, region, arrays, 4) == [4, 2, 4, 2]
