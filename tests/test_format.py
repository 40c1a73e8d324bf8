"""FORMAT.md and the files agree; files of older versions stay readable; strangers' files do no harm."""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path

import damaged_runs as dr
import h5py
import naive_store
import numpy as np
import pytest
import xxhash
from stored_runs import NODES, PARAMETERS, M, P, assert_holds, assert_whole, block_of, numbers, record, states

import trajtools as tt
from trajtools.errors import FormatError, UnsafeFileError
from trajtools.store import Run, RunSpec, RunWriter
from trajtools.wiring import Member, NodeSet, Parameter

LAW = (Path(tt.__file__).parent / "FORMAT.md").read_text()
TINY = Path(__file__).parent / "data" / "v2.0" / "tiny.h5"
TINY_PARAMETERS = (
    Parameter("0.weight", "dense", (2, 3), "float32", 0, 6, "input", "0", 1, 0),
    Parameter("0.bias", "bias", (2,), "float32", 6, 2, "bias", "0", -1, 0),
)
TINY_NODES = (NodeSet("input", 3), NodeSet("0", 2), NodeSet("bias", 1))
TINY_MEMBERS = (Member("reference"), Member("twin", 0, 1e-6, "uniform", 1))
SCALE_ATTRIBUTES = {"CLASS", "NAME", "REFERENCE_LIST", "DIMENSION_LIST"}
ONE_PIECE = "one piece"


def tiny_metrics():
    values = numbers(0, 20, 1, 2)
    late = np.concatenate([np.full((15, 2, 2), np.nan), numbers(15, 5, 2, 2)])
    return {"loss": values[:, 0, 0], "accuracy": values[:, :, 0], "late/vector": late}


def record_tiny(path):
    writer = RunWriter.create(
        path,
        RunSpec(
            parameters=TINY_PARAMETERS,
            nodes=TINY_NODES,
            members=TINY_MEMBERS,
            dtype="float32",
            name="tiny",
            hparams={"lr": 0.5},
            provenance={"trajtools": "0.1"},
            reference="other",
        ),
    )
    for count in (10, 20):
        metrics = {
            name: values[:count] for name, values in tiny_metrics().items() if count == 20 or name != "late/vector"
        }
        tiles = block_of(writer.layout, states(0, count, 8, 2))
        writer.write(0, count, step=3 * np.arange(count), weights=tiles, metrics=metrics)
    writer.plant(30, 1, 1e-6, 7, 3e-6)
    writer.plant(45, 1, 2e-6, 8, 5e-6)
    writer.close(overhead={"seconds": 1.5})


# ------------------------------------------------------------------------------------------------- files and FORMAT.md


def rows_of(section):
    """The rows of the tables in a section of FORMAT.md, as lists of cells."""
    text = re.split(r"^## ", LAW, flags=re.MULTILINE)[section]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def code(cell):
    match = re.fullmatch(r"`([^`]+)`", cell)
    return match and match[1]


ROOT_ATTRIBUTES = {code(row[0]) for row in rows_of(2) if code(row[0])}
DATASETS = {code(row[0]): row[1:5] for row in rows_of(3) if code(row[0]) and len(row) == 6}
STREAM_ATTRIBUTES = {code(row[0]) for row in rows_of(3) if code(row[0]) and len(row) == 2}
COLUMNS = {code(row[0]): row[1] for row in rows_of(4) if code(row[0])}
CELLS = [code(row[1]) for row in rows_of(5) if row[0].isdigit()]
NOTES = {code(row[0]) for row in rows_of(5) if code(row[0])}


def keys_of(file):
    """Paths of datasets, and of attributes as path@name."""
    keys = {f"@{name}" for name in file.attrs}

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            keys.add(name)
        keys.update(f"{name}@{attribute}" for attribute in item.attrs if attribute not in SCALE_ATTRIBUTES)

    file.visititems(add)
    return keys


def law_keys(stored, optimizer):
    """The keys that FORMAT.md names for such a file."""
    axis = {"weights": "entry", "sketch": "number"}
    keys = {f"@{name}" for name in ROOT_ATTRIBUTES if name != "shard"}
    streams = {stored, *(["optimizer"] if optimizer else [])}
    for name, (_, _, _, need) in DATASETS.items():
        if need == "MUST" or name in streams or name == axis.get(stored) or (optimizer and name == "optimizer_entry"):
            keys.add(name)
    for path in STREAM_ATTRIBUTES:
        stream, _, attribute = path.partition("/")
        keys |= {f"{stream}@{attribute}"} if stream in streams else set()
    for path in COLUMNS:
        keys |= {path, f"{path.split('/')[0]}/row"}
        if optimizer and path.startswith("parameters/"):
            keys |= {f"optimizer_{path}", "optimizer_parameters/row"}
    return keys


