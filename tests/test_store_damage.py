"""Damaged and hostile files: what is whole is read, nothing else is returned, and nothing crashes or hangs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import damaged_runs as dr
import h5py
import numpy as np
import pytest

from trajtools.errors import DamagedError, FileBusyError, FormatError, TrajtoolsError, UnsafeFileError
from trajtools.store import Run, RunSpec, RunWriter, files, isolation, layout, open as open_run, probe, repair, validate
from trajtools.wiring import Member, Parameter

KINDS = {
    "weights": {},
    "gzip": {"compress": "gzip"},
    "optimizer": {"optimizer": True, "compress": "zstd"},
    "sketch": {"stored": "sketch"},
    "distances": {"stored": "distances"},
    "killed": {"end": "killed"},
    "dense attributes": {"hparams": {"text": "y" * 70_000}},
    "many blocks": {"n_states": 1200, "n_parameters": 8, "flush": ()},
}
ROWS = 64


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.h5"


def errors_of(path) -> list[str]:
    return [str(p) for p in validate(path) if p.severity == "error"]


# -------------------------------------------------------------------------------------------- damage at random places


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_never_gives_other_data(kind, path, tmp_path):
    dr.write(path, **KINDS[kind])
    counts, notable = dr.tally(path, dr.flip_anywhere, range(30), tmp_path)
    assert not dr.NEVER & set(counts), notable
    assert counts["crashed in the child"] == 0, notable


@pytest.mark.parametrize("kind", ["weights", "dense attributes", "many blocks"])
@pytest.mark.parametrize("checksums", [False, True])
def test_damaged_metadata_never_give_other_data(kind, checksums, path, tmp_path):
    dr.write(path, **KINDS[kind])
    mutate = dr.MetadataMutation(path.read_bytes(), checksums=checksums)
    counts, notable = dr.tally(path, mutate, range(30), tmp_path)
    assert not dr.NEVER & set(counts), notable


FATAL = {  # to HDF5 2.0: block, place in it, bytes
    "records without a size": (b"BTHD", 10, (0).to_bytes(2, "little")),
    "records of another kind": (b"BTHD", 5, b"\x01"),
    "a node larger than the file": (b"BTHD", 6, b"\xff" * 4),
    "more records than a node holds": (b"BTHD", 24, b"\xff\0\xff\0"),
    "a heap without a width": (b"FRHP", 110, (0).to_bytes(2, "little")),
    "a heap of too many rows": (b"FRHP", 140, b"\xff\xff"),
    "an index that never ends": (b"EAHD", 44, (2**40).to_bytes(8, "little") * 2),
    "an index of more than there is": (b"EAHD", 44, (2**40).to_bytes(8, "little")),
}


@pytest.mark.parametrize("what", FATAL)
def test_metadata_that_hdf5_does_not_survive_are_damage(what, path, tmp_path):
    dr.write(path, hparams={"text": "y" * 70_000})
    signature, place, value = FATAL[what]
    data = path.read_bytes()
    places = [(at, length) for at, length in dr.metadata_blocks(data) if data[at : at + 4] == signature]
    assert places
    copies = []
    for at, length in places:
        changed = bytearray(data)
        changed[at + place : at + place + len(value)] = value
        dr.seal_block(changed, at, length)
        copies.append(tmp_path / f"{at}.h5")
        copies[-1].write_bytes(changed)
        os.utime(copies[-1], (1, 1))
    for copy, answer in isolation.in_child(dr.read_all, list(map(str, copies))):
        assert isinstance(answer, dict | FormatError), (copy, answer)
        assert not isinstance(answer, UnsafeFileError), (copy, answer)


@pytest.mark.parametrize("kind", ["weights", "gzip", "many blocks"])
def test_everything_before_a_cut_is_read(kind, path, tmp_path):
    truth = dr.write(path, **KINDS[kind])
    whole = path.read_bytes()
    with Run(path) as run:
        run.locate_all()
        ends = {
            (name, block): int((run.blocks._offsets[name][block] + run.blocks._sizes[name][block]).max())
            for name in run.axis.streams
            for block in range(run.blocks.n_blocks)
        }
    structure = min(int(end) for end in ends.values()) - 1000
    cut = tmp_path / "cut.h5"
    for length in np.linspace(structure, len(whole) - 1, 10).astype(int).tolist():
        cut.write_bytes(whole[:length])
        os.utime(cut, (1, 1))
        try:
            run = Run(cut)
        except FormatError:
            assert length < structure + 70_000  # the cells, notes or tables are gone
            continue
        with run:
            assert run.is_cut
            assert run.n_states == len(truth["step"])
            for (name, block), end in ends.items():
                rows = slice(ROWS * block, ROWS * (block + 1))
                if name in truth and end <= length:
                    read = (
                        run.states.read(rows)
                        if name == "weights"
                        else run.series(name, rows.start, min(rows.stop, run.n_states))
                    )
                    assert (read == truth[name][rows]).all()
                elif name == "weights" and rows.stop <= run.n_states:
                    with pytest.raises(DamagedError, match=f"states {rows.start} to"):
                        run.states[rows.start]
    problems = [str(p) for p in validate(cut)]
    assert problems[0].startswith(f"error: file: it was cut short ({len(whole) - 1} of {len(whole)} bytes are left); ")
    assert f"--salvage NEW.h5 {cut}" in problems[0]
    cut.write_bytes(whole[:2000])
    os.utime(cut, (1, 1))
    with pytest.raises(
        FormatError,
        match=rf"was cut short \(2000 of {len(whole)} bytes are left\), and a part of the structure is gone",
    ):
        Run(cut)


# ------------------------------------------------------------------------------------------------ damage of one place


def test_damage_of_one_chunk_leaves_the_rest(path):
    truth = dr.write(path)
    dr.flip(path, dr.chunk_place(path, "weights", 1, 2) + 5)
    with Run(path) as run:
        with pytest.raises(DamagedError, match=r"weights of the states 64 to 127 \(member 2\)"):
            run.states[64]
        assert (run.states[:64] == truth["weights"][:64]).all()
        assert (run.states[64:128, :2] == truth["weights"][64:128, :2]).all()
        assert (run.metrics["loss"] == truth["loss"]).all()
    assert errors_of(path) == [
        "error: weights: member twin 2 in the states 64 to 127 (steps 640 to 1270) do not match their checksums and "
        "are lost"
    ]


def test_damage_of_an_index_is_not_said_of_the_data(path):
    dr.write(path)
    data = path.read_bytes()
    at, messages = data.find(b"EAHD"), []  # the header of each stream's index of chunks
    while at >= 0:
        path.write_bytes(data)
        dr.flip(path, at + 8)
        messages += [text for text in errors_of(path) if "own index of" in text]
        at = data.find(b"EAHD", at + 1)
    assert any(text.startswith("error: weights: ") for text in messages)
    for text in messages:
        assert text.endswith(" is damaged) and are lost") or text.startswith("error: plantings: ")
        assert ("of the plantings 0 to 1" in text) == text.startswith("error: plantings")
        assert "do not match" not in text


def test_validate_names_everything_at_once(path):
    dr.write(path)
    for stream, block, chunk in (("step", 0, 0), ("weights", 0, 0), ("metrics", 1, 0), ("weights", 2, 1)):
        dr.flip(path, dr.chunk_place(path, stream, block, chunk) + 1)
    with h5py.File(path, "r+") as file:
        file.attrs["mine"] = 1
        file["extra"] = np.arange(3)
        file["store/extra"] = h5py.SoftLink("/step")
    text = "\n".join(map(str, validate(path)))
    for part in (
        "error: step: all of the states 0 to 63 do not match",
        "error: weights: member ref in the states 0 to 63 do not match",
        "error: weights: member twin 1 in the states 128 to 149 (steps 1280 to 1490)",
        "error: metrics: loss of the states 64 to 127 (steps 640 to 1270)",
        "warning: extra:",
        "warning: /: the format does not know its attribute 'mine'",
        "error: store/extra: /store/extra is a link",
    ):
        assert part in text, text


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_without_damage_has_no_problems(kind, path):
    dr.write(path, **KINDS[kind])
    assert validate(path) == []


def test_empty_parameters_and_empty_runs_are_valid(path, tmp_path):
    parameters = [Parameter("empty", "other", (0, 4), "float32", 0, 0), Parameter("w", "other", (5,), "float32", 0, 5)]
    RunWriter.create(path, RunSpec(parameters=parameters, members=[Member("ref")], dtype="float32")).close()
    assert validate(path) == []


def test_damaged_notes_cost_the_names_only(path, tmp_path):
    truth = dr.write(path)
    with Run(path) as run:
        place = run.places["store/notes"] + run.cells.notes * layout.NOTES_BYTES
    dr.flip(path, place + 40)
    with Run(path) as run:
        assert (run.states[:] == truth["weights"]).all()
        with pytest.raises(DamagedError, match="names of its metrics"):
            list(run.metrics)
    assert "error: store/notes: the notes do not match their checksum" in errors_of(path)
    repair(path, salvage=tmp_path / "out.h5")
    with Run(tmp_path / "out.h5") as run:
        assert (run.metrics["loss"] == truth["loss"]).all()


def test_a_damaged_name_in_the_list_is_taken_from_the_notes(path):
    truth = dr.write(path)
    with Run(path) as run:
        place = run.places["metric"]
    dr.flip(path, place)
    with Run(path) as run:
        assert (run.metrics["loss"] == truth["loss"]).all()
    assert any("names of metrics" in text for text in errors_of(path))


# --------------------------------------------------------------------------------------------------- repair, salvage


def test_repair_of_a_killed_writer(path):
    truth = dr.write(path, end="killed")
    data = bytearray(path.read_bytes())
    data[11] = 5  # the mark of a writer, which is there for a moment of each flush
    data[44:48] = files.lookup3(bytes(data[:44])).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(OSError, match="already open for write"):
        h5py.File(path, "r")
    assert [str(p) for p in validate(path)] == [
        "warning: file: it has the mark of a writer that is gone; `trajtools repair` clears it"
    ]
    result = repair(path)
    assert result.changed
    assert result.states == 150
    with h5py.File(path, "r") as file:
        assert (file["weights"][:150] == truth["weights"]).all()
    with Run(path) as run:
        assert run.status == "interrupted"
    before = path.read_bytes(), path.stat().st_mtime_ns
    again = repair(path)
    assert not again.changed
    assert not again.changed
    assert again.actions[0].startswith("nothing to repair")
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert validate(path) == []


def test_repair_never_touches_a_living_writer(path):
    parameters = [Parameter("w", "other", (5,), "float32", 0, 5)]
    writer = RunWriter.create(path, RunSpec(parameters=parameters, members=[Member("ref")], dtype="float32"))
    before = path.read_bytes()
    with pytest.raises(FileBusyError):
        repair(path)
    assert path.read_bytes() == before
    writer.write(0, 3, step=np.arange(3), weights=writer.layout.new_tiles())
    assert repair(path, salvage=path.with_name("out.h5")).states == 3
    writer.close()


WRITE = """
import os, sys, time
import numpy as np
from trajtools.store import RunSpec, RunWriter
from trajtools.wiring import Member, Parameter
parameters, members = [Parameter("w", "other", (5,), "float32", 0, 5)], [Member("ref")]
w = RunWriter.create(sys.argv[1], RunSpec(parameters, members, "float32"))
w.write(0, 3, step=np.arange(3), weights=w.layout.new_tiles())
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def writer_process(path):
    process = subprocess.Popen([sys.executable, "-c", WRITE, path], stdout=subprocess.PIPE, env={
        **os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)})  # fmt: skip
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs signals")
def test_a_stopped_writer_is_a_living_one(path, writer_process):
    os.kill(writer_process.pid, signal.SIGSTOP)
    os.utime(path, (1, 1))
    with pytest.raises(FileBusyError):
        repair(path)
    os.kill(writer_process.pid, signal.SIGCONT)


