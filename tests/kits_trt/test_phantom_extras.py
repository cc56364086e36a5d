"""What only some scans have: metal, a breath, arms, single and low kidneys."""

from dataclasses import replace

import numpy as np
import pytest

from kits_trt.phantom import draw_patient, render
from kits_trt.phantom.fields import Axes
from kits_trt.phantom.model import Breath, Metal, Organ
from kits_trt.phantom.painting import outline_distance, sinus_distance
from kits_trt.phantom.rendering import Grid
from kits_trt.phantom.shapes import Ellipsoid
from kits_trt.phantom.space import Space

GRID = {"shape": (60, 72, 80), "spacing_mm": (5.0, 5.0, 5.0)}


def points_at(space: Space, place: np.ndarray) -> np.ndarray:
    z, y, x = (np.array([value], np.float32) for value in place)
    axes: Axes = (z, y, x)
    return space.block(axes).points[:, 0, 0, 0]


@pytest.mark.parametrize("case", range(4))
def test_located_point_is_carried_back_to_where_it_came_from(case: int) -> None:
    space = Space.of(draw_patient(3, case))
    goal = np.array([40.0, -35.0, 60.0])
    np.testing.assert_allclose(points_at(space, space.locate((40.0, -35.0, 60.0))), goal, atol=0.3)


def test_box_of_a_shape_holds_every_point_that_lies_in_it() -> None:
    patient = draw_patient(3, 1)
    space = Space.of(patient)
    axes = tuple(np.arange(-150, 151, 6, dtype=np.float32) for _ in range(3))
    grid: Axes = (axes[0], axes[1], axes[2])
    block = space.block(grid)
    checked = 0
    for organ in patient.organs[::7]:
        inside = organ.shape.signed_distance(block) < 0
        if not inside.any():
            continue
        checked += 1
        where = space.slices(organ.shape.bounds(), grid, 0.0)
        assert where is not None
        outside = inside.copy()
        outside[where] = False
        assert not outside.any(), organ.name
    assert checked > 20


def test_metal_is_bright_and_throws_rays_through_its_slice_alone() -> None:
    patient = draw_patient(3, 2)
    rays = np.where(np.arange(256) % 128 < 64, 1.0, -1.0).astype(np.float32)
    metal = Metal(place=(20.0, 0.0, 0.0), radius_mm=4.0, length_mm=20.0, streak_hu=200.0, rays=rays)
    plain = replace(patient, metal=None)
    before = render(plain, **GRID)[0].astype(int)
    after = render(replace(plain, metal=metal), **GRID)[0].astype(int)
    change = np.abs(after - before).reshape(60, -1).max(axis=1)
    lit = np.flatnonzero(change > 20)
    height = (lit - 29.5) * 5.0 + patient.centre_mm[0]
    assert len(lit) >= 1
    assert np.abs(height - 20.0).max() < 25
    assert change[:10].max() == 0


def test_breath_shifts_what_lies_below_and_nothing_above() -> None:
    patient = replace(draw_patient(3, 4), breath=None)
    shifted = replace(patient, breath=Breath(below_mm=0.0, shift_mm=(0.0, 6.0, 0.0)))
    first, second = render(patient, **GRID)[1], render(shifted, **GRID)[1]
    heights = (np.arange(60) - 29.5) * 5.0 + patient.centre_mm[0]
    np.testing.assert_array_equal(first[heights < 0], second[heights < 0])
    below = heights > 5
    moved = [float(np.argwhere(labels[below] > 0)[:, 1].mean()) for labels in (first, second)]
    # Anatomy coordinates grow by 6 mm, so the picture moves 6 mm (1.2 voxels) forwards.
    assert moved[0] - moved[1] == pytest.approx(1.2, abs=0.35)


