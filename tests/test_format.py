"""FORMAT.md, held to: nothing enters the file by accident, old files stay readable, strangers' files do no harm."""

from __future__ import annotations

import os
import pickle
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from stored_runs import METRICS, NODES, PARAMETERS, M, P, assert_whole, create, record, write

import trajtools as tt
from trajtools.store import FormatError, UnsafeFileError, repair, validate

DATA = Path(__file__).parent / "data"
LAW = Path(tt.__file__).parent / "FORMAT.md"


def errors(path):
    return [f"{p.where}: {p.words}" for p in validate(path) if p.severity == "error"]


@pytest.fixture(name="path")
def path_fixture(tmp_path):
    path = tmp_path / "run.h5"
    record(path, 100, "run", overhead={"seconds": 1.5}, hparams={"lr": 1.0}, reference="other")
    return path


def keys_of(file):
    found = []
    file.visititems(lambda name, item: found.append(name) or found.extend(f"{name}@{a}" for a in item.attrs))
    return sorted([*found, *(f"@{a}" for a in file.attrs)])


RUN_KEYS = [
    "",
    *("@hparams", "@overhead", "@provenance", "@reference", "@status", "@time_unit"),
    "/committed",
    *("/heartbeat", "/heartbeat@boot", "/heartbeat@host", "/heartbeat@process", "/heartbeat@started"),
    *("/members", "/metrics", "/metrics/accuracy", "/metrics/loss", "/nodes", "/parameters", "/step"),
]


@pytest.mark.parametrize(
    ("stored", "keys"),
    [
        ("weights", ["/weights", "/weights@logical_dtype"]),
        ("distances", ["/distances", "/distances@metric"]),
        ("sketch", ["/sketch", "/sketch@logical_dtype", "/sketch@settings"]),
    ],
)
def test_a_file_holds_exactly_the_keys_of_the_law(tmp_path, stored, keys):
    path = tmp_path / "run.h5"
    record(path, 70, stored=stored, overhead={"s": 1}, reference="other")
    with h5py.File(path, "r") as file:
        assert keys_of(file) == sorted(
            ["@format", "@format_version", "runs", *(f"runs/run{key}" for key in [*RUN_KEYS, *keys])]
        )
        assert file.attrs["format"] == b"trajtools"
        assert file.attrs["format_version"] == b"1.0"
    assert validate(path) == []


def test_shapes_and_dtypes_are_those_of_the_law(path):
    with h5py.File(path, "r") as file:
        run = file["runs/run"]
        found = {name: (run[name].shape, run[name].dtype.str) for name in ("committed", "heartbeat", "step", "weights")}
        assert found == {
            "committed": ((), "<i8"),
            "heartbeat": ((), "<f8"),
            "step": ((100,), "<i8"),
            "weights": ((100, M, P), "<f4"),
        }
        assert run["weights"].chunks == (64, 1, P)
        assert run["parameters"].dtype.names == (
            *("name", "kind", "ndim", "shape", "dtype", "offset", "size"),
            *("source", "target", "source_axis", "target_axis"),
        )
        assert run["nodes"].dtype.names == ("name", "size")
        assert run["members"].dtype.names == ("name", "reference", "epsilon", "norm", "seed", "noise")
        for cell in ("committed", "heartbeat"):
            assert run[cell].chunks is None
            assert run[cell].id.get_offset() % 8 == 0


def test_every_key_is_documented():
    law = LAW.read_text()
    with h5py.File(DATA / "v1.0" / "tiny.h5", "r") as file:
        for key in keys_of(file):
            name = key.split("@")[-1].split("/")[-1]
            if key.count("/") != 1:  # names of runs are free
                assert f"`{name}`" in law or f"/{name}" in law, key
    for optional in ("replay", "cache", "optimizer", "optimizer_parameters", "sketch", "distances", "reference"):
        assert f"`{optional}`" in law or f"`/{optional}`" in law


def test_the_file_of_version_1_0_reads_as_it_was_written():
    with tt.open(DATA / "v1.0" / "tiny.h5") as file:
        assert file.format_version == "1.0"
        assert list(file) == ["distances", "sketch", "weights"]
        for name, run in file.items():
            assert_whole(run, 70, stored=name)
            assert run.status == "complete"
            assert run.parameters == PARAMETERS
            assert run.nodes == NODES
            assert run.hparams == {"lr": 0.5}
    assert validate(DATA / "v1.0" / "tiny.h5") == []