def test_without_locks_the_process_of_the_writer_tells(path, writer_process, monkeypatch):
    monkeypatch.setattr(files, "lock", lambda file, shared=False: None)
    before = path.read_bytes()
    with pytest.raises(FileBusyError, match="no locks"):
        repair(path)
    assert path.read_bytes() == before
    writer_process.kill()
    writer_process.wait()
    assert repair(path).changed
    with h5py.File(path, "r") as file:
        assert file["weights"].shape == (3, 1, 5)


def test_files_beside_it_are_never_touched(path):
    dr.write(path, end="killed")
    journal = path.with_name(path.name + ".journal")
    journal.write_text("mine")
    Run(path).close()
    repair(path)
    validate(path)
    repair(path, salvage=path.with_name("out.h5"))
    assert journal.read_text() == "mine"


@pytest.mark.parametrize("kind", KINDS)
def test_salvage_gives_all_whole_states(kind, path, tmp_path):
    truth = dr.write(path, **KINDS[kind])
    stream = KINDS[kind].get("stored", "weights")
    n = len(truth["step"])
    dr.flip(path, dr.chunk_place(path, stream, 1, 0) + 9)
    before, out = path.read_bytes(), tmp_path / "out.h5"
    result = repair(path, salvage=out)
    keep = np.r_[:64, 128:n]
    assert path.read_bytes() == before
    assert result.states == n - 64
    assert result.lost.tolist() == truth["step"][64:128].tolist()
    assert "64 to 127 (steps 640 to 1270)" in " ".join(str(result).split())
    assert validate(out) == []
    with Run(path) as source, Run(out) as run:
        assert (run.step == truth["step"][keep]).all()
        read = {"weights": lambda: run.states[:], "sketch": lambda: run.sketch, "distances": lambda: run.distances}[
            stream
        ]
        assert (read() == truth[stream][keep]).all()
        for name in ("loss", "accuracy", "late"):
            assert np.array_equal(run.metrics[name], truth[name][keep], equal_nan=True)
        if "optimizer" in truth:
            assert (run.optimizer[:] == truth["optimizer"][keep]).all()
        assert (run.plantings["step"] == [20, 40]).all()
        for name in ("name", "hparams", "provenance", "parameters", "members", "nodes", "sketch_settings"):
            assert repr(getattr(run, name)) == repr(getattr(source, name))
        assert run.status == "interrupted"
        assert run.notes["salvaged"]["uuid"] == source.uuid


