"""The kernels' sources as one text, and how they must be compiled."""

from importlib import resources

_PARTS = ("shared", "resample", "windows", "labels")
KERNELS = ("resample_int16", "resample_float32", "gather", "blend", "labels_from_scores")

# A product fused with a sum is rounded once where numpy rounds twice; then a voxel could change
# sides. Division and denormals follow IEEE 754 without being asked.
OPTIONS = ("--fmad=false", "--std=c++17")


def source() -> str:
    """All kernels, in one text because they share what stands first."""
    folder = resources.files("kits_runtime") / "kernels"
    return "\n".join((folder / f"{part}.cu").read_text() for part in _PARTS)
