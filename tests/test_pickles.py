"""Pickles are read without executing anything, in bounded time and memory."""

import argparse
import collections
import io
import os
import pathlib
import pickle
import random
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from trajtools.checkpoints import convert, pickles
from trajtools.checkpoints.arrays import leaf_of
from trajtools.checkpoints.pickles import Inert, Machine, PickleError
from trajtools.errors import DataError, TrajtoolsError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None)
@given(PLAIN, st.integers(0, 5))
def test_plain_values_come_out_as_pickle_reads_them(value, protocol):
    assert Machine(pickle.dumps(value, protocol)).run() == value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "i2", "?", "c8"])
def test_arrays_come_out_bit_for_bit(protocol, dtype):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    for one in (array, np.asfortranarray(array), array[:0], array[1, 2]):
        leaf = leaf_of(Machine(pickle.dumps({"a": one}, protocol)).run()["a"])
        np.testing.assert_array_equal(leaf.read(), one)
        assert leaf.dtype == one.dtype.name


def test_objects_are_records_of_their_class():
    values = {
        "path": pathlib.PurePosixPath("/x"),
        "namespace": argparse.Namespace(lr=0.1),
        "ordered": collections.OrderedDict(a=1),
        "counter": collections.Counter("aab"),
        "function": os.system,
    }
    content = Machine(pickle.dumps(values)).run()
    assert content["path"].origin.endswith("PurePosixPath")
    assert content["namespace"].origin == "argparse.Namespace"
    assert content["namespace"].state == {"lr": 0.1}
    assert content["ordered"] == {"a": 1}
    assert isinstance(content["counter"], Inert)
    assert content["function"].name.endswith(".system")


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def payloads(command):
    """Every way in which a pickle can call a function."""
    line = command.encode()
    return [
        pickle.dumps(Runs(command), 0),
        pickle.dumps(Runs(command), 2),
        pickle.dumps(Runs(command), 5),
        b"(S'" + line + b"'\nios\nsystem\n.",
        b"(cos\nsystem\nS'" + line + b"'\no.",
        b"\x80\x02cos\nsystem\n(S'" + line + b"'\nt\x81.",
        b"\x80\x04cos\nsystem\n(S'" + line + b"'\nt}\x92.",
        b'\x80\x02cbuiltins\neval\n(S\'__import__("os").system("' + line + b"\")'\ntR.",
        # An object of ours is called and rebuilt: nothing of it can be replaced.
        b"\x80\x02ccollections\nOrderedDict\n)R}S'__class__'\ncos\nsystem\nsb.",
        b"\x80\x02cnumpy\ndtype\n(cos\nsystem\ntR.",
    ]