@pytest.mark.parametrize("optimizer", [False, True])
@pytest.mark.parametrize("stored", ["weights", "distances", "sketch"])
def test_a_file_holds_exactly_the_keys_of_the_law(tmp_path, stored, optimizer):
    path = tmp_path / "run.h5"
    record(path, 80, stored=stored, optimizer=optimizer, overhead={"s": 1}, reference="other")
    with h5py.File(path, "r") as file:
        assert keys_of(file) == law_keys(stored, optimizer)
        notes = naive_store.read_notes(file, int(file["store/cells"][6]))
    assert set(notes) <= NOTES
    assert set(notes) == {"writer", "columns", "widths", "overhead"}


def sizes(text):
    """A shape or chunk of FORMAT.md with the sizes of the run of these tests."""
    names = {
        "T": 80,
        "rows": 64,
        "M": M,
        "P": P,
        "P'": P,
        "C": 32,
        "D": 8,
        "k": 16,
        "columns": None,
        "L": 0,
        "B": None,
        "N": None,
        "W": None,
    }
    return tuple(names[n] if n in names else int(n) for n in re.findall(r"[A-Za-z']+|\d+", text))


def agree(actual, wanted):
    return len(actual) == len(wanted) and all(b is None or a == b for a, b in zip(actual, wanted, strict=True))


@pytest.mark.parametrize("stored", ["weights", "distances", "sketch"])
def test_shapes_dtypes_and_chunks_are_those_of_the_law(tmp_path, stored):
    path = tmp_path / "run.h5"
    record(path, 80, stored=stored, optimizer=True)
    dtypes = {"int64": "<i8", "float64": "<f8", "uint64": "<u8", "uint8": "|u1", "text of 64 bytes": "|S64"}
    with h5py.File(path, "r") as file:
        for name, (shape, dtype, chunk, _) in DATASETS.items():
            if name not in file:
                continue
            dataset = file[name]
            assert agree(dataset.shape, sizes(shape)), name
            if chunk in (ONE_PIECE, "none"):
                assert dataset.chunks is None
                assert (dataset.id.get_offset() is None) == (chunk == "none")
            else:
                assert agree(dataset.chunks, sizes(chunk)), name
                assert dataset.maxshape == (None, *dataset.shape[1:])
                assert np.isnan(dataset.fillvalue) == (name in naive_store.SPARSE)
            if dtype in dtypes:
                assert dataset.dtype.str == dtypes[dtype], name
        for path_, kind in COLUMNS.items():
            dataset = file[path_]
            assert dataset.dtype.str == {"int64": "<i8", "float64": "<f8"}.get(kind, dataset.dtype.str)
            assert (kind == "text") == (dataset.dtype.kind == "S")
            assert dataset.chunks is None
        assert file["store/cells"].id.get_offset() % 64 == 0
        assert all(isinstance(value, np.bytes_) for value in file.attrs.values())


def test_the_order_of_the_cells_is_that_of_the_law():
    from trajtools.store.layout import Cells

    assert CELLS[:7] == list(Cells.__dataclass_fields__)


def test_axes_are_attached(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 10, optimizer=True)
    with h5py.File(path, "r") as file:
        axes = {
            name: [dimension[0].name.lstrip("/") for dimension in file[name].dims]
            for name in ("metrics", "member_metrics", "weights", "optimizer", "members/epsilon")
        }
    assert axes == {
        "metrics": ["step", "metric"],
        "member_metrics": ["step", "member_metric", "member"],
        "weights": ["step", "member", "entry"],
        "optimizer": ["step", "member", "optimizer_entry"],
        "members/epsilon": ["members/row"],
    }


def listing(path):
    """The datasets of a file in the manner of h5ls."""
    lines = []

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            axes = zip(item.shape, item.maxshape, strict=True)
            shape = ", ".join(f"{n}/Inf" if most is None else str(n) for n, most in axes)
            chunk = f", chunks {item.chunks}" if item.chunks else ""
            lines.append(f"/{name:<27} {{{shape}}} {item.dtype}{chunk}")

    with h5py.File(path, "r") as file:
        file.visititems(add)
    return "\n".join(lines)