def test_many_patients_show_every_variant_and_most_have_a_tumour() -> None:
    patients = [draw_patient(7, case) for case in range(120)]
    kidneys = [len(patient.kidneys) for patient in patients]
    tumours = [any(x.label == 2 for k in p.kidneys for x in k.lesions) for p in patients]
    cysts = [any("cyst" in x.kind for k in p.kidneys for x in k.lesions) for p in patients]
    low = [any(k.centre[0] > 70 for k in p.kidneys) for p in patients]
    arms = [any(organ.name == "arm" for organ in p.organs) for p in patients]
    assert set(kidneys) == {1, 2}
    assert kidneys.count(1) < 15
    assert 0.6 < np.mean(tumours) < 0.9
    assert 0.3 < np.mean(cysts) < 0.9
    for rare in (
        low,
        arms,
        [p.metal is not None for p in patients],
        [bool(p.breath) for p in patients],
    ):
        assert 0 < np.mean(rare) < 0.2
    assert {patient.phase for patient in patients} == {
        "unenhanced",
        "arterial",
        "nephrographic",
        "excretory",
    }


def test_kidneys_have_a_sinus_full_of_fat_or_clefts_of_it_or_none() -> None:
    kidneys = [kidney for case in range(120) for kidney in draw_patient(7, case).kidneys]
    pieces = np.array([len(kidney.sinus) for kidney in kidneys])
    for kind, share in ((pieces == 1, 0.5), (pieces > 1, 0.3), (pieces == 0, 0.2)):
        assert np.mean(kind) == pytest.approx(share, abs=0.08)
    # Calyces are seen in every kidney with a full sinus, and in most of the others.
    seen = np.array([bool(kidney.calyces) for kidney in kidneys])
    assert seen[pieces == 1].all()
    assert 0.5 < np.mean(seen[pieces != 1]) < 0.8


def test_cortex_lies_along_the_sinus_of_a_lined_kidney_alone() -> None:
    patient = draw_patient(7, 4, phase="arterial")
    full = next(kidney for kidney in patient.kidneys if len(kidney.sinus) == 1)
    means = {}
    for lined in (True, False):
        bare = replace(full, lined=lined, inner=(), lesions=(), calyces=())
        alone = replace(patient, kidneys=(bare,), organs=(), metal=None)
        z, y, x = full.centre
        grid = Grid(shape=(45, 45, 45), spacing_mm=(2.0, 2.0, 2.0), centre_mm=(z, y, x))
        hu, _ = render(alone, shape=grid.shape, spacing_mm=grid.spacing_mm, centre_mm=(z, y, x))
        block = Space.of(alone).block(grid.axes())
        depth = -outline_distance(full, alone, block)
        off_sinus = sinus_distance(full, block)
        rim = (depth > full.cortex_mm + 4) & (off_sinus > 1.5) & (off_sinus < 3.5)
        assert rim.sum() > 50
        means[lined] = float(hu[rim].mean())
    cortex, medulla = patient.hu["cortex"], patient.hu["medulla"]
    assert means[True] - means[False] > 0.3 * (cortex - medulla) > 10


def test_gas_lies_in_front_of_its_level_inside_the_wall() -> None:
    patient = draw_patient(3, 5)
    ball = Ellipsoid(centre=(0.0, -40.0, 0.0), semi_mm=(30.0, 30.0, 30.0))
    parts = (
        Organ(shape=ball, hu=80.0, texture_hu=0.0),
        Organ(shape=ball, hu=20.0, texture_hu=0.0, inset_mm=8.0),
        Organ(shape=ball, hu=-900.0, texture_hu=0.0, inset_mm=8.0, level_y_mm=-45.0),
    )
    alone = replace(patient, organs=parts, kidneys=(), metal=None, breath=None)
    z, y, x = Space.of(alone).locate((0.0, -40.0, 0.0)).tolist()
    hu, labels = render(alone, shape=(1, 61, 3), spacing_mm=(1.0, 1.0, 1.0), centre_mm=(z, y, x))
    line = hu[0, :, 1]
    # Along y from 30 mm before the middle: wall, gas to -5 mm, filling, wall.
    means = [float(line[part].mean()) for part in (slice(3, 6), slice(10, 23), slice(28, 50))]
    assert means[0] == pytest.approx(80, abs=45)
    assert means[1] == pytest.approx(-900, abs=60)
    assert means[2] == pytest.approx(20, abs=45)
    assert not labels.any()
