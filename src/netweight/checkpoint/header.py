"""The header of a safetensors file, trusted only after every rule was checked.

    offset 0   8 bytes  n, the length of the header, little-endian
           8   n bytes  JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {..}}
           8+n          the tensors back to back: no overlap, no hole, nothing after the last

Stricter than the official reader in one point (a name may occur once) and equal in the others.
"""

from __future__ import annotations

import json
import math
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from netweight.checkpoint.infos import TensorInfo
from netweight.dtypes import ALIGNMENT_ORDER, MAX_RANK, bits_per_element
from netweight.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["MAX_HEADER_BYTES", "Header", "damaged", "format_header", "parse_header", "short", "strict_json"]

MAX_HEADER_BYTES: Final = 100_000_000
_LIMIT: Final = 2**63
_INT: Final = frozenset({int})
_BITS: Final = {code: bits_per_element(code) for code in ALIGNMENT_ORDER}


class Header(NamedTuple):
    """Tensors in the order of their data, where each begins after the header, and the file's metadata."""

    infos: dict[str, TensorInfo]
    begins: dict[str, int]
    metadata: dict[str, str]


def damaged(fact: str) -> FormatError:
    """The error of a file that broke on its way."""
    return FormatError(fact, "The file is damaged: download it, or write it, again.")


def short(name: object) -> str:
    """A name from a file as it may appear in a message: quoted, escaped, at most 60 characters."""
    text = repr(name)
    return text if len(text) <= 60 else f"{text[:56]}...{text[-1]}"


def strict_json(text: bytes, where: str) -> Any:
    """Parse JSON without the liberties Python takes: no duplicate keys, no NaN, no lone surrogates.

    Args:
        text: UTF-8.
        where: what this is, for messages.

    Raises:
        FormatError: it is no such JSON.

    >>> strict_json(b'{"a": 1, "a": 2}', "the header")
    Traceback (most recent call last):
        ...
    netweight.errors.FormatError: The key 'a' occurs twice in the header.
    The file is damaged: download it, or write it, again.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise damaged(f"The key {short(twice)} occurs twice in {where}.")
        return mapping

    def no_constant(name: str) -> NoReturn:
        raise damaged(f"{name} is no JSON, but stands in {where}.")

    try:
        value = json.loads(text.decode(), object_pairs_hook=unique, parse_constant=no_constant)
        if rb"\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # fails for lone surrogates
    except UnicodeEncodeError:
        raise damaged(f"A lone surrogate stands in {where}, which is no text.") from None
    except UnicodeDecodeError as error:
        raise damaged(f"Byte {error.start} of {where} is no UTF-8.") from None
    except RecursionError:
        raise damaged(f"The JSON of {where} is nested too deeply.") from None
    except json.JSONDecodeError as error:
        raise damaged(f"Character {error.pos} of {where} is no JSON: {error.msg}.") from None
    except ValueError:  # an integer of more than 4300 digits
        raise damaged(f"A number in {where} is too large.") from None
    return value


def parse_header(text: bytes, data_bytes: int, source: str) -> Header:
    """Check and read the header of a safetensors file.

    Args:
        text: the JSON, with its padding.
        data_bytes: bytes of the file after the header.
        source: name of the file, for messages.

    Raises:
        FormatError: any rule of the format is broken.

    >>> text = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}  '
    >>> parse_header(text, 8, "x.safetensors").infos
    {'w': TensorInfo(name='w', dtype='F32', shape=(2,))}
    """
    value = strict_json(text, f"the header of {source}")
    if not isinstance(value, dict):
        raise damaged(f"The header of {source} is no JSON object.")
    metadata = _parse_metadata(value.pop("__metadata__", None), source)
    spans = [_parse_entry(name, entry, source) for name, entry in value.items()]
    spans.sort(key=itemgetter(0, 1))
    infos: dict[str, TensorInfo] = {}
    begins: dict[str, int] = {}
    at = 0
    for begin, end, info in spans:
        if begin != at:
            kind = "overlaps what is before it" if begin < at else f"leaves a hole of {begin - at} bytes before it"
            raise damaged(f"Tensor {short(info.name)} of {source} begins at byte {begin} of the data and {kind}.")
        infos[info.name] = info
        begins[info.name] = begin
        at = end
    if at != data_bytes:
        raise damaged(f"{source} has {data_bytes:,} bytes of data; its header announces {at:,}.")
    return Header(infos, begins, metadata)


def _parse_metadata(value: Any, source: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(entry, str) for entry in value.values()):
        raise damaged(f"The __metadata__ of {source} does not map strings to strings.")
    return value


def _parse_entry(name: str, entry: Any, source: str) -> tuple[int, int, TensorInfo]:
    """First and last byte of a tensor in the data, and its info; everything is checked that needs no neighbour."""
    try:
        code, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise damaged(f"Tensor {short(name)} of {source} lacks dtype, shape or two data_offsets.") from None
    if type(code) is not str or code not in _BITS:
        raise FormatError(
            f"Tensor {short(name)} of {source} has the unknown dtype {short(code)}.",
            f"Known are {', '.join(_BITS)}; a newer netweight may know more.",
        )
    if type(begin) is not int or type(end) is not int or not 0 <= begin <= end < _LIMIT:
        raise damaged(f"Tensor {short(name)} of {source} has the data_offsets [{short(begin)}, {short(end)}].")
    if type(shape) is not list or not (
        _INT.issuperset(map(type, shape)) and min(shape, default=0) >= 0 and max(shape, default=0) < _LIMIT
    ):
        raise damaged(f"Tensor {short(name)} of {source} has the shape {short(shape)}.")
    if len(shape) > MAX_RANK:
        raise FormatError(
            f"Tensor {short(name)} of {source} has {len(shape)} axes; at most {MAX_RANK} are supported.",
            "Reshape it to fewer axes.",
        )
    bits = math.prod(shape) * _BITS[code]
    if bits != 8 * (end - begin):
        needs = f"{bits // 8:,}" if bits % 8 == 0 else f"{bits / 8:,}"
        raise damaged(
            f"Tensor {short(name)} of {source}, {code} of shape {short(shape)}, needs {needs} bytes "
            f"and is given {end - begin:,}."
        )
    if not bits and math.prod(axis or 1 for axis in shape) * 8 >= _LIMIT:  # no array could have this shape
        raise damaged(f"Tensor {short(name)} of {source} has the shape {short(shape)}.")
    return begin, end, TensorInfo(name, code, tuple(shape))


def format_header(infos: Iterable[TensorInfo], metadata: Mapping[str, str]) -> bytes:
    """The first bytes of a safetensors file, tensors in the order given: length, JSON, spaces up to a multiple of 8.

    >>> format_header([TensorInfo("w", "U8", (2,))], {})[8:].rstrip()
    b'{"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'
    """
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for info in infos:
        if info.name in entries or info.name == "__metadata__":
            raise ValueError(f"the tensor name {info.name!r} occurs twice or is reserved")
        end = at + info.nbytes
        entries[info.name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