def test_the_example_of_the_law_is_the_tiny_file():
    assert f"```\n{listing(TINY)}\n```" in LAW


def test_the_snippet_of_the_law_runs(tmp_path, monkeypatch):
    record(tmp_path / "run.h5", 80)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(re.search(r"```python\n(.*?)```", LAW, re.DOTALL)[1], names)
    np.testing.assert_array_equal(names["weights"].view(np.uint32), states(0, 80)[:, 0].view(np.uint32))
    np.testing.assert_array_equal(names["loss"], numbers(0, 80, 1)[:, 0, 0])
    assert {name: part.shape for name, part in names["kernel"].items()} == {p.name: (80, p.size) for p in PARAMETERS}


# ----------------------------------------------------------------------------------------------------------- old files


def test_the_file_of_version_2_1_reads_as_it_was_written():
    content = naive_store.read(TINY)
    truth = states(0, 20, 8, 2).view(np.uint32)
    np.testing.assert_array_equal(content["weights"].view(np.uint32), truth)
    with Run(TINY) as run:
        assert (run.format_version, run.name, run.reference, run.status) == ("2.0", "tiny", "other", "complete")
        assert (run.parameters, run.nodes, repr(run.members)) == (TINY_PARAMETERS, TINY_NODES, repr(TINY_MEMBERS))
        assert (run.hparams, run.provenance, run.overhead) == ({"lr": 0.5}, {"trajtools": "0.1"}, {"seconds": 1.5})
        np.testing.assert_array_equal(run.step, 3 * np.arange(20))
        np.testing.assert_array_equal(run.states[:].view(np.uint32), truth)
        assert set(run.metrics) == set(tiny_metrics())
        for name, values in tiny_metrics().items():
            np.testing.assert_array_equal(run.metrics[name], values)
            np.testing.assert_array_equal(content["metrics"][name], values)
        plantings = {name: values.tolist() for name, values in run.plantings.items()}
    assert plantings == {
        "step": [30, 45], "member": [1, 1], "epsilon": [1e-6, 2e-6], "seed": [7, 8], "norm": [3e-6, 5e-6],
    }  # fmt: skip
    assert TINY.stat().st_size < 150_000


def test_a_fresh_file_is_built_like_the_one_of_version_2_1(tmp_path):
    record_tiny(tmp_path / "tiny.h5")
    assert listing(tmp_path / "tiny.h5") == listing(TINY)
    with h5py.File(tmp_path / "tiny.h5", "r") as new, h5py.File(TINY, "r") as old:
        assert keys_of(new) == keys_of(old)
        texts = [json.loads(file["store/structure"][()].tobytes()[16:]) for file in (new, old)]
    for one in texts:
        del one["texts"]["uuid"]
    assert texts[0] == texts[1]


# ------------------------------------------------------------------------------------------------- what is no such file


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 some other file", "is not an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "not a trajtools one"),
        (b"\x89HDF\r\n\x1a\n\x03\x08\x08" + bytes(100), "checksum of its first 48 bytes"),
    ],
)
def test_what_is_no_hdf5_is_refused_in_words(tmp_path, content, words):
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=words):
        Run(path)


