"""Batches: repeatable, aligned, balanced; validation scored by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from kits_trt.nets import SegmentationNet
from kits_trt.train.grids import Sample
from kits_trt.train.patches import kidney_batch, slice_stack, tumour_batch
from kits_trt.train.phantom_cache import Case
from kits_trt.train.validation import dice, kidney_dices, tumour_dices


def make_case(slices: int = 80, *, tumour_hu: int = 60) -> Case:
    """Return a case of bright cuboids: kidneys of 200 HU, in the first a tumour."""
    labels = np.zeros((slices, 128, 128), np.uint8)
    labels[20:50, 50:80, 20:50] = 1
    labels[20:50, 50:80, 80:110] = 1
    block_labels = np.zeros((38, 128, 128), np.uint8)
    block_labels[4:34, 40:90, 40:90] = 1
    healthy = block_labels.copy()
    block_labels[10:20, 50:70, 50:70] = 2
    hu_of = np.array([-100, 200, tumour_hu], np.int16)
    return Case(
        index=0,
        whole=Sample(hu=hu_of[labels], labels=labels),
        kidneys=(
            Sample(hu=hu_of[block_labels], labels=block_labels),
            Sample(hu=hu_of[healthy], labels=healthy),
        ),
    )


class Bright(SegmentationNet):
    """Calls foreground what is brighter than one half in the last channel but two."""

    def final_logits(self, patches: Tensor) -> Tensor:
        middle = patches[:, patches.shape[1] // 2]
        return torch.stack((torch.full_like(middle, 0.5), middle), dim=1)


class Dark(SegmentationNet):
    """Calls foreground what lies between -80 and -10 HU in the centre slice."""

    def final_logits(self, patches: Tensor) -> Tensor:
        middle = patches[:, patches.shape[1] // 2]
        inside = ((middle > -0.8) & (middle < -0.1)).float()
        return torch.stack((torch.full_like(middle, 0.5), inside), dim=1)


def test_batches_are_a_function_of_seed_and_step() -> None:
    cases = [make_case()]
    first = kidney_batch(cases, key=(1, 5), size=2, plane=(96, 96))
    again = kidney_batch(cases, key=(1, 5), size=2, plane=(96, 96))
    later = kidney_batch(cases, key=(1, 6), size=2, plane=(96, 96))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], later[0])
    stacks, repeated = (tumour_batch(cases, key=(2, 3), size=3) for _ in range(2))
    assert torch.equal(stacks[0], repeated[0])
    assert not torch.equal(stacks[0][0], stacks[0][2])


@pytest.mark.parametrize("slices", [20, 64, 80])
def test_kidney_windows_and_labels_show_the_same_place(slices: int) -> None:
    labels = np.zeros((slices, 128, 128), np.uint8)
    labels[5:15, 40:90, 40:90] = 2
    labels[:15, 10:30, 60:80] = 1
    case = Case(
        index=0, whole=Sample(hu=np.where(labels, 250, -150).astype(np.int16), labels=labels),
        kidneys=(),
    )  # fmt: skip
    patches, found = kidney_batch([case], key=(0, 0), size=4, plane=(128, 128))
    assert patches.shape == (4, 1, 64, 128, 128)
    assert int(found.max()) == 1
    bright = patches[:, 0] > 0.5
    assert int((bright & (found == 1)).sum()) > 0.95 * int((bright | (found == 1)).sum())


def test_every_second_stack_shows_a_tumour() -> None:
    patches, labels = tumour_batch([make_case()], key=(0, 0), size=8)
    assert patches.shape == (8, 5, 96, 96)
    shown = (labels == 1).flatten(1).any(dim=1)
    assert shown[::2].all()
    # -100 to 250 HU in units of 100 HU.
    assert float(patches.min()) >= -1.0
    assert float(patches.max()) <= 2.5


def test_a_tumours_label_lies_on_its_dark_pixels() -> None:
    patches, labels = tumour_batch([make_case(tumour_hu=20)], key=(0, 1), size=8)
    for patch, label in zip(patches[::2, 2], labels[::2], strict=True):
        kidney = patch > 0.225
        # Tumour pixels are darker than the kidney around them, by 70 HU at least.
        assert float(patch[label == 1].mean()) < float(patch[kidney].mean()) - 0.7


def test_stacks_at_the_blocks_end_are_filled_with_air() -> None:
    block = make_case().kidneys[0]
    hu, labels = slice_stack(block, 37)
    np.testing.assert_array_equal(hu[:3], block.hu[35:38])
    assert (hu[3:] == -1000).all()
    assert not labels[3:].any()


def test_dice_is_1_where_both_are_empty_and_counts_twice_the_overlap() -> None:
    empty = np.zeros(4, bool)
    assert dice(empty, empty) == 1.0
    assert dice(np.array([1, 1, 1, 0], bool), np.array([0, 1, 1, 1], bool)) == pytest.approx(4 / 6)
    assert dice(np.ones(4, bool), empty) == 0.0


@pytest.mark.parametrize("slices", [50, 64, 80, 130])
def test_validation_scores_every_slice_of_a_case_once(slices: int) -> None:
    case = make_case(slices)
    assert kidney_dices(Bright().eval(), [case]) == [1.0]
    missed = np.array(case.whole.labels)
    missed[-1] = 1
    wrong = Case(index=0, whole=Sample(hu=case.whole.hu, labels=missed), kidneys=())
    kidney, plane = int((case.whole.labels > 0).sum()), 128 * 128
    extra = plane - int((case.whole.labels[-1] > 0).sum())
    expected = 2 * kidney / (2 * kidney + extra)
    assert kidney_dices(Bright().eval(), [wrong]) == pytest.approx([expected])


def test_tumour_validation_scores_all_kidneys_of_a_case_together() -> None:
    case = make_case()
    # Slices 10..20 hold 2100 kidney pixels of 200 HU and 400 of 60: mean 177.6, shift -132.6. The
    # tumour falls to -72.6 HU; outside the kidney all lies at 0 HU.
    assert tumour_dices(Dark().eval(), [case]) == [1.0]
    # In the other kidney as many voxels are called tumour, as bright as the kidney: all missed.
    first, second = case.kidneys
    missed = Sample(hu=second.hu, labels=first.labels)
    both = Case(index=0, whole=case.whole, kidneys=(first, missed))
    assert tumour_dices(Dark().eval(), [both]) == pytest.approx([2 / 3])
