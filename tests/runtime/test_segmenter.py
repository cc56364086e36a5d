import hashlib
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import SHAPE, phantom

from kits_runtime import (
    BackendUnavailableError,
    BundleError,
    EngineError,
    EngineOptions,
    Segmentation,
    Segmenter,
    volume_from_array,
)
from kits_runtime.engines import choose
from kits_runtime.qc import NOTHING_FOUND

ONE_THREAD = EngineOptions(threads=1)
VOXEL_ML = 5 * 4 * 4 / 1000


def opened(bundle: Path, backend: str = "ort-cpu") -> Segmenter:
    return Segmenter.from_bundle(bundle, backend=backend, options=ONE_THREAD)


def dice(found: np.ndarray, true: np.ndarray) -> float:
    return float(2 * np.count_nonzero(found & true) / (found.sum() + true.sum()))


@pytest.fixture(scope="module")
def plain(one_stage: Path) -> Iterator[Segmenter]:
    with opened(one_stage) as segmenter:
        yield segmenter


@pytest.fixture(scope="module")
def result(plain: Segmenter) -> Segmentation:
    made = phantom()
    return plain.segment(volume_from_array(made.data, made.affine))


def test_brightness_on_the_scans_grid_gives_the_true_labels_voxel_by_voxel(
    result: Segmentation,
) -> None:
    np.testing.assert_array_equal(result.labels, phantom().labels)


def test_a_cascade_over_two_grids_finds_both_kidneys_and_the_tumour(two_stages: Path) -> None:
    made = phantom()
    with opened(two_stages) as segmenter:
        labels = segmenter.segment(volume_from_array(made.data, made.affine)).labels
    # The kidneys come from a grid of half the resolution: the true surface is half a voxel off.
    assert dice(labels > 0, made.labels > 0) > 0.88
    assert dice(labels == 2, made.labels == 2) > 0.95


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_labels_come_back_arranged_as_the_scan_was_given(
    plain: Segmenter, axes: tuple[int, int, int]
) -> None:
    made = phantom()
    data = made.data.transpose(axes)[::-1]
    affine = made.affine[:, [*axes, 3]].copy()
    affine[:3, 3] += (data.shape[0] - 1) * affine[:3, 0]
    affine[:3, 0] *= -1
    found = plain.segment(volume_from_array(data, affine))
    np.testing.assert_array_equal(found.labels, made.labels.transpose(axes)[::-1])
    np.testing.assert_array_equal(found.model_labels, made.labels)


def test_the_scan_stays_as_it_was(plain: Segmenter) -> None:
    made = phantom()
    before = made.data.copy()
    plain.segment(volume_from_array(made.data, made.affine))
    np.testing.assert_array_equal(made.data, before)


def test_outside_the_reach_there_is_background_only(result: Segmentation) -> None:
    inside = np.zeros(SHAPE, np.bool_)
    inside[result.reach.slices] = True
    assert not result.model_labels[~inside].any()
    assert result.model_labels[inside].any()
    assert inside.sum() < inside.size / 2


def test_the_record_names_the_bundle_by_the_hash_of_its_manifest(
    result: Segmentation, one_stage: Path
) -> None:
    with zipfile.ZipFile(one_stage) as archive:
        expected = hashlib.sha256(archive.read("manifest.json")).hexdigest()
    assert result.record.bundle.sha256 == expected
    assert (result.record.bundle.system, result.record.bundle.preset) == ("tiny", "small")


def test_the_record_tells_of_the_backend_and_what_it_was_asked(result: Segmentation) -> None:
    backend = result.record.backend
    assert (backend.name, backend.precision, backend.threads) == ("ort-cpu", "fp32", 1)
    assert backend.reason == "asked for by name"
    assert result.record.windows == {"net": 3}  # 24 slices by eights, each as large as a slice
    assert result.record.scan_shape == SHAPE
    assert result.record.spacing_mm == pytest.approx((5, 4, 4))
    assert "onnxruntime" in result.record.versions
    assert result.record.warnings == ()


def test_windows_of_a_cascade_are_counted_net_by_net(two_stages: Path) -> None:
    made = phantom()
    with opened(two_stages) as segmenter:
        found = segmenter.segment(volume_from_array(made.data, made.affine))
    # 24 slices of 5 mm make 20 of 6 mm: windows of 16 start at 0 and 4. The 2.5D net is asked once
    # for each slice of a kidney, because a kidney with its margin fits into one window.
    kidney = found.model_labels > 0
    sides = (kidney[:, :, :24], kidney[:, :, 24:])
    slices = sum(int(side.any(axis=(1, 2)).sum()) for side in sides)
    assert found.record.windows == {"finder": 2, "slicer": slices}