def test_a_fresh_file_is_built_like_the_one_of_version_1_0(tmp_path):
    path = tmp_path / "tiny.h5"
    for index, stored in enumerate(("distances", "sketch", "weights")):
        record(path, 70, stored, "a" if index else "x", stored=stored, hparams={"lr": 0.5})
    with h5py.File(path, "r") as new, h5py.File(DATA / "v1.0" / "tiny.h5", "r") as old:
        assert keys_of(new) == keys_of(old)
        for key in keys_of(old):
            if "@" not in key and isinstance(old[key], h5py.Dataset):
                assert (new[key].shape, new[key].dtype, new[key].chunks) == (
                    old[key].shape,
                    old[key].dtype,
                    old[key].chunks,
                )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 some other file", "is not an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "could not open the file"),
    ],
)
def test_what_is_no_hdf5_is_refused_in_words(tmp_path, content, words):
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=words):
        tt.open(path)
    assert words in errors(path)[0]
    with pytest.raises(FormatError, match=words):
        repair(path)


def test_a_missing_file_and_a_folder_are_refused_in_words(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        tt.open(tmp_path / "none.h5")
    with pytest.raises(FormatError, match="is a folder"):
        tt.open(tmp_path)


def test_hdf5_that_is_not_ours_is_refused_in_words(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["weights"] = np.zeros((3, 3))
    with pytest.raises(FormatError, match="not a trajtools one"):
        tt.open(path)
    with pytest.raises(FormatError, match="not a trajtools one"):
        create(path, "run", "a")


def edit(path, change):
    with h5py.File(path, "r+", libver="v110") as file:
        change(file)


@pytest.mark.parametrize(
    ("version", "words"), [("2.0", "update trajtools"), ("0.9", "an older trajtools"), ("one", "two numbers")]
)
def test_another_major_version_is_refused(path, version, words):
    edit(path, lambda file: file.attrs.modify("format_version", np.bytes_(version)))
    with pytest.raises(FormatError, match=words):
        tt.open(path)
    assert words in errors(path)[0]


def test_a_newer_minor_version_is_read_and_said_but_not_written(path):
    edit(path, lambda file: file.attrs.create("format_version", "1.7"))
    with tt.open(path) as file:
        assert file.readable_newer
        assert_whole(file["run"], 100)
    assert any("newer" in p.words and p.severity == "warning" for p in validate(path))
    with pytest.raises(FormatError, match="versions are not mixed"):
        create(path, "other", "a")


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_refused_in_words(path, share):
    os.truncate(path, int(os.path.getsize(path) * share))
    with pytest.raises(FormatError, match="is truncated"):
        tt.open(path)
    assert "is truncated" in errors(path)[0]
    with pytest.raises(FormatError, match="is truncated"):
        repair(path)


@pytest.mark.parametrize("trials", [25, pytest.param(150, marks=pytest.mark.slow)])
def test_any_damaged_byte_gives_words_or_data_but_never_a_crash(path, tmp_path, trials):
    rng = np.random.default_rng(trials)
    whole = path.read_bytes()
    size = 12_000  # where the metadata lie
    for trial in range(trials):
        broken = bytearray(whole)
        for place in rng.integers(0, size, 3):
            broken[place] ^= int(rng.integers(1, 256))
        copy = tmp_path / f"{trial}.h5"
        copy.write_bytes(broken)
        try:
            with tt.open(copy) as file:
                for run in file.values():
                    run.states(slice(0, 3))
                    _ = run.step, dict(run.metrics), run.hparams, run.members, run.nodes
        except (FormatError, KeyError):
            pass
        validate(copy)


def poison(name):
    """Edits that make a file dangerous, and the words that must come."""

    def external_link(file):
        del file["runs/run/weights"]
        file["runs/run/weights"] = h5py.ExternalLink("/etc/passwd", "/x")

    def soft_link(file):
        del file["runs/run/step"]
        file["runs/run/step"] = h5py.SoftLink("/runs/run/committed")

    def virtual(file):
        del file["runs/run/weights"]
        layout = h5py.VirtualLayout((100, M, P), "f4", maxshape=(None, M, P))
        layout[:] = h5py.VirtualSource("/etc/other.h5", "x", (100, M, P))
        file["runs/run"].create_virtual_dataset("weights", layout)

    def external_storage(file):
        del file["runs/run/step"]
        file["runs/run"].create_dataset("step", (100,), "<i8", external=[("/etc/passwd", 0, 800)])

    def huge(file):
        del file["runs/run/weights"]
        weights = file["runs/run"].create_dataset(
            "weights", (10**12, M, P), "<f4", maxshape=(None, M, P), chunks=(64, 1, P)
        )
        weights.attrs["logical_dtype"] = "float32"
        del file["runs/run/step"]
        file["runs/run"].create_dataset("step", (10**12,), "<i8", maxshape=(None,), chunks=(64,))
        file["runs/run/committed"][()] = 10**12

    def huge_compressed(file):
        del file["runs/run/weights"]
        weights = file["runs/run"].create_dataset(
            "weights", (10**9, M, P), "<f4", maxshape=(None, M, P), chunks=(64, 1, P), compression="gzip"
        )
        weights.attrs["logical_dtype"] = "float32"
        del file["runs/run/step"]
        file["runs/run"].create_dataset("step", (10**9,), "<i8", maxshape=(None,), chunks=(64,), compression="gzip")
        file["runs/run/committed"][()] = 10**9

    def huge_table(file):
        kind = file["runs/run/members"].dtype
        del file["runs/run/members"]
        file["runs/run"].create_dataset("members", (10**10,), kind, chunks=(1024,))

    def objects(file):
        del file["runs/run/nodes"]
        kind = np.dtype([("name", h5py.string_dtype()), ("size", "<i8")])
        file["runs/run"].create_dataset("nodes", (1,), kind)

    def pickled(file):
        del file["runs/run/metrics/loss"]
        data = file["runs/run/metrics"].create_dataset("loss", (100,), h5py.vlen_dtype(np.uint8))
        data[0] = np.frombuffer(pickle.dumps(os.system), np.uint8)

    def cycle(file):
        file["runs/run/metrics/again"] = file["runs"]

    def twice(file):
        file["runs/run/metrics/again"] = file["runs/run/metrics/loss"]

    def long_json(file):
        file["runs/run"].attrs["hparams"] = '{"a": "' + "x" * 17_000_000 + '"}'

    def deep_json(file):
        file["runs/run"].attrs["hparams"] = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"

    def deeper_than_allowed(file):
        file["runs/run"].attrs["hparams"] = '{"a": ' + "[" * 70 + "]" * 70 + "}"

    def no_json(file):
        file["runs/run"].attrs["provenance"] = "{'a': 1}"

    def committed(file):
        file["runs/run/committed"][()] = 101

    def negative(file):
        file["runs/run/committed"][()] = -1

    def offsets(value):
        def change(file):
            table = file["runs/run/parameters"][:]
            table["offset"][1] = value
            file["runs/run/parameters"][:] = table

        return change

    def kind(file):
        table = file["runs/run/parameters"][:]
        table["kind"][0] = b"magic"
        file["runs/run/parameters"][:] = table

    def dtype(file):
        del file["runs/run/weights"]
        weights = file["runs/run"].create_dataset(
            "weights", (100, M, P), "<c8", maxshape=(None, M, P), chunks=(64, 1, P)
        )
        weights.attrs["logical_dtype"] = "complex64"

    def status(file):
        file["runs/run"].attrs["status"] = "fine"

    def missing(file):
        del file["runs/run/members"]

    def group_for_data(file):
        del file["runs/run/committed"]
        file["runs/run"].create_group("committed")

    def falling(file):
        file["runs/run/step"][5] = 3

    def member(file):
        table = file["runs/run/members"][:]
        table["reference"][1] = 9
        file["runs/run/members"][:] = table

    def nodes(file):
        table = file["runs/run/nodes"][:]
        table["size"][0] = 31
        file["runs/run/nodes"][:] = table

    def metric(file):
        del file["runs/run/metrics/loss"]
        file["runs/run/metrics"].create_dataset("loss", (100, 2), "<f8", maxshape=(None, 2), chunks=(64, 2))

    both = {
        "external_link": (external_link, "link to another file"),
        "soft_link": (soft_link, "link to another place"),
        "virtual": (virtual, "virtual dataset"),
        "external_storage": (external_storage, "has its data in another file"),
        "huge": (huge, "the whole file has"),
        "huge_compressed": (huge_compressed, "holds far fewer"),
        "huge_table": (huge_table, "the whole file has"),
        "committed": (committed, "declares 101 committed states"),
        "negative": (negative, "declares -1 committed states"),
        "negative_offset": (offsets(-5), "offsets must follow each other"),
        "huge_offset": (offsets(2**62), "offsets must follow each other"),
        "kind": (kind, "'magic' is none of"),
        "dtype": (dtype, "TypeComplexID|TypeCompoundID|of a known dtype|only numbers"),
        "missing": (missing, "lacks 'members'"),
        "group_for_data": (group_for_data, "must be a dataset"),
        "objects": (objects, "text of variable length"),
        "pickled": (pickled, "only numbers and text"),
        "long_json": (long_json, "at most 16777216 are read"),
        "deep_json": (deep_json, "is not JSON|nested at most 64"),
        "deeper_than_allowed": (deeper_than_allowed, "nested at most 64"),
        "no_json": (no_json, "is not JSON"),
        "cycle": (cycle, "second hard link"),
        "twice": (twice, "second hard link"),
        "status": (status, "must be one of recording"),
        "falling": (falling, "must rise"),
        "member": (member, "refers to member 9"),
        "nodes": (nodes, "has 30 entries"),
        "metric": (metric, r"must have the shape \(T,\)"),
    }
    return both if name is None else both[name]


@pytest.mark.parametrize("name", list(poison(None)))
def test_validate_names_what_is_wrong(path, name):
    change, words = poison(name)
    edit(path, change)
    found = errors(path)
    assert any(re.search(words, line) for line in found), found


@pytest.mark.parametrize("name", list(poison(None))[:15])
def test_what_is_dangerous_is_refused_before_it_is_read(path, name):
    change, words = poison(name)
    edit(path, change)

    def read():
        with tt.open(path) as file:
            run = file["run"]
            _ = run.step, run.states(slice(0, 1))

    with pytest.raises(FormatError, match=words) as refusal:
        read()
    if name in ("external_link", "soft_link", "virtual", "external_storage", "huge", "huge_compressed", "huge_table"):
        assert isinstance(refusal.value, UnsafeFileError)


@pytest.mark.parametrize("name", ["objects", "pickled", "long_json", "deep_json", "deeper_than_allowed", "no_json"])
def test_what_is_dangerous_in_a_part_leaves_the_rest_readable(path, name):
    change, words = poison(name)
    edit(path, change)
    with tt.open(path) as file:
        run = file["run"]
        np.testing.assert_array_equal(run.step, 2 * np.arange(100))
        parts = {
            "objects": lambda: run.nodes,
            "pickled": lambda: run.metrics["loss"],
            "no_json": lambda: run.provenance,
        }
        with pytest.raises(FormatError, match=words):
            parts.get(name, lambda: run.hparams)()


def test_unknown_keys_are_ignored_and_told(path):
    edit(path, lambda file: file["runs/run"].create_dataset("novelty", data=1.0))
    with tt.open(path) as file:
        assert_whole(file["run"], 100)
    assert [str(p) for p in validate(path)] == [
        "warning: /runs/run: 'novelty' is not part of the format and is ignored"
    ]


def test_an_older_superblock_is_read_too(path, tmp_path):
    copy = tmp_path / "copy.h5"
    with h5py.File(path, "r") as old, h5py.File(copy, "w", libver="earliest") as new:
        new.attrs.update(old.attrs)
        old.copy("runs", new)
    with tt.open(copy) as file:
        assert_whole(file["run"], 100)


def test_an_interrupted_run_is_valid_with_a_warning(tmp_path):
    path = tmp_path / "run.h5"
    writer = create(path)
    writer.begin(METRICS)
    write(writer, 0, 64)
    writer.abort()
    copy = tmp_path / "copy.h5"
    shutil.copy(path, copy)
    assert [p.severity for p in validate(copy)] == ["warning"]
    assert "the writer died" in validate(copy)[0].words
