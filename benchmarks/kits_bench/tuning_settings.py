"""What the C library is told in the process of a tuned contestant, before it starts."""

from collections.abc import Mapping

# Keep freed memory instead of returning it to the system after each layer: its pages would have to
# be touched anew, which takes longer than some of the layers.
MALLOC_SETTINGS: Mapping[str, str] = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    "MALLOC_TOP_PAD_": str(1 << 26),
}