def test_salvage_overwrites_nothing(path, tmp_path):
    dr.write(path)
    (tmp_path / "out.h5").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="choose another path"):
        repair(path, salvage=tmp_path / "out.h5")
    assert (tmp_path / "out.h5").read_bytes() == b"mine"


def test_salvage_without_a_count_of_states(path, tmp_path):
    truth = dr.write(path)
    with Run(path) as run:
        place = run.places["store/cells"]
    dr.flip(path, place)
    with pytest.raises(DamagedError, match="count of committed states"):
        Run(path)
    assert len(errors_of(path)) == 1
    result = repair(path, salvage=tmp_path / "out.h5")
    assert result.states == 150
    with Run(tmp_path / "out.h5") as run:
        assert list(run.metrics) == ["accuracy", "late", "loss"]
    with Run(tmp_path / "out.h5") as run:
        assert (run.states[:] == truth["weights"]).all()
        assert (run.plantings["step"] == [20, 40]).all()


@pytest.mark.parametrize("position", [0, 3, 8, 11, 20, 30, 40, 45])
def test_salvage_with_a_damaged_superblock(position, path, tmp_path):
    truth = dr.write(path, n_states=20)
    dr.flip(path, position)
    with pytest.raises(FormatError):
        Run(path)
    assert len(errors_of(path)) == 1
    assert repair(path, salvage=tmp_path / "out.h5").states == 20
    with Run(tmp_path / "out.h5") as run:
        assert (run.states[:] == truth["weights"]).all()