def test_a_missing_file_and_a_folder_are_refused_in_words(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Run(tmp_path / "none.h5")
    with pytest.raises(FormatError, match="is a folder"):
        Run(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.h5")
    with pytest.raises(FormatError, match="not a regular file"):
        Run(tmp_path / "x.h5")


@pytest.mark.parametrize("libver", ["earliest", "v110"])
def test_hdf5_that_is_not_ours_is_refused_in_words(tmp_path, libver):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file["weights"] = np.zeros((3, 3))
    with pytest.raises(FormatError, match="not a trajtools one"):
        Run(path)


@pytest.fixture(name="path")
def path_fixture(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 100, hparams={"lr": 1.0})
    os.utime(path, (0, 0))
    return path


def edit(path, change):
    with h5py.File(path, "r+", libver="v110") as file:
        change(file)
    os.utime(path, (0, 0))


def text(value):
    return np.bytes_(value)


@pytest.mark.parametrize(
    ("version", "words"), [("3.0", "update trajtools"), ("1.0", "an older trajtools"), ("one", "two numbers")]
)
def test_another_major_version_is_refused(path, version, words):
    edit(path, lambda file: dr.edit_structure(file, lambda s: s["texts"].update(format_version=version)))
    with pytest.raises(FormatError, match=words):
        Run(path)


@pytest.mark.parametrize(
    ("version", "words"),
    [("3.0", "update trajtools"), ("1.0", "an older trajtools"), ("2.0", "structure_copy is missing")],
)
def test_a_version_without_our_structure_is_refused(path, version, words):
    def change(file):
        del file["store/structure"], file["store/structure_copy"]
        file.attrs.modify("format_version", text(version))

    edit(path, change)
    with pytest.raises(FormatError, match=words):
        Run(path)


def test_unknown_keys_are_ignored(path):
    def change(file):
        file["extra"] = np.zeros(3)
        file["store"].attrs["note"] = "x"
        file["parameters"]["color"] = np.zeros(3)
        file["link"] = h5py.SoftLink("/weights")
        file["outside"] = h5py.ExternalLink("/etc/passwd", "/")

    edit(path, change)
    with Run(path) as run:
        assert_whole(run, 100)


def replace(file, name, value, **options):
    del file[name]
    file.create_dataset(name, data=value, **options)


def link_away(file, name, target):
    del file[name]
    file[name] = target


def virtual(file):
    layout = h5py.VirtualLayout((100, M, P), "f4")
    layout[:] = h5py.VirtualSource("/other.h5", "weights", (100, M, P))
    del file["weights"]
    file.create_virtual_dataset("weights", layout).attrs["logical_dtype"] = text("float32")


def weights(file, chunks=(64, 1, P), dtype="f4", **options):
    shape = options.pop("shape", (100, M, P))
    del file["weights"]
    dataset = file.create_dataset("weights", shape, dtype, chunks=chunks, maxshape=(None, *shape[1:]), **options)
    dataset.attrs["logical_dtype"] = text("float32")


HOSTILE = {
    "soft link": (lambda f: link_away(f, "weights", h5py.SoftLink("/step")), UnsafeFileError, "links are refused"),
    "external link": (
        lambda f: link_away(f, "weights", h5py.ExternalLink("/dev/zero", "/x")),
        UnsafeFileError,
        "another file",
    ),
    "virtual dataset": (virtual, UnsafeFileError, "virtual dataset"),
    "another filter": (lambda f: weights(f, compression="lzf"), UnsafeFileError, "uses the HDF5 filters"),
    "fletcher32": (lambda f: weights(f, fletcher32=True), UnsafeFileError, "uses the HDF5 filters"),
    "another chunk": (lambda f: weights(f, chunks=(32, 1, P)), FormatError, "the structure says"),
    "two members in a chunk": (lambda f: weights(f, chunks=(64, 2, P)), FormatError, "the structure says"),
    "another shape": (lambda f: weights(f, shape=(100, M, P + 1)), FormatError, "has the shape"),
    "fewer states": (lambda f: f["weights"].resize(90, 0), FormatError, "100 committed states, but weights holds 90"),
    "big-endian": (lambda f: weights(f, dtype=">f4"), FormatError, "the structure says"),
    "chunked cells": (
        lambda f: replace(f, "store/cells", f["store/cells"][()], chunks=(8,), maxshape=(None,)),
        FormatError,
        "in one piece",
    ),
    "short notes": (lambda f: replace(f, "store/notes", np.zeros((2, 5), "u1")), FormatError, "in one piece"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_dangerous_or_wrong_is_refused(path, name):
    change, error, words = HOSTILE[name]
    edit(path, change)
    with pytest.raises(error, match=words):
        Run(path)


def two_kinds(file):
    dataset = file.create_dataset("distances", (100, M), "f8", chunks=(64, M), maxshape=(None, M))
    dataset.attrs["metric"] = text("l1")


# What readers do not read: they show what was written, and `validate` tells.
UNREAD = {
    "external storage": (
        lambda f: replace(f, "members/seed", np.zeros(M, "i8"), external=[("/etc/passwd", 0, 8 * M)]),
        "in another file",
    ),
    "text of any length": (
        lambda f: replace(f, "members/name", ["a", "b", "c"], dtype=h5py.string_dtype()),
        "variable length",
    ),
    "compound": (lambda f: replace(f, "members/seed", np.zeros(M, [("a", "i8")])), "only numbers and text"),
    "another number": (lambda f: f["members/seed"].__setitem__(0, 77), "differs from the structure"),
    "another text": (lambda f: f["parameters/name"].__setitem__(0, b"x"), "differs from the structure"),
    "no table": (lambda f: f.__delitem__("members"), "it is missing"),
    "no column": (lambda f: f.__delitem__("members/seed"), "it is missing"),
    "no attribute": (lambda f: f.attrs.__delitem__("uuid"), "lacks the attribute 'uuid'"),
    "another name": (lambda f: f.attrs.modify("name", text("x")), "attribute 'name' differs"),
    "another dtype": (
        lambda f: f["weights"].attrs.modify("logical_dtype", text("bfloat16")),
        "attribute 'logical_dtype' differs",
    ),
    "two kinds": (two_kinds, "does not know it"),
    "one copy": (lambda f: f["store/structure"].__setitem__(99, 1), "does not match its checksum"),
    "the other copy": (lambda f: f["store/structure_copy"].__setitem__(99, 1), "does not match its checksum"),
}


@pytest.mark.parametrize("name", UNREAD)
def test_objects_for_other_programs_change_nothing_that_is_read(path, name):
    change, words = UNREAD[name]
    edit(path, change)
    with Run(path) as run:
        assert_whole(run, 100)
    assert any(words in str(problem) for problem in tt.validate(path))


STRUCTURES = {
    "another filter": (lambda s: s["streams"][3].update(filters=[32000]), UnsafeFileError, "uses the HDF5 filters"),
    "filtered steps": (lambda s: s["streams"][0].update(filters=[2, 1]), UnsafeFileError, "uses the HDF5 filters"),
    "two members in a chunk": (lambda s: s["streams"][3].update(chunk=[2, P]), FormatError, "one member in each"),
    "empty chunks": (lambda s: s["streams"][3].update(chunk=[1, 0]), FormatError, "has chunks"),
    "large chunks": (
        lambda s: s["streams"][1].update(chunk=[2**30], shape=[2**30]),
        UnsafeFileError,
        "declares chunks",
    ),
    "many chunks": (lambda s: s["streams"][1].update(shape=[2**60]), UnsafeFileError, "declares chunks"),
    "another shape": (lambda s: s["streams"][3].update(shape=[M, P + 1]), FormatError, "has the shape"),
    "another rank": (lambda s: s["streams"][3].update(shape=[M, P, 1]), FormatError, "of the shape"),
    "big-endian": (lambda s: s["streams"][3].update(dtype=">f4"), FormatError, "which the format does not know"),
    "unknown stream": (lambda s: s["streams"][3].update(name="../x"), FormatError, "does not know a stream"),
    "two kinds": (
        lambda s: s["streams"].append({**s["streams"][0], "name": "distances", "shape": [M], "chunk": [M]}),
        FormatError,
        "needed one of",
    ),
    "twice": (lambda s: s["streams"].append(s["streams"][3]), FormatError, "in this order"),
    "no streams": (lambda s: s.update(streams=[]), FormatError, "needed step"),
    "no table": (lambda s: s["tables"].__delitem__("members"), FormatError, "lacks the members"),
    "no column": (lambda s: s["tables"]["members"].__delitem__("seed"), FormatError, "lacks the column 'seed'"),
    "short column": (lambda s: s["tables"]["members"].update(seed=[1]), FormatError, "differ in length"),
    "text for a number": (lambda s: s["tables"]["members"].update(seed=["1"] * M), FormatError, "of one kind"),
    "a large number": (lambda s: s["tables"]["members"].update(seed=[2**70] * M), FormatError, "too large"),
    "a number for text": (lambda s: s["tables"]["members"].update(name=[1] * M), FormatError, "of one kind"),
    "an offset": (lambda s: s["tables"]["parameters"]["offset"].__setitem__(0, 1), FormatError, "needed 0"),
    "no attribute": (lambda s: s["texts"].__delitem__("uuid"), FormatError, "attributes must be texts"),
    "a number for an attribute": (lambda s: s["texts"].update(uuid=1), FormatError, "attributes must be texts"),
    "no dtype": (lambda s: s["texts"].__delitem__("weights.logical_dtype"), FormatError, "lacks the attribute"),
    "another dtype": (
        lambda s: s["texts"].update({"weights.logical_dtype": "bfloat16"}),
        FormatError,
        "does not store",
    ),
    "no rows": (lambda s: s.update(rows=0), FormatError, "blocks have 0 states"),
    "deep": (lambda s: s["texts"].update(hparams='{"a":' * 5000 + "1" + "}" * 5000), FormatError, "JSON"),
    "a list": (lambda s: s.update(tables=[]), FormatError, "not as the format has it|lacks"),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_structure_of_a_stranger_is_refused(path, name):
    change, error, words = STRUCTURES[name]
    edit(path, lambda file: dr.edit_structure(file, change))
    with pytest.raises(error, match=words) as caught:
        Run(path)
    assert len(str(caught.value)) < 600
    assert any(problem.severity == "error" for problem in tt.validate(path))


@pytest.mark.parametrize("body", [b"[" * 10**6, b"7", b"{}", b"\xff\xfe", b'{"texts": {}}'])
def test_a_text_that_is_no_structure_is_refused(path, body):
    def change(file):
        for name in ("store/structure", "store/structure_copy"):
            del file[name]
            data = struct.pack("<QQ", xxhash.xxh3_64_intdigest(body), len(body)) + body
            file[name] = np.frombuffer(data, np.uint8)

    edit(path, change)
    with pytest.raises(FormatError, match="not as the format has it"):
        Run(path)


def test_the_copies_of_the_structure_lie_in_different_pages(path):
    with h5py.File(path, "r") as file:
        first, second = (file[name] for name in ("store/structure", "store/structure_copy"))
        assert second.id.get_offset() - first.id.get_offset() - first.nbytes >= 4096


def test_a_count_of_states_beyond_the_file_is_refused(path):
    from trajtools.store.layout import Cells

    def change(file):
        for name in ("step", "metrics", "member_metrics", "weights"):
            file[name].resize(2**50, 0)
        file["store/cells"][...] = np.frombuffer(Cells(committed=2**50, status=1).pack(), "<i8")

    edit(path, change)
    with pytest.raises(UnsafeFileError, match="1125899906842624 states"):
        Run(path)


# --------------------------------------------------------------------------------------------------- other programs


def test_plain_h5py_reads_a_run_and_its_checksums(path):
    assert_holds(naive_store.read(path), 100)


@pytest.mark.parametrize("compress", ["gzip", "zstd"])
def test_plain_h5py_reads_compressed_runs(tmp_path, compress):
    if compress == "zstd":
        pytest.importorskip("hdf5plugin")
    record(tmp_path / "run.h5", 100, compress=compress, optimizer=True)
    with h5py.File(tmp_path / "run.h5", "r") as file:
        for name, values in (("weights", states(0, 100)), ("optimizer", -states(0, 100))):
            np.testing.assert_array_equal(file[name][:100].view("u4"), values.view("u4"))


def test_pandas_reads_tables_and_metrics(path):
    pandas = pytest.importorskip("pandas")
    with h5py.File(path, "r") as file:
        table = pandas.DataFrame({name: column[:] for name, column in file["members"].items() if name != "row"})
        names = [name.decode() for name in file["metric"][:] if name]
        metrics = pandas.DataFrame(file["metrics"][:100, : len(names)], file["step"][:100], names)
    assert table["seed"].tolist() == [5, 7, 8]
    assert metrics["loss"].tolist() == numbers(0, 100, 1)[:, 0, 0].tolist()


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_xarray_reads_the_axes(path, engine):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip({"netcdf4": "netCDF4"}.get(engine, engine))
    with xarray.open_dataset(path, engine=engine, decode_times=False) as data:
        assert data["weights"].dims == ("step", "member", "entry")
        assert data["member_metrics"].dims == ("step", "member_metric", "member")
        np.testing.assert_array_equal(data["step"], 2 * np.arange(100))
        np.testing.assert_array_equal(data["weights"].values.view(np.uint32), states(0, 100).view(np.uint32))
        loss = data["metrics"].sel(metric=b"loss" if data["metric"].dtype.kind == "S" else "loss")
        np.testing.assert_array_equal(loss, numbers(0, 100, 1)[:, 0, 0])
        assert data.attrs["format"] == "trajtools"
    with xarray.open_dataset(path, group="parameters", engine=engine) as table:
        assert table["size"].values.tolist() == [210, 7, 13]
        assert table["name"].dims == ("row",)


def test_netcdf4_reads_the_file(path):
    netcdf = pytest.importorskip("netCDF4")
    with netcdf.Dataset(path) as data:
        assert {name: len(size) for name, size in data.dimensions.items()} == {
            "step": 100,
            "metric": 32,
            "member_metric": 8,
            "member": M,
            "entry": P,
        }
        assert data.dimensions["step"].isunlimited()
        np.testing.assert_array_equal(data["step"][:], 2 * np.arange(100))
        assert data.groups["nodes"]["size"][:].tolist() == [node.size for node in NODES]