def test_volumes_are_voxels_times_their_size(result: Segmentation) -> None:
    true = phantom().labels
    expected = {"kidney": (true == 1).sum() * VOXEL_ML, "tumour": (true == 2).sum() * VOXEL_ML}
    assert result.record.volumes_ml == pytest.approx(expected)


def test_every_millisecond_is_counted_once(two_stages: Path) -> None:
    made = phantom()
    shares = []
    with opened(two_stages) as segmenter:
        for _ in range(5):  # a busy machine may stop the program between two phases
            record = segmenter.segment(volume_from_array(made.data, made.affine)).record
            shares.append(sum(record.stage_ms.values()) / record.total_ms)
    assert max(shares) <= 1
    assert max(shares) > 0.8
    assert {"kidney.net", "tumour.net", "overlay"} <= set(record.stage_ms)


def test_an_empty_scan_is_all_background_and_says_so(plain: Segmenter) -> None:
    made = phantom()
    found = plain.segment(volume_from_array(np.full_like(made.data, -1000), made.affine))
    assert not found.labels.any()
    assert found.reach.empty
    assert found.record.volumes_ml == {"kidney": 0, "tumour": 0}
    assert found.record.warnings == (NOTHING_FOUND,)


def test_threads_that_segment_at_once_get_their_own_answers(plain: Segmenter) -> None:
    made = {side: phantom(tumour_on=side) for side in ("right", "left")}
    found: dict[tuple[str, int], Segmentation] = {}

    def work(side: str) -> None:
        for turn in range(4):
            volume = volume_from_array(made[side].data, made[side].affine)  # type: ignore[index]
            found[side, turn] = plain.segment(volume)

    threads = [threading.Thread(target=work, args=(side,)) for side in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    for (side, _), own in found.items():
        np.testing.assert_array_equal(own.labels, made[side].labels)  # type: ignore[index]
        assert own.record.windows == {"net": 3}


def test_progress_names_the_stages_and_ends_at_one(two_stages: Path) -> None:
    made, told = phantom(), []
    with opened(two_stages) as segmenter:
        segmenter.segment(
            volume_from_array(made.data, made.affine),
            progress=lambda stage, share: told.append((stage, share)),
        )
    assert [stage for stage, share in told if share == 1] == ["kidney", "tumour"]
    for stage in ("kidney", "tumour"):
        shares = [share for name, share in told if name == stage]
        assert shares == sorted(shares)


def test_both_backends_give_the_same_labels(two_stages: Path) -> None:
    pytest.importorskip("openvino")
    made = phantom()
    found = []
    for backend in ("ort-cpu", "openvino"):
        with opened(two_stages, backend) as segmenter:
            found.append(segmenter.segment(volume_from_array(made.data, made.affine)))
    assert [each.record.backend.name for each in found] == ["ort-cpu", "openvino"]
    np.testing.assert_array_equal(found[0].labels, found[1].labels)


def test_a_closed_segmenter_refuses_to_segment(one_stage: Path) -> None:
    made = phantom()
    segmenter = opened(one_stage)
    segmenter.close()
    segmenter.close()
    with pytest.raises(EngineError, match="closed"):
        segmenter.segment(volume_from_array(made.data, made.affine))
    assert segmenter.backend.name == "ort-cpu"


def test_a_backend_asked_for_by_name_that_cannot_run_is_an_error(
    one_stage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        BackendUnavailableError, match=r"openvino is not installed.*kits-trt\[openvino"
    ):
        Segmenter.from_bundle(one_stage, backend="openvino")


def test_auto_says_which_better_backend_was_passed_over(
    one_stage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for row in choose.BACKENDS if row.name == "ort-cpu"]
    missing = replace(rows[0], name="openvino", why_not=lambda: "not here")
    monkeypatch.setattr(choose, "BACKENDS", (missing, *rows))
    with Segmenter.from_bundle(one_stage, options=ONE_THREAD) as segmenter:
        assert segmenter.backend.name == "ort-cpu"
        assert segmenter.backend.rejected == (("openvino", "not here"),)


def test_a_damaged_net_opens_no_segmenter(one_stage: Path, tmp_path: Path) -> None:
    content = bytearray(one_stage.read_bytes())
    content[content.index(b"GreaterOrEqual")] ^= 1
    damaged = tmp_path / "damaged.kits"
    damaged.write_bytes(content)
    with pytest.raises(BundleError, match="damaged"):
        opened(damaged)
