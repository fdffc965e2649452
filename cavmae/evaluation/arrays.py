"""Arrays on disk that are larger than memory: parts written one by one, then joined into a file.

Both formats are simple enough to be written piece by piece, which the libraries that read them do
not offer: safetensors is a JSON header and the arrays' bytes, npz a zip of headers and bytes.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from avprep.errors import UserError

Pieces = Callable[[str], Iterator[NDArray]]  # by an array's name; joined along the first axis
_SAFETENSORS_DTYPES = {
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "uint8": "U8",
}
_LONGEST_HEADER = 100_000_000  # bytes; the library reads no longer one
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same bytes for the same arrays


@dataclass(frozen=True)
class ArraySpec:
    """One array of a file."""

    shape: tuple[int, ...]
    dtype: np.dtype


def write_safetensors(
    file: IO[bytes], specs: Mapping[str, ArraySpec], pieces: Pieces, metadata: Mapping[str, str]
) -> None:
    """Write arrays as safetensors, piece by piece.

    Args:
        file: open for writing.
        specs: the arrays, in the order they are written.
        pieces: yields an array's pieces, in order, along the first axis.
        metadata: strings to store.

    Raises:
        UserError: the metadata is too long for the format.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    # Widest first, as the library does, so that every array is aligned.
    names = sorted(specs, key=lambda name: (-specs[name].dtype.itemsize, name))
    for name in names:
        spec = specs[name]
        size = int(np.prod(spec.shape, dtype=np.int64)) * spec.dtype.itemsize
        header[name] = {
            "dtype": _SAFETENSORS_DTYPES[spec.dtype.name],
            "shape": list(spec.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, ensure_ascii=True).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _LONGEST_HEADER:
        raise UserError("the clips' names do not fit a safetensors header (100 MB). Write an .npz.")
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        for piece in pieces(name):
            file.write(np.ascontiguousarray(piece).data)


def write_npz(
    file: IO[bytes], specs: Mapping[str, ArraySpec], pieces: Pieces, texts: Mapping[str, NDArray]
) -> None:
    """Write arrays as an uncompressed npz, piece by piece.

    Args:
        file: open for writing.
        specs: the large arrays.
        pieces: yields an array's pieces, in order, along the first axis.
        texts: small arrays that are in memory.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in texts.items():
            buffer = io.BytesIO()
            npy.write_array(buffer, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _ZIP_TIME), buffer.getvalue())
        for name, spec in specs.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _ZIP_TIME)
            with archive.open(entry, "w", force_zip64=True) as member:
                described = {
                    "descr": npy.dtype_to_descr(spec.dtype),
                    "fortran_order": False,
                    "shape": spec.shape,
                }
                npy.write_array_header_2_0(member, described)
                for piece in pieces(name):
                    member.write(np.ascontiguousarray(piece).data)
