"""What the builder must know of an ONNX file, read and changed without the onnx package.

An ONNX file is one protobuf message. Its wire format is a row of fields, each a key (number and
type) and a value, so a file can be taken apart and put together again by its fields; all that is
not understood is copied. See the protocol buffers' encoding page and ``onnx.proto``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from kits_runtime.errors import EngineIncompatibleError

_FLOAT, _HALF = 1, 10  # TensorProto.DataType
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10


@dataclass(frozen=True, slots=True)
class _Field:
    """One field: its number, its value, and all of its bytes."""

    number: int
    value: int | memoryview
    raw: memoryview

    @property
    def message(self) -> memoryview:
        """The value of a field that holds bytes."""
        if isinstance(self.value, int):
            raise _damaged(f"a number in field {self.number} where bytes belong")
        return self.value

    @property
    def count(self) -> int:
        """The value of a field that holds a number."""
        if not isinstance(self.value, int):
            raise _damaged(f"bytes in field {self.number} where a number belongs")
        return self.value

    @property
    def text(self) -> str:
        """The value of a field that holds a name."""
        return bytes(self.message).decode(errors="replace")


def opset_of(onnx: bytes) -> int | None:
    """The version of ONNX's own operators that a file asks for, None where it asks for none.

    Raises:
        EngineIncompatibleError: the bytes are no ONNX file.
    """
    for field in _fields(memoryview(onnx)):
        if field.number == 8:  # ModelProto.opset_import
            parts = {part.number: part for part in _fields(field.message)}
            domain = parts[1].text if 1 in parts else ""
            if domain in ("", "ai.onnx") and 2 in parts:
                return parts[2].count
    return None


def widened(onnx: bytes) -> bytes:
    """The same net with weights that are stored as half and cast to float32 stored as float32.

    A constant half that a Cast widens becomes a float32 constant under the cast's name, and the
    cast goes. Builders want the weights of convolutions as constants, and not all of them fold the
    cast. A file without such casts comes back as it is.

    Raises:
        EngineIncompatibleError: the bytes are no ONNX file.
    """
    parts = []
    changed = False
    for field in _fields(memoryview(onnx)):
        graph = _widened_graph(field.message) if field.number == 7 else None  # ModelProto.graph
        changed |= graph is not None
        parts.append(field.raw if graph is None else _bytes_field(7, graph))
    return b"".join(parts) if changed else onnx


def _widened_graph(graph: memoryview) -> bytes | None:
    fields = list(_fields(graph))
    stored = {}  # name -> fields of the half constants
    for field in fields:
        if field.number == 5:  # GraphProto.initializer
            tensor = list(_fields(field.message))
            if any(part.number == 2 and part.value == _HALF for part in tensor):
                stored[_text(tensor, 8)] = tensor
    casts: dict[int, tuple[str, str]] = {}  # position -> constant, cast's name for it
    read: set[str] = set()
    for position, field in enumerate(fields):
        if field.number == 1:  # GraphProto.node
            node = list(_fields(field.message))
            inputs = [part.text for part in node if part.number == 1]
            if inputs and inputs[0] in stored and _is_widening(node):
                casts[position] = (inputs[0], _text(node, 2))
            else:
                read.update(inputs)
    if not casts:
        return None
    return b"".join(_rewritten(fields, stored, casts, read))


def _rewritten(
    fields: list[_Field],
    stored: dict[str, list[_Field]],
    casts: dict[int, tuple[str, str]],
    read: set[str],
) -> Iterator[bytes | memoryview]:
    cast_only = {constant for constant, _ in casts.values()} - read
    for position, field in enumerate(fields):
        if position in casts:
            constant, name = casts[position]
            yield _bytes_field(5, _float_tensor(stored[constant], name))
        elif field.number != 5 or _text(_fields(field.message), 8) not in cast_only:
            yield field.raw


def _is_widening(node: Iterable[_Field]) -> bool:
    fields = list(node)
    if _text(fields, 4) != "Cast":
        return False
    attributes = [list(_fields(part.message)) for part in fields if part.number == 5]
    target = [
        part.value
        for row in attributes
        if _text(row, 1) == "to"
        for part in row
        if part.number == 3
    ]
    return target == [_FLOAT]


def _float_tensor(tensor: list[_Field], name: str) -> bytes:
    """The same constant as float32 under another name."""
    dims = b"".join(part.raw for part in tensor if part.number == 1)
    wide = _halves(tensor).astype("<f4").tobytes()
    return dims + _number_field(2, _FLOAT) + _bytes_field(8, name.encode()) + _bytes_field(9, wide)


def _halves(tensor: list[_Field]) -> "np.ndarray[tuple[int], np.dtype[np.float16]]":
    """The values of a half constant: raw, or as the 16 bits of a number each."""
    numbers: list[int] = []
    for part in tensor:
        if part.number == 9:  # TensorProto.raw_data
            if len(part.message) % 2:
                raise _damaged(f"{len(part.message)} bytes of halves")
            return np.frombuffer(part.message, "<f2")
        if part.number == 5:  # TensorProto.int32_data
            numbers += [part.value] if isinstance(part.value, int) else _varints(part.value)
    if max(numbers, default=0) > 0xFFFF:
        raise _damaged(f"a half of {max(numbers)}")
    return np.asarray(numbers, np.uint16).view(np.float16)


def _text(fields: Iterable[_Field], number: int) -> str:
    return next((field.text for field in fields if field.number == number), "")


def _fields(data: memoryview) -> Iterator[_Field]:
    place = 0
    while place < len(data):
        start = place
        key, place = _varint(data, place)
        value: int | memoryview
        kind = key & 7
        if kind == _VARINT:
            value, place = _varint(data, place)
        elif kind in (_BYTES, _FIXED64, _FIXED32):
            length = {_FIXED64: 8, _FIXED32: 4}.get(kind)
            if length is None:
                length, place = _varint(data, place)
            value = data[place : place + length]
            place += length
        else:
            raise _damaged(f"a field of kind {kind}")
        if place > len(data):
            raise _damaged("an end within a field")
        yield _Field(key >> 3, value, data[start:place])


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    number = 0
    for count in range(_LONGEST_VARINT):
        if place >= len(data):
            raise _damaged("an end within a number")
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return number, place
    raise _damaged("a number without an end")


def _varints(data: memoryview) -> list[int]:
    numbers, place = [], 0
    while place < len(data):
        number, place = _varint(data, place)
        numbers.append(number)
    return numbers


def _number_field(number: int, value: int) -> bytes:
    return _as_varint(number << 3 | _VARINT) + _as_varint(value)


def _bytes_field(number: int, value: bytes) -> bytes:
    return _as_varint(number << 3 | _BYTES) + _as_varint(len(value)) + value


def _as_varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _damaged(found: str) -> EngineIncompatibleError:
    return EngineIncompatibleError(
        f"ONNX file: found {found}, expected an ONNX model; export the bundle again"
    )
