"""Arrays that behave as on a device: nothing reaches the host, or comes from it, unasked.

They are as strict as cupy and stricter where it would give wrong values: no mixing with the host's
arrays, no silent conversion, no copy between places that overlap.
"""

import operator
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from kits_runtime.arrays import HOST, Arrays
from kits_runtime.kernels.launching import Launch
from kits_runtime.kernels.twins import launch_twin


class Meter:
    """Counts the bytes of the arrays that are there, and the most that ever were together."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._known: set[int] = set()

    def notice(self, array: npt.NDArray[Any]) -> None:
        """Counts the memory that an array owns or is a view of, once and until it is gone."""
        while isinstance(array.base, np.ndarray):
            array = array.base
        if id(array) in self._known:
            return
        self._known.add(id(array))
        self.now += array.nbytes
        self.most = max(self.most, self.now)
        weakref.finalize(array, self._gone, id(array), array.nbytes).atexit = False

    def begin(self) -> None:
        """Forgets the most there was so far."""
        self.most = self.now

    def _gone(self, known: int, size: int) -> None:
        self._known.remove(known)
        self.now -= size


METER = Meter()


class DeviceArray:
    """Wraps an array of the host and lets nobody see it."""

    __array_ufunc__ = None  # numpy's arrays must not take over

    def __init__(self, hidden: npt.NDArray[Any]) -> None:
        self.hidden = hidden
        METER.notice(hidden)

    def __array__(self, *_args: Any, **_named: Any) -> Any:
        raise TypeError("a device's array was converted without being asked")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.hidden.shape

    @property
    def ndim(self) -> int:
        return self.hidden.ndim

    @property
    def size(self) -> int:
        return self.hidden.size

    @property
    def strides(self) -> tuple[int, ...]:
        return self.hidden.strides

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.hidden.dtype

    def __len__(self) -> int:
        return len(self.hidden)

    def __iter__(self) -> Iterator["DeviceArray"]:
        return (DeviceArray(self.hidden[index, ...]) for index in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.hidden)

    def __float__(self) -> float:
        return float(self.hidden)

    def __getitem__(self, key: Any) -> "DeviceArray":
        return DeviceArray(np.asarray(self.hidden[_index(key)]))

    def __setitem__(self, key: Any, value: Any) -> None:
        given = _bare(value)
        if isinstance(value, DeviceArray):
            assert not (isinstance(key, DeviceArray) and key.dtype == np.bool_)
            target = self.hidden[_index(key)]
            same = target.ctypes.data == given.ctypes.data and target.shape == given.shape
            assert same or not np.may_share_memory(target, given), "places that overlap"
        self.hidden[_index(key)] = given

    def astype(self, dtype: Any, *, order: Any = "K", copy: bool = True) -> "DeviceArray":
        return DeviceArray(self.hidden.astype(dtype, order=order, copy=copy))

    def copy(self) -> "DeviceArray":
        return DeviceArray(self.hidden.copy())

    def reshape(self, *shape: Any) -> "DeviceArray":
        return DeviceArray(self.hidden.reshape(*shape))

    def transpose(self, *axes: int) -> "DeviceArray":
        return DeviceArray(self.hidden.transpose(*axes))

    def argmax(self, *, axis: int) -> "DeviceArray":
        return DeviceArray(self.hidden.argmax(axis=axis))

    def sum(self, *, axis: int) -> "DeviceArray":
        return DeviceArray(np.asarray(self.hidden.sum(axis=axis)))

    def mean(self, *, dtype: Any) -> "DeviceArray":
        return DeviceArray(np.asarray(self.hidden.mean(dtype=dtype)))

    def all(self) -> "DeviceArray":
        return DeviceArray(np.asarray(self.hidden.all()))


def _bare(value: Any) -> Any:
    if isinstance(value, DeviceArray):
        return value.hidden
    if isinstance(value, np.ndarray | list):
        raise TypeError("a host's array met one of the device")
    return value


def _index(key: Any) -> Any:
    return tuple(map(_bare, key)) if isinstance(key, tuple) else _bare(key)


def _operator(name: str, *, swapped: bool = False, in_place: bool = False) -> Callable[..., Any]:
    work = getattr(operator, f"i{name}" if in_place else name)

    def apply(self: DeviceArray, other: Any) -> DeviceArray:
        pair = (_bare(other), self.hidden) if swapped else (self.hidden, _bare(other))
        result = np.asarray(work(*pair))
        return self if in_place else DeviceArray(result)

    return apply


for _name in ("add", "sub", "mul", "truediv"):
    setattr(DeviceArray, f"__{_name}__", _operator(_name))
    setattr(DeviceArray, f"__r{_name}__", _operator(_name, swapped=True))
    setattr(DeviceArray, f"__i{_name}__", _operator(_name, in_place=True))
for _name in ("eq", "gt", "ge", "lt", "le"):
    setattr(DeviceArray, f"__{_name}__", _operator(_name))


class _Module:
    """The functions that both numpy and cupy have, for these arrays alone."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = _SHARED[name]

        def call(*arguments: Any, **named: Any) -> DeviceArray:
            bare = [_bare_all(argument) for argument in arguments]
            result = function(*bare, **{key: _bare_all(value) for key, value in named.items()})
            return DeviceArray(np.asarray(result))

        return call


def _bare_all(value: Any) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], DeviceArray):
        return [_bare(each) for each in value]
    if isinstance(value, list):
        return value
    return _bare(value)


_SHARED = {
    name: getattr(np, name)
    for name in [
        "add",
        "ascontiguousarray",
        "broadcast_to",
        "clip",
        "concatenate",
        "empty",
        "full",
        "isfinite",
        "maximum",
        "multiply",
        "pad",
        "square",
        "stack",
        "subtract",
        "take",
        "where",
        "zeros",
    ]
}


def put(array: npt.NDArray[Any]) -> DeviceArray:
    assert isinstance(array, np.ndarray)
    return DeviceArray(array.copy())


def get(array: DeviceArray) -> npt.NDArray[Any]:
    return array.hidden.copy()


def bare_launch(launch: Launch) -> Launch:
    """A launch for these arrays from one for the host's."""

    def of_device(name: str, items: int, *arguments: Any) -> None:
        assert not any(isinstance(argument, np.ndarray) for argument in arguments)
        launch(name, items, *[_bare_kernel(argument) for argument in arguments])

    return of_device


def _bare_kernel(argument: Any) -> Any:
    if isinstance(argument, DeviceArray):
        return argument.hidden
    assert isinstance(argument, np.generic), "an argument without the type of the source"
    return argument


def strict_arrays(launch: Launch = launch_twin) -> Arrays:
    return Arrays(
        xp=_Module(),
        put=put,
        get=get,
        address=lambda array: int(array.hidden.ctypes.data),
        wait=lambda: None,
        at=lambda address, length, dtype: DeviceArray(HOST.at(address, length, dtype)),
        launch=bare_launch(launch),
    )
