"""Checks before a file is read: untrusted files are data, never code, and never larger than they declare."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from trajtools.errors import FormatError, UnsafeFileError

ATTRIBUTE_BYTES = 64 * 2**20
TABLE_BYTES = 2**30
VERSION = (1, 0)


def attribute(target: h5py.Group | h5py.Dataset, name: str, default: str | None = None) -> str:
    """Read a text attribute."""
    if name not in target.attrs:
        if default is None:
            raise FormatError(f"{target.name} lacks the attribute {name!r}, which the format requires")
        return default
    found = h5py.h5a.open(target.id, name.encode())
    if found.get_storage_size() > ATTRIBUTE_BYTES:
        raise UnsafeFileError(f"the attribute {name!r} of {target.name} claims {found.get_storage_size()} bytes")
    if found.get_space().get_simple_extent_npoints() != 1 or found.get_type().get_class() != h5py.h5t.STRING:
        raise FormatError(f"the attribute {name!r} of {target.name} must be one text")
    value = target.attrs[name]
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0]
    return value.decode() if isinstance(value, bytes) else str(value)


def number(target: h5py.Dataset, name: str) -> int:
    """Read an integer attribute."""
    if name not in target.attrs:
        raise FormatError(f"{target.name} lacks the attribute {name!r}, which the format requires")
    found = h5py.h5a.open(target.id, name.encode())
    if found.shape not in ((), (1,)) or found.dtype.kind not in "iu":
        raise FormatError(f"the attribute {name!r} of {target.name} must be one integer")
    return int(np.asarray(target.attrs[name]).reshape(-1)[0])


def child(group: h5py.Group, name: str, kind: type[Any], access: h5py.h5p.PropDAID | None = None) -> Any:
    """Give a member of a group that lies in this very file."""
    link = group.get(name, getlink=True)
    if link is None:
        raise FormatError(f"{group.name} lacks {name!r}, which the format requires")
    if not isinstance(link, h5py.HardLink):
        words = f"another file ({link.filename!r})" if isinstance(link, h5py.ExternalLink) else "another place"
        raise UnsafeFileError(
            f"{group.name}/{name} is a link to {words}; links are refused. Copy the data into the file."
        )
    if access is not None and group.get(name, getclass=True) is h5py.Dataset:
        found = h5py.Dataset(h5py.h5d.open(group.id, name.encode(), access))
    else:
        found = group[name]
    if not isinstance(found, kind):
        raise FormatError(
            f"{group.name}/{name} must be a {kind.__name__.lower()}, it is a {type(found).__name__.lower()}"
        )
    if isinstance(found, h5py.Dataset):
        _check_dataset(found)
    return found


def _check_dataset(dataset: h5py.Dataset) -> None:
    plist = dataset.id.get_create_plist()
    if plist.get_layout() == h5py.h5d.VIRTUAL:
        raise UnsafeFileError(
            f"{dataset.name} is a virtual dataset, whose data are in another file; such datasets are refused"
        )
    if plist.get_external_count():
        raise UnsafeFileError(
            f"{dataset.name} has its data in another file ({plist.get_external(0)[0]!r}); such datasets are refused"
        )
    _check_type(dataset.name, dataset.id.get_type())


def _check_type(name: str, kind: h5py.h5t.TypeID) -> None:
    if isinstance(kind, h5py.h5t.TypeCompoundID):
        for index in range(kind.get_nmembers()):
            _check_type(name, kind.get_member_type(index))
    elif isinstance(kind, h5py.h5t.TypeArrayID):
        _check_type(name, kind.get_super())
    elif isinstance(kind, h5py.h5t.TypeStringID):
        if kind.is_variable_str():
            raise UnsafeFileError(f"{name} holds text of variable length; the format requires fixed length")
    elif not isinstance(kind, h5py.h5t.TypeIntegerID | h5py.h5t.TypeFloatID | h5py.h5t.TypeEnumID):
        raise UnsafeFileError(f"{name} holds {type(kind).__name__}; only numbers and text of fixed length are read")


def check_backed(dataset: h5py.Dataset, size: int, length: int | None = None) -> None:
    """Check that a dataset does not declare more than the file can hold, before memory is asked for."""
    shape = dataset.shape if length is None else (length, *dataset.shape[1:])
    wanted = int(dataset.dtype.itemsize) * int(np.prod([int(n) for n in shape], dtype=object))
    if dataset.id.get_create_plist().get_nfilters():
        # Compressed: every chunk must be there; none holds more than its own size.
        if wanted > size and wanted > dataset.id.get_num_chunks() * dataset.dtype.itemsize * int(
            np.prod(dataset.chunks)
        ):
            raise UnsafeFileError(f"{dataset.name} declares {wanted} bytes but holds far fewer")
    elif wanted > size:
        raise UnsafeFileError(
            f"{dataset.name} declares the shape {tuple(shape)}, {wanted} bytes, but the whole file has {size} bytes"
        )


def table(dataset: h5py.Dataset, size: int, fields: dict[str, str]) -> np.ndarray[Any, np.dtype[np.void]]:
    """Read a table whole."""
    check_backed(dataset, size)
    if dataset.ndim != 1 or dataset.dtype.names is None or dataset.size * dataset.dtype.itemsize > TABLE_BYTES:
        raise FormatError(f"{dataset.name} must be a table of one axis and at most 1 GiB")
    for name, kind in fields.items():
        if name not in dataset.dtype.names or dataset.dtype[name].base.kind not in kind:
            raise FormatError(f"the table {dataset.name} needs a column {name!r} of kind {kind!r}")
    return np.asarray(dataset[()])


def check_file(file: h5py.File, where: str) -> None:
    """Check that an open HDF5 file is one of ours, and of a version that can be read."""
    if "format" not in file.attrs or attribute(file, "format") != "trajtools":
        raise FormatError(
            f"{where} is an HDF5 file, but not a trajtools one (its attribute 'format' is not 'trajtools'); "
            "`trajtools convert` converts checkpoints of other tools"
        )
    check_version(attribute(file, "format_version"), where)
    child(file, "runs", h5py.Group)


def check_version(version: str, where: str) -> tuple[int, int]:
    """Check the version of the format."""
    try:
        major, minor = (int(part) for part in version.split("."))
    except ValueError:
        raise FormatError(f"{where} has format version {version!r}; needed two numbers such as '1.0'") from None
    if major != VERSION[0]:
        raise FormatError(
            f"{where} has format version {version}, this trajtools reads version {VERSION[0]}.x; "
            f"{'update trajtools' if major > VERSION[0] else 'read it with an older trajtools'}"
        )
    return major, minor