@pytest.mark.parametrize("table", ["parameters", "members", "nodes", "optimizer_parameters"])
def test_a_damaged_table_costs_nothing(table, path, tmp_path):
    truth = dr.write(path, n_states=20, optimizer=True)
    with h5py.File(path, "r") as file:
        place = h5py.h5o.get_info(file[f"{table}/name"].id).addr
    dr.flip(path, place + 20)
    assert any(text.startswith(f"error: {table}") for text in errors_of(path))
    repair(path, salvage=tmp_path / "out.h5")
    for one in (path, tmp_path / "out.h5"):
        with Run(one) as run:
            assert (run.states[:] == truth["weights"]).all()
            assert (run.optimizer[:] == truth["optimizer"]).all()
            assert repr(run.members) == repr(dr.MEMBERS)
    assert validate(tmp_path / "out.h5") == []


@pytest.mark.parametrize("what", ["text", "header"])
@pytest.mark.parametrize("name", layout.STRUCTURES)
def test_a_damaged_copy_of_the_structure_costs_nothing(name, what, path, tmp_path):
    truth = dr.write(path, n_states=20)
    places = {}
    with h5py.File(path, "r") as file:
        for one in layout.STRUCTURES:
            dataset = file[one].id
            places[one] = dataset.get_offset() + 100 if what == "text" else h5py.h5o.get_info(dataset).addr + 8
    dr.flip(path, places[name])
    assert [text.split(": ")[1] for text in errors_of(path)].count(name) >= 1
    repair(path, salvage=tmp_path / "out.h5")
    for one in (path, tmp_path / "out.h5"):
        with Run(one) as run:
            assert (run.states[:] == truth["weights"]).all()
    for place in set(places.values()) - {places[name]}:
        dr.flip(path, place)
    with pytest.raises(FormatError, match="no copy of its structure"):
        Run(path)


