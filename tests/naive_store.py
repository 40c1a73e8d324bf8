"""A slow and obvious reader of the file format, from FORMAT.md alone: h5py, xxhash and NumPy, nothing of trajtools."""

from __future__ import annotations

import json
import struct
import zlib
from itertools import product

import h5py
import numpy as np
import xxhash

STREAMS = ("step", "metrics", "member_metrics", "weights", "sketch", "distances", "optimizer")
PLANTINGS = tuple(f"plantings/{name}" for name in ("step", "member", "epsilon", "seed", "norm"))
TABLES = ("parameters", "members", "nodes", "optimizer_parameters")
SPARSE = ("metrics", "member_metrics")


class DamageError(Exception):
    """Something does not match its checksum."""


def open_file(path):
    try:
        return h5py.File(path, "r", locking=False)
    except OSError:  # its writer was killed while it opened the file
        return h5py.File(path, "r", locking=False, swmr=True)


def read(path):
    """Everything that is committed, as a dict; raises DamageError where a checksum is wrong."""
    with open_file(path) as file:
        result = read_cells(file)
        result["notes"] = read_notes(file, result["slot"])
        check_structure(file)
        committed = {}
        for names, sums, n in (
            ([s for s in STREAMS if s in file], "store/checksums", result["committed"]),
            (PLANTINGS, "store/planting_checksums", result["planted"]),
        ):
            index = 1
            for name in names:
                committed[name], index = read_stream(file, name, sums, n, index)
            assert file[sums].shape[1:] == (3, index)
        result |= {name: committed[name] for name in STREAMS if name in committed}
        result["plantings"] = {name.split("/")[1]: committed[name] for name in PLANTINGS}
        result["metrics"] = named_metrics(file, result, committed)
        result["attributes"] = {name: text(file.attrs[name]) for name in file.attrs}
    return result


def read_cells(file):
    data = np.asarray(file["store/cells"][()], "<i8").tobytes()
    if struct.unpack("<Q", data[56:])[0] != xxhash.xxh3_64_intdigest(data[:56]):
        raise DamageError("cells")
    names = ("committed", "planted", "generation", "status", "heartbeat", "process", "slot")
    return dict(zip(names, struct.unpack("<7q", data[:56]), strict=True))


def read_notes(file, slot):
    data = file["store/notes"][slot].tobytes()
    digest, length = struct.unpack("<QQ", data[:16])
    body = data[16 : 16 + length]
    if not length:
        return {}
    if xxhash.xxh3_64_intdigest(body) != digest:
        raise DamageError("notes")
    return json.loads(body)


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def check_structure(file):
    """Whether the text of the structure is whole, and says what the objects of the file are."""
    for name in ("store/structure", "store/structure_copy"):
        data = file[name][()].tobytes()
        digest, length = struct.unpack("<QQ", data[:16])
        if length != len(data) - 16 or xxhash.xxh3_64_intdigest(data[16:]) != digest:
            raise DamageError(name)
        compare_structure(file, json.loads(data[16:]))


def compare_structure(file, structure):
    for name, value in structure["texts"].items():
        stream, _, attribute = name.rpartition(".")
        if text((file[stream] if stream else file).attrs[attribute]) != value:
            raise DamageError(f"attribute {name}")
    for table in TABLES:
        columns = set(file[table]) - {"row"} if table in file else set()
        if columns != set(structure["tables"].get(table, ())):
            raise DamageError(f"table {table}")
        for column in columns:
            values, listed = file[table][column][()], structure["tables"][table][column]
            if values.dtype.kind == "S":
                same = [value.decode() for value in values] == listed
            else:
                same = np.array_equal(values, np.array(listed, values.dtype), equal_nan=values.dtype.kind == "f")
            if not same:
                raise DamageError(f"{table}/{column}")
    streams = {stream["name"]: stream for stream in structure["streams"]}
    if list(streams) != [name for name in STREAMS if name in file]:
        raise DamageError("streams")
    for name, stream in streams.items():
        dataset = file[name]
        about = {
            "name": name,
            "shape": list(dataset.shape[1:]),
            "chunk": list(dataset.chunks[1:]),
            "dtype": dataset.dtype.str,
            "filters": filters_of(dataset),
        }
        if about != stream or dataset.chunks[0] != structure["rows"]:
            raise DamageError(f"stream {name}")


def read_stream(file, name, sums, n, index):
    """The first n rows of a dataset, and the index of the chunk behind its own."""
    dataset = file[name]
    rows, *chunk = dataset.chunks
    shape = dataset.shape[1:]
    assert dataset.shape[0] >= n
    places = list(product(*(range(0, length, c) for length, c in zip(shape, chunk, strict=True))))
    result = np.full((n, *shape), np.nan if name in SPARSE else 0, dataset.dtype)
    for block in range(-(-n // rows)):
        needed = min(rows, n - block * rows)
        slots = file[sums][block]
        for at, place in enumerate(places):
            data = read_chunk(dataset, (block * rows, *place))
            if data is not None:
                data = np.frombuffer(data, dataset.dtype).reshape(rows, *chunk)
            if choose(data, slots, needed, (block, index + at), name):
                part = data[:needed][(..., *(slice(0, s - p) for s, p in zip(shape, place, strict=True)))]
                target = (slice(block * rows, block * rows + needed),)
                result[(*target, *(slice(p, p + c) for p, c in zip(place, chunk, strict=True)))] = part
    return result, index + len(places)


def choose(data, slots, needed, place, name):
    """Whether the chunk counts; an absent one of a metric does not, a damaged one raises."""
    block, index = place
    usable = [slot for slot in slots if needed <= int(slot[0]) and (data is None or int(slot[0]) <= len(data))]
    for slot in usable:
        count, value = int(slot[0]), int(slot[index])
        if value and data is not None:
            seed = (block << 24) + index
            if (xxhash.xxh3_64_intdigest(data[:count].tobytes(), seed=seed) or 1) == value:
                return True
    if name in SPARSE and any(int(slot[index]) == 0 for slot in usable):
        return False
    raise DamageError(f"{name}, block {block}, chunk {index}")


def filters_of(dataset):
    plist = dataset.id.get_create_plist()
    return [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]


def read_chunk(dataset, place):
    """The bytes of a chunk without its filters; None where there is none."""
    if dataset.id.get_chunk_info_by_coord(place).byte_offset is None:
        return None
    mask, data = dataset.id.read_direct_chunk(place)
    filters = filters_of(dataset)
    assert mask == 0
    if 1 in filters:
        data = zlib.decompress(data)
    if 32015 in filters:
        import zstandard

        data = zstandard.ZstdDecompressor().decompress(data, max_output_size=2**26)
    if 2 in filters:
        data = np.frombuffer(data, "u1").reshape(dataset.dtype.itemsize, -1).T.tobytes()
    return data


def named_metrics(file, result, committed):
    columns, widths = result["notes"].get("columns", {}), result["notes"].get("widths", {})
    values = {}
    for stream, names in (("metrics", "metric"), ("member_metrics", "member_metric")):
        listed = columns.get(stream, [])
        if [name.decode() for name in file[names][: len(listed)]] != listed:
            raise DamageError(f"names in {names}")
        for at, name in enumerate(listed):
            values[stream, name] = committed[stream][:, at]
    for name, width in widths.items():
        parts = [values.pop(("member_metrics", f"{name}[{k}]")) for k in range(width)]
        values["member_metrics", name] = np.stack(parts, axis=-1)
    return {name: array for (_, name), array in values.items()}
