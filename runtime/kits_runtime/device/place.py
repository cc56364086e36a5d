"""A device as the place where a scan is worked on."""

from collections.abc import Iterator
from dataclasses import dataclass

from kits_runtime.arrays import Arrays
from kits_runtime.device.labels import DeviceWayBack
from kits_runtime.device.plan import DevicePlan
from kits_runtime.device.region import Part, device_region
from kits_runtime.device.upload import Upload
from kits_runtime.device.windows import DeviceInput, device_slabs
from kits_runtime.grid import Box
from kits_runtime.infer import Slab
from kits_runtime.place import BoxRun, LabelsOf
from kits_runtime.volume import Volume


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OnDevice:
    """A device that a run may use: the arrays there, and how much of the run is done at once.

    ``upload`` has the scan, where it was uploaded before.
    """

    arrays: Arrays
    plan: DevicePlan
    upload: Upload | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DevicePlace:
    """A device with one scan; ``scan`` gives the voxels in a box of it, there."""

    arrays: Arrays
    plan: DevicePlan
    scan: Part

    def slabs(self, run: BoxRun) -> Iterator[Slab]:
        """See ``Place``."""
        with run.preparing():
            region = device_region(
                run.stage,
                (run.grid, run.box),
                outcomes=run.outcomes,
                scan=self.scan,
                scan_rows=self.plan.scan_rows,
                arrays=self.arrays,
            )
            air = region.air

        def between(first: int, last: int) -> object:
            with run.preparing():
                return region.between(first, last)

        given = DeviceInput(
            between=between,
            shape=run.box.shape,
            air=air,
            arrays=self.arrays,
            batch=self.plan.batch,
            kept=run.kept,
        )
        return device_slabs(given, run.stage, run.nets)

    def way_back(self, labels: LabelsOf) -> DeviceWayBack:
        """See ``Place``."""
        return DeviceWayBack(labels, arrays=self.arrays, rows_at_once=self.plan.rows_at_once)


def place_on(device: OnDevice, volume: Volume) -> DevicePlace:
    """Puts the scan on the device, unless it is there already.

    Where the plan has no room for all of it, each part comes when it is asked for, and what two
    windows share is uploaded twice.
    """
    data, put = volume.data, device.arrays.put

    def part_anew(box: Box) -> object:
        return put(data[box.slices])

    if not device.plan.whole_scan:
        return DevicePlace(arrays=device.arrays, plan=device.plan, scan=part_anew)
    if device.upload is not None:
        there = device.upload.scan(device.arrays, volume)
    else:  # as it lies in memory, which takes no copy here
        arrangement = volume.orientation
        there = arrangement.to_model(put(arrangement.to_source(data)))

    def part(box: Box) -> object:
        return there[box.slices]

    return DevicePlace(arrays=device.arrays, plan=device.plan, scan=part)