def test_salvage_of_a_cut_file(path, tmp_path):
    truth = dr.write(path)
    end = dr.chunk_place(path, "weights", 1, 0) + 100
    os.truncate(path, end)
    with Run(path) as run, pytest.raises(DamagedError, match="was cut"):
        RunWriter.resume(path, RunSpec(parameters=run.parameters, members=run.members, dtype="float32"))
    with pytest.raises(DamagedError, match="bytes are left"):
        repair(path)
    assert path.stat().st_size == end
    assert repair(path, salvage=tmp_path / "out.h5").states == 64
    with Run(tmp_path / "out.h5") as run:
        assert (run.states[:] == truth["weights"][:64]).all()
        assert run.status == "interrupted"
        assert run.ended == f"salvaged: 64 of {len(truth['step'])} states are whole"
        assert run.remarks[0].startswith("lost ")


def test_salvage_that_cannot_be_says_so(path, tmp_path):
    dr.write(path, n_states=10)
    out = tmp_path / "out.h5"
    out.write_text("mine")
    with pytest.raises(FileExistsError):
        repair(path, salvage=out)
    assert out.read_text() == "mine"
    out.unlink()
    dr.flip(path, dr.chunk_place(path, "weights", 0, 0))
    with pytest.raises(DamagedError, match="no state"):
        repair(path, salvage=out)
    dr.flip(path, dict(dr.metadata_blocks(path.read_bytes())[1:2]).popitem()[0] + 8)  # the object header of the root
    with pytest.raises(FormatError, match="damaged"):
        repair(path, salvage=out)
    assert not out.exists()


# ------------------------------------------------------------------------------------------------------ hostile files


def external_link(file: h5py.File, name: str) -> None:
    fifo = Path(file.filename).with_name("fifo")
    if not fifo.exists():
        os.mkfifo(fifo)
    if name in file:
        del file[name]
    file[name] = h5py.ExternalLink(str(fifo), "/x")


def virtual(file: h5py.File, name: str = "step") -> None:
    length = file[name].shape[0]
    del file[name]
    source = h5py.VirtualSource("elsewhere.h5", "x", shape=(length,))
    virtual_layout = h5py.VirtualLayout(shape=(length,), dtype="<i8")
    virtual_layout[:] = source
    file.create_virtual_dataset(name, virtual_layout)


def external_storage(file: h5py.File) -> None:
    del file["metric"]
    file.create_dataset("metric", (32,), "S64", external=[("/etc/passwd", 0, 2048)])


def soft_link(file: h5py.File) -> None:
    file.move("weights", "elsewhere")
    file["weights"] = h5py.SoftLink("/elsewhere")


def variable_text(file: h5py.File) -> None:
    del file["parameters/name"]
    file["parameters"].create_dataset("name", data=["w"], dtype=h5py.string_dtype())


def variable_attribute(file: h5py.File) -> None:
    file.attrs["name"] = "a"


def set_cells(file: h5py.File, **changes: int) -> None:
    cells = layout.Cells.unpack(file["store/cells"][()].tobytes())
    for name, value in changes.items():
        setattr(cells, name, value)
    file["store/cells"][...] = np.frombuffer(cells.pack(), "<i8")


def huge_shape(file: h5py.File) -> None:
    for name in ("step", "metrics", "member_metrics", "weights"):
        file[name].resize(2**40, axis=0)
    set_cells(file, committed=2**40)


def committed_beyond(file: h5py.File) -> None:
    set_cells(file, committed=151)


def planted_beyond(file: h5py.File) -> None:
    set_cells(file, plantings=2**50)