def torch_file(path, body, numbers=b"\0" * 16):
    """Write what torch.save would, around a pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/data/0", numbers)


TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nK\x04tQK\x00%s%s\x89}tR"
SQUARE = TENSOR % (b"K\x02K\x02\x86", b"K\x02K\x01\x86")


@pytest.mark.parametrize("number", range(10))
def test_a_payload_is_never_run_and_does_not_hide_the_tensors(tmp_path, number):
    command = f"touch {tmp_path}/owned"
    body = payloads(command)[number]
    assert not callable(Machine(body).run())
    (tmp_path / "saved").mkdir()
    inside = body.removeprefix(b"\x80\x02").removesuffix(b".")
    torch_file(tmp_path / "saved" / "1.pt", b"\x80\x02}(S'model'\n}S'w'\n" + SQUARE + b"sS'evil'\n" + inside + b"u.")
    assert convert(tmp_path / "saved", tmp_path / "out.h5").entry == "model"
    (tmp_path / "saved" / "1.pkl").write_bytes(body)
    with pytest.raises(DataError, match=r"1\.pkl"):
        convert(tmp_path / "saved", tmp_path / "none.h5", files="*.pkl")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.h5", "saved"]


def test_an_object_in_the_place_of_a_tensor_is_named(tmp_path):
    (tmp_path / "saved").mkdir()
    evil = pickle.dumps(Runs("true"), 2).removeprefix(b"\x80\x02").removesuffix(b".")
    torch_file(tmp_path / "saved" / "1.pt", b"\x80\x02}(S'w'\n" + SQUARE + b"S'v'\n" + evil + b"u.")
    with pytest.raises(TrajtoolsError, match=r"'v' \(an object of \w+.system\) .* \(--exclude 'v'\)"):
        convert(tmp_path / "saved", tmp_path / "out.h5")
    convert(tmp_path / "saved", tmp_path / "out.h5", exclude="v")


def deep(opening, closing, count=200_000):
    return b"\x80\x02" + opening * count + closing * (count - 1) + b"."


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.", id="bytes"),
        pytest.param(b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b"x.", id="bytearray"),
        pytest.param(b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.", id="text"),
        pytest.param(b"\x80\x02\x8b" + struct.pack("<I", 2**31) + b"\1" * 2000 + b".", id="integer"),
        pytest.param(b"I" + b"9" * 50_000 + b"\n.", id="digits"),
        pytest.param(b"\x80\x02T\xff\xff\xff\xffx.", id="negative"),
        pytest.param(b"c" + b"x" * 10**6, id="line"),
        pytest.param(b"\x80\x02" + b"N" * (pickles.MOST_INSTRUCTIONS + 5) + b".", id="instructions"),
        pytest.param(b"\x80\x02.", id="nothing"),
        pytest.param(b"\x80\x02t.", id="no mark"),
        pytest.param(b"\x80\x02h\x07.", id="memo"),
        pytest.param(b"\x80\x02\xff.", id="code"),
        pytest.param(b"", id="empty"),
    ],
)
def test_a_bomb_is_refused(body):
    with pytest.raises(PickleError):
        Machine(body).run()


def test_a_memo_of_four_billion_places_and_nesting_cost_nothing():
    assert Machine(b"\x80\x02Nr\xff\xff\xff\xff.").run() is None
    assert Machine(deep(b"]", b"a")).run() is not None
    assert Machine(b"\x80\x02" + b"(" * 10**6 + b"N.").run() is None


def test_keys_cannot_be_made_to_collide():
    same_hash = [k * (2**61 - 1) for k in range(2000)]
    content = Machine(pickle.dumps(dict.fromkeys((*same_hash, (1, 2), 0.5), 0))).run()
    assert len(content) == 2002
    assert all(isinstance(key, Inert) for key in content if key != 0)


def laughs():
    """A dict of 60 levels, each of which holds the next one twice: 2 ** 60 paths, a few hundred bytes."""
    content = {"w": 0}
    for _ in range(60):
        content = {"a": content, "b": content}
    return content


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(pickle.dumps(laughs(), 2), id="laughs"),
        pytest.param(pickle.dumps([laughs()], 2), id="laughs in a list"),
        pytest.param(b"\x80\x02}S'model'\n" + deep(b"]", b"a")[2:-1] + b"s.", id="deep list"),
        pytest.param(b"\x80\x02}S'model'\n" + b"}S'a'\n" * 10**5 + b"N" + b"s" * 10**5 + b"s.", id="deep dict"),
        pytest.param(b"\x80\x02}q\0S'me'\nh\0s.", id="itself"),
        pytest.param(b"\x80\x02}(S'w'\n" + TENSOR % (b"K\x09K\x09\x86", b"K\x09K\x01\x86") + b"u.", id="beyond"),
        pytest.param(b"\x80\x02}(S'w'\n" + TENSOR % (b"J\xff\xff\xff\x7f\x85", b"K\x00\x85") + b"u.", id="repeated"),
        pytest.param(b"\x80\x02}(S'w'\n" + TENSOR % (b"K\x02K\x02\x86", b"K\x00\x85") + b"u.", id="strides"),
        pytest.param(
            b"\x80\x02}(S'w'\n" + TENSOR % (b"(" + (b"\x8a\xff" + b"\x7f" * 255) * 5000 + b"t", b")") + b"u.", id="axes"
        ),
    ],
)
def test_a_bomb_in_a_checkpoint_is_one_sentence(tmp_path, body):
    (tmp_path / "saved").mkdir()
    torch_file(tmp_path / "saved" / "1.pt", body)
    for key in (None, ".", "model"):
        with pytest.raises(TrajtoolsError, match=r"1\.pt|levels"):
            convert(tmp_path / "saved", tmp_path / "out.h5", key=key)


def test_an_archive_that_inflates_is_refused(tmp_path):
    (tmp_path / "saved").mkdir()
    path = tmp_path / "saved" / "1.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as stream:
        for _ in range(300):
            stream.write(b"N" * 2**20)
    assert path.stat().st_size < 2**20
    with pytest.raises(DataError, match="no checkpoint compresses so well"):
        convert(tmp_path / "saved", tmp_path / "out.h5")


def test_mutated_checkpoints_are_refused_or_read_and_never_break(tmp_path):
    (tmp_path / "saved").mkdir()
    body = b"\x80\x02}(S'epoch'\nK\x03S'model'\n}(S'w'\n" + SQUARE + b"S'v'\n" + SQUARE + b"uu."
    random_numbers = random.Random(5)
    sentences = []
    for case in range(150):
        mutant = bytearray(body)
        for _ in range(random_numbers.choice((1, 1, 2, 5))):
            mutant[random_numbers.randrange(len(mutant))] = random_numbers.randrange(256)
        torch_file(tmp_path / "saved" / "1.pt", bytes(mutant))
        try:
            convert(tmp_path / "saved", tmp_path / f"{case}.h5")
        except TrajtoolsError as problem:
            sentences.append(str(problem))
    assert 0 < len(sentences) < 150
    assert all(len(one.splitlines()) == 1 for one in sentences)


def test_a_pickle_in_pieces_is_read_where_it_begins():
    stream = io.BytesIO()
    pickle.dump([1], stream)
    second = stream.tell()
    pickle.dump({"b": 2}, stream)
    machine = Machine(stream.getvalue())
    assert machine.run() == [1]
    assert machine.at == second
    assert Machine(stream.getvalue(), at=second).run() == {"b": 2}
