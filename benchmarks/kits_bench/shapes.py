"""The shapes that are measured: 25 published ones, and the spread of slice counts in KiTS."""

from dataclasses import dataclass

Triple = tuple[float, float, float]
Size = tuple[int, int, int]

PUBLISHED_MEAN_S = 17.52


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseShape:
    """The geometry of one case, and the published seconds where there are some."""

    name: str
    number: int
    size: Size
    spacing_mm: Triple
    published_s: float | None = None

    @property
    def slices(self) -> int:
        """How many slices it has."""
        return self.size[0]


# Case, slices, slice thickness, pixel, and the seconds that the paper printed; all are 512 x 512.
_PUBLISHED = (
    (36, 163, 3.0, 0.7988, 24.24), (37, 97, 5.0, 0.9375, 15.79), (39, 90, 5.0, 0.7031, 16.10),
    (41, 52, 3.0, 0.6777, 8.91), (42, 301, 1.0, 0.8594, 39.90), (43, 172, 3.0, 0.7380, 26.54),
    (44, 101, 5.0, 0.9668, 19.59), (45, 62, 3.0, 0.7410, 10.66), (46, 159, 3.0, 0.9766, 24.40),
    (47, 142, 5.0, 0.8555, 24.32), (48, 85, 5.0, 1.0410, 17.62), (50, 96, 2.5, 0.6895, 15.33),
    (51, 68, 2.5, 0.9609, 11.27), (54, 104, 5.0, 0.9766, 21.27), (55, 101, 5.0, 0.8789, 17.07),
    (56, 90, 5.0, 0.7812, 15.40), (57, 80, 3.0, 0.8223, 13.43), (58, 103, 5.0, 0.9512, 18.11),
    (60, 145, 3.0, 0.8340, 22.15), (61, 29, 5.0, 0.9766, 8.03), (62, 86, 5.0, 0.9766, 16.49),
    (64, 53, 5.0, 0.7031, 9.54), (65, 103, 2.5, 0.8203, 16.01), (69, 90, 5.0, 0.6836, 15.20),
    (70, 57, 5.0, 0.7324, 10.61),
)  # fmt: skip

PUBLISHED = tuple(
    CaseShape(
        name=f"case_{number:05d}",
        number=number,
        size=(slices, 512, 512),
        spacing_mm=(z_mm, xy_mm, xy_mm),
        published_s=seconds,
    )
    for number, slices, z_mm, xy_mm, seconds in _PUBLISHED
)

# From the fewest slices in KiTS to the most, at roughly even shares of its cases, with the one
# scan whose slices are not square.
_SPREAD = (
    ((29, 512, 512), 5.0, 0.98), ((64, 512, 512), 5.0, 0.78), ((97, 512, 512), 5.0, 0.80),
    ((122, 512, 512), 3.0, 0.78), ((190, 512, 512), 2.0, 0.78), ((252, 512, 796), 1.5, 0.60),
    ((261, 512, 512), 1.25, 0.80), ((434, 512, 512), 1.0, 0.74), ((602, 512, 512), 0.75, 0.74),
    ((1059, 512, 512), 0.5, 0.72),
)  # fmt: skip

KITS_LIKE = tuple(
    CaseShape(
        name=f"kits_{size[0]:04d}",
        number=1000 + place,
        size=size,
        spacing_mm=(z_mm, xy_mm, xy_mm),
    )
    for place, (size, z_mm, xy_mm) in enumerate(_SPREAD)
)

CASE_SETS = {"published": PUBLISHED, "kits-like": KITS_LIKE}