def large_chunks(file: h5py.File) -> None:
    n = len(file["weights"])
    del file["weights"]
    dataset = file.create_dataset("weights", (n, dr.M, 2**22), "<f4", maxshape=(None, dr.M, 2**22),
                                  chunks=(64, 1, 2**22), compression="gzip", shuffle=True)  # fmt: skip
    layout.set_text(dataset.id, "logical_dtype", "float32")
    dataset.id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(2**26), 1))


def cycle(file: h5py.File) -> None:
    file["loop"] = file["/"]
    del file["weights"]


def deep_json(file: h5py.File) -> None:
    dr.edit_structure(file, lambda s: s["texts"].update(hparams='{"a":' * 5000 + "1" + "}" * 5000))


def large_tables(file: h5py.File) -> None:
    dr.edit_structure(file, lambda s: s["tables"]["members"].update(name=["x" * 2**26]))


HOSTILE = {
    **{f"external link {n}": (lambda f, n=n: external_link(f, n), "link")
       for n in ("weights", "store", "store/cells", "store/structure", "store/checksums")},
    "virtual": (virtual, "virtual"),
    "soft link": (soft_link, "link"),
    "huge shape": (huge_shape, "declares"),
    "committed beyond": (committed_beyond, "declares 151 committed states"),
    "planted beyond": (planted_beyond, "declares"),
    "large chunks": (large_chunks, "chunks"),
    "cycle": (cycle, "missing"),
    "deep json": (deep_json, "JSON"),
    "large tables": (large_tables, "at most 67108864"),
}  # fmt: skip
UNREAD = {
    **{f"external link {n}": (lambda f, n=n: external_link(f, n), "link")
       for n in ("parameters/name", "optimizer", "nodes")},
    "external storage": (external_storage, "another file"),
    "variable text": (variable_text, "variable length"),
    "variable attribute": (variable_attribute, "variable length"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_hostile_files_are_refused_with_one_sentence(name, path, tmp_path):
    make, words = HOSTILE[name]
    dr.write(path, hparams={"room": "y" * 60_000})
    with h5py.File(path, "r+") as file:
        make(file)
    os.utime(path, (1, 1))
    for call in (Run, lambda p: open_run(p, isolated=True), lambda p: repair(p, salvage=tmp_path / "out.h5")):
        if name in ("committed beyond", "variable attribute") and call not in (Run,):
            continue  # can be salvaged
        with pytest.raises(TrajtoolsError) as caught:
            call(path)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert any(words in text or "missing" in text for text in errors_of(path))


@pytest.mark.parametrize("name", UNREAD)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_hostile_objects_that_nobody_reads_are_named(name, path, tmp_path):
    make, words = UNREAD[name]
    truth = dr.write(path)
    with h5py.File(path, "r+") as file:
        make(file)
    os.utime(path, (1, 1))
    assert any(words in text for text in errors_of(path))
    repair(path, salvage=tmp_path / "out.h5")
    for one in (path, tmp_path / "out.h5"):
        with open_run(one, isolated=True) as run:
            assert (run.states[:] == truth["weights"]).all()
            assert repr(run.members) == repr(dr.MEMBERS)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_plantings_that_lead_elsewhere_are_refused_when_they_are_read(path):
    truth = dr.write(path)
    with h5py.File(path, "r+") as file:
        external_link(file, "plantings")
    os.utime(path, (1, 1))
    with Run(path) as run:
        assert (run.states[:] == truth["weights"]).all()
        with pytest.raises(UnsafeFileError, match="link"):
            run.plantings  # noqa: B018
    assert any("link" in text for text in errors_of(path))


def test_a_chunk_that_inflates_takes_no_more_than_it_may(path):
    dr.write(path, compress="gzip")
    packer = zlib.compressobj(9)
    head = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    more = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)  # may be repeated after a full flush
    bomb = head + 127 * more  # of 2 GiB
    assert len(zlib.decompressobj().decompress(head + more)) == 2**25
    with h5py.File(path, "r+") as file:
        file["weights"].id.write_direct_chunk((64, 0, 0), bomb)
    answers = dict(isolation.in_child(dr.read_all, [str(path)]))
    assert answers[str(path)]["weights 1"].startswith("damaged")
    assert len(errors_of(path)) == 1


def test_what_is_no_run_is_refused(tmp_path):
    places = {name: tmp_path / name for name in ("folder", "empty", "text", "foreign", "fifo", "head")}
    places["folder"].mkdir()
    places["empty"].touch()
    places["text"].write_text("x" * 1000)
    h5py.File(places["foreign"], "w", libver=files.LIBVER).close()
    places["head"].write_bytes(places["foreign"].read_bytes()[:60])
    if hasattr(os, "mkfifo"):
        os.mkfifo(places["fifo"])
    for place in places.values():
        if place.exists():
            with pytest.raises(FormatError):
                Run(place)
            assert errors_of(place)
    with pytest.raises(FileNotFoundError):
        validate(tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        repair(tmp_path / "missing")


# --------------------------------------------------------------------------------------------------------- isolation


@pytest.fixture(params=["fork", "subprocess"])
def child(request, monkeypatch):
    if request.param == "fork" and not hasattr(os, "fork"):
        pytest.skip("no fork here")
    monkeypatch.setattr(isolation, "_can_fork", lambda: request.param == "fork")
    return request.param


def test_one_child_reads_many_files(child, path, tmp_path):
    dr.write(path, n_states=5)
    data = path.read_bytes()
    broken, text = tmp_path / "broken.h5", tmp_path / "text.h5"
    broken.write_bytes(data[:2000])
    text.write_text("nothing")
    result = probe([path, broken, tmp_path / "missing.h5", text])
    assert [type(error).__name__ for error in result.values()] == [
        "NoneType", "FormatError", "FileNotFoundError", "FormatError"]  # fmt: skip
    assert all("\n" not in str(error) for error in result.values())
    with open_run(path, isolated=True) as run:
        assert run.n_states == 5


@pytest.mark.skipif(isolation.resource is None, reason="POSIX")
def test_a_child_that_does_not_survive_is_one_sentence(child, path, monkeypatch):
    dr.write(path, n_states=5)
    monkeypatch.setattr(isolation, "SECONDS", 1.0)
    tasks = {"crash": "crashed HDF5 (SIGSEGV)", "end": "ended the process", "hang": "did not end within 1 s",
             "fill_memory": "more than 1 GiB of memory", "raise_bug": "cannot be opened: a bug"}  # fmt: skip
    for task, words in tasks.items():
        copies = [str(path)] * (2 if task in ("crash", "hang") else 1)
        answers = list(isolation.in_child(getattr(dr, task), copies))
        assert len(answers) == len(copies)
        for _, answer in answers:
            assert isinstance(answer, UnsafeFileError)
            assert words in str(answer)
    assert threading.active_count() < 10


def test_without_a_child_nothing_is_opened(path, monkeypatch):
    dr.write(path, n_states=5)
    monkeypatch.setattr(isolation, "_can_fork", lambda: False)
    monkeypatch.setattr(isolation, "_SUBPROCESS", "raise SystemExit(3)")
    with pytest.raises(UnsafeFileError, match="no process could be started"):
        open_run(path, isolated=True)


def test_the_child_needs_no_resource_module(path, monkeypatch):
    dr.write(path, n_states=5)
    monkeypatch.setattr(isolation, "resource", None)
    assert probe([path]) == {path: None}


def test_files_opened_before_need_no_child(path, monkeypatch):
    dr.write(path, n_states=5)
    assert probe([path]) == {path: None}

    def refuse(task, items):
        assert not items
        return []

    with monkeypatch.context() as patch:
        patch.setattr(isolation, "in_child", refuse)
        assert probe([path]) == {path: None}
        os.utime(path, (1, 1))
        with pytest.raises(AssertionError):
            probe([path])


def test_the_memory_of_files_is_bounded_and_may_be_lost(path, monkeypatch, tmp_path):
    dr.write(path, n_states=5)
    monkeypatch.setattr(isolation, "_MEMORY_SIZE", 3)
    place = isolation._memory_path()
    for number in range(5):
        copy = tmp_path / f"{number}.h5"
        copy.write_bytes(path.read_bytes())
        assert probe([copy]) == {copy: None}
    assert len(json.loads(place.read_text())) == 3
    for content in ("", "[1]", "{", '{"a": 3}'):
        place.write_text(content)
        assert probe([path]) == {path: None}
    place.unlink()
    place.mkdir()
    assert probe([path]) == {path: None}
