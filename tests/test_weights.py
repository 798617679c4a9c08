"""Rows W: checkpoints that are damaged, hostile, incomplete or of another model, and good ones."""

from __future__ import annotations

import json
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from rattention.models import Bert, WeightsError
from rattention.models.weights import MAX_HEADER_BYTES, open_tensors, read_safetensors

from tests.bert_folder import CONFIG, random_weights, write_folder
from tests.extras import needs

needs("models")

import safetensors.numpy as safetensors_numpy

TINY = CONFIG | {
    "hidden_size": 3,
    "intermediate_size": 2,
    "num_hidden_layers": 1,
    "max_position_embeddings": 4,
}
IDS = np.arange(5, 9)[None, :]


def file_of(header, data=b"\0" * 24, header_length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if header_length is None else header_length) + raw + data


def entry(dtype="F32", shape=(2, 3), offsets=(0, 24)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


TWICE = b'{"a":' + json.dumps(entry()).encode() + b',"a":' + json.dumps(entry()).encode() + b"}"

MALFORMED = {
    "empty": b"",
    "no whole length": b"\x08\0\0",
    "no header": struct.pack("<Q", 8),
    "header beyond the end": file_of({"a": entry()}, header_length=4096),
    "header of 2**63 bytes": file_of({"a": entry()}, header_length=2**63),
    "header larger than any BERT's": file_of(json.dumps({"a": entry()}).encode() + b" " * MAX_HEADER_BYTES),
    "not JSON": file_of(b'{"a": nothing}'),
    "not UTF-8": file_of(b'{"\xff\xfe": 1}'),
    "a list": file_of([entry()]),
    "no dtype": file_of({"a": {"shape": [2, 3], "data_offsets": [0, 24]}}),
    "unknown dtype": file_of({"a": entry(dtype="F33")}),
    "negative extent": file_of({"a": entry(shape=(-2, -3))}),
    "extents overflow": file_of({"a": entry(shape=(2**62, 4, 2**62))}),
    "shape larger than its bytes": file_of({"a": entry(shape=(2, 4))}),
    "offsets beyond the end": file_of({"a": entry(offsets=(0, 48), shape=(4, 3))}),
    "offsets reversed": file_of({"a": entry(offsets=(24, 0))}),
    "overlap": file_of({"a": entry(), "b": entry(offsets=(12, 36))}, b"\0" * 36),
    "hole": file_of({"a": entry(), "b": entry(offsets=(28, 52))}, b"\0" * 52),
    "bytes left over": file_of({"a": entry()}, b"\0" * 28),
    "one name twice": file_of(TWICE),
}


@pytest.mark.row("W1")
@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_malformed_file(tmp_path, content):
    folder = write_folder(tmp_path)
    path = folder / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="is no usable safetensors file: ") as raised:
        Bert.from_pretrained(folder)
    assert str(path) in str(raised.value)


def test_well_formed_file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_of({"a": entry()}, np.arange(6, dtype="<f4").tobytes()))
    np.testing.assert_array_equal(read_safetensors(path)["a"].read(), [[0, 1, 2], [3, 4, 5]])


def read_all(path):
    return {name: tensor.read() for name, tensor in read_safetensors(path).items() if tensor.is_floating}


@pytest.fixture
def small_file(tmp_path):
    """A tensor of every dtype that is read, and one that is not."""
    rng = np.random.default_rng(3)
    tensors = {
        "a": rng.standard_normal((5, 7)).astype(np.float32),
        "b": rng.standard_normal((3, 4)).astype(np.float16),
        "c": rng.integers(0, 9, 3),
    }
    safetensors_numpy.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "model.safetensors"


@pytest.mark.row("W2")
def test_truncated_at_every_byte(small_file):
    """Every byte of a file is needed, and a cut file never costs more memory than a whole one."""
    whole = small_file.read_bytes()
    tracemalloc.start()
    try:
        for length in range(len(whole)):
            small_file.write_bytes(whole[:length])
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises(WeightsError):
                read_all(small_file)
            assert tracemalloc.get_traced_memory()[1] - before < 2 * len(whole) + 65536
    finally:
        tracemalloc.stop()


@pytest.mark.row("W2")
def test_random_bit_flips(small_file):
    """10,000 damaged files: refused, or read as tensors that fit into the file."""
    whole = np.frombuffer(small_file.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    outcomes = {"refused": 0, "read": 0}
    for _ in range(10_000):
        damaged = whole.copy()
        # Half of the flips hit the header, where a flip can do more than change a number.
        end = len(whole) if rng.random() < 0.5 else 8 + int.from_bytes(whole[:8].tobytes(), "little")
        for position in rng.integers(0, end, rng.integers(1, 4)):
            damaged[position] ^= 1 << rng.integers(8)
        with small_file.open("r+b") as file:  # in place: to truncate and write anew takes ten times as long
            file.write(damaged.tobytes())
        try:
            tensors = read_all(small_file)
        except WeightsError:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            assert sum(tensor.nbytes for tensor in tensors.values()) <= 2 * len(whole)
    assert min(outcomes.values()) > 100, outcomes


@pytest.mark.row("W2")
def test_bit_flips_through_the_whole_model(tmp_path):
    whole = (write_folder(tmp_path, TINY, random_weights(TINY)) / "model.safetensors").read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        (tmp_path / "model.safetensors").write_bytes(bytes(damaged))
        try:
            output = Bert.from_pretrained(tmp_path)(IDS)
        except WeightsError:
            continue
        assert output.last_hidden_state.shape == (1, 4, 3)


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return open, (self.canary, "w")


def plain_pickle(path, canary):
    path.write_bytes(pickle.dumps({"embeddings.word_embeddings.weight": Payload(canary)}))


def old_pickle(path, canary):
    path.write_bytes(pickle.dumps(Payload(canary), protocol=0))


def torch_archive(path, canary):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload(canary)))
        archive.writestr("archive/version", "3")


def saved_by_torch(path, canary):
    needs("torch")
    import torch

    torch.save({"a": Payload(canary)}, path)


def with_pickle(folder, write, *arguments):
    write_folder(folder)
    (folder / "model.safetensors").unlink()
    write(folder / "pytorch_model.bin", *arguments)
    return folder


@pytest.mark.row("W3")
@pytest.mark.parametrize("write", [plain_pickle, old_pickle, torch_archive, saved_by_torch])
def test_code_in_a_pickle_never_runs(tmp_path, write):
    folder = with_pickle(tmp_path / "model", write, str(tmp_path / "canary"))
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin"):
        Bert.from_pretrained(folder)
    assert not (tmp_path / "canary").exists()


def bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (64 << 20))


@pytest.mark.row("W3")
def test_zip_bomb(tmp_path):
    needs("torch")
    with pytest.raises(WeightsError, match="would unpack to 67108864 bytes"):
        Bert.from_pretrained(with_pickle(tmp_path, bomb))


@pytest.mark.row("W3")
def test_pickle_without_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(WeightsError, match=r"only PyTorch reads: install torch, or save"):
        Bert.from_pretrained(with_pickle(tmp_path, plain_pickle, str(tmp_path / "canary")))


def state_dict(path, weights):
    needs("torch")
    import torch

    torch.save({name: torch.tensor(w) for name, w in weights.items()}, path)


@pytest.mark.row("W3")
def test_good_pickle(tmp_path):
    want = Bert.from_pretrained(write_folder(tmp_path / "safe"))(IDS)
    got = Bert.from_pretrained(with_pickle(tmp_path / "pickled", state_dict, random_weights(CONFIG)))(IDS)
    np.testing.assert_array_equal(got.last_hidden_state, want.last_hidden_state)


def test_safetensors_come_before_a_pickle(tmp_path):
    plain_pickle(write_folder(tmp_path) / "pytorch_model.bin", str(tmp_path / "canary"))
    Bert.from_pretrained(tmp_path)
    assert not (tmp_path / "canary").exists()


QUERY = "encoder.layer.1.attention.self.query.weight"
NORM = "encoder.layer.0.output.LayerNorm.bias"


def without(weights):
    del weights[QUERY], weights[NORM]


def mis_shaped(weights):
    weights[QUERY] = weights[QUERY][:-1]
    weights[NORM] = weights[NORM][None]


def of_whole_numbers(weights):
    weights[QUERY] = weights[QUERY].astype(np.int64)
    weights[NORM] = weights[NORM].astype(np.float64)


def with_nan(weights):
    weights[QUERY][3, 4] = np.nan
    weights[NORM][0] = np.inf


def with_a_third_layer(weights):
    weights[QUERY.replace("layer.1", "layer.2")] = weights[QUERY]
    weights[NORM.replace("LayerNorm", "distance_embedding")] = weights[NORM]


FAULTS = {
    "missing": (without, "missing", (QUERY, NORM)),
    "wrong shape": (mis_shaped, "wrong shape", (f"{QUERY} [23, 24] instead of [24, 24]", f"{NORM} [1, 24]")),
    "wrong dtype": (of_whole_numbers, "no dense float32, float16", (f"{QUERY} I64", f"{NORM} F64")),
    "not finite": (with_nan, "NaN or infinity", (QUERY, NORM)),
    "unexpected": (
        with_a_third_layer,
        "not part of this model",
        (QUERY.replace("layer.1", "layer.2"), NORM.replace("LayerNorm", "distance_embedding")),
    ),
}


@pytest.mark.row("W4")
@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize(("damage", "fault", "names"), FAULTS.values(), ids=FAULTS)
def test_one_error_lists_all_names(tmp_path, damage, fault, names, prefix):
    weights = random_weights(CONFIG)
    damage(weights)
    folder = write_folder(tmp_path, weights={prefix + name: w for name, w in weights.items()})
    with pytest.raises(WeightsError, match=fault) as raised:
        Bert.from_pretrained(folder)
    assert str(folder) in str(raised.value)
    for name in names:
        assert name in str(raised.value)


@pytest.mark.row("W4")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_becomes_float32(tmp_path, dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="writes bfloat16")
    kind = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
    halves = {name: w.astype(kind) for name, w in random_weights(CONFIG).items()}
    stored = open_tensors(write_folder(tmp_path / "half", weights=halves))
    for name, tensor in stored.items():
        np.testing.assert_array_equal(tensor.read(), halves[name].astype(np.float32))
    rounded = {name: w.astype(np.float32) for name, w in halves.items()}
    want = Bert.from_pretrained(write_folder(tmp_path / "full", weights=rounded))(IDS)
    got = Bert.from_pretrained(tmp_path / "half")(IDS)
    np.testing.assert_array_equal(got.last_hidden_state, want.last_hidden_state)


def prefixed(name):
    return f"bert.{name}"


def old_names(name):
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


@pytest.mark.row("W4")
@pytest.mark.parametrize("spelling", [prefixed, old_names, lambda name: prefixed(old_names(name))])
def test_spellings(tmp_path, spelling):
    weights = {spelling(name): w for name, w in random_weights(CONFIG).items()}
    other_heads = {
        "cls.predictions.bias": np.zeros(3, np.float32),
        spelling("embeddings.position_ids"): np.arange(64)[None],
    }
    got = Bert.from_pretrained(write_folder(tmp_path / "a", weights=weights | other_heads))(IDS)
    want = Bert.from_pretrained(write_folder(tmp_path / "b"))(IDS)
    np.testing.assert_array_equal(got.last_hidden_state, want.last_hidden_state)


@pytest.mark.row("W4")
def test_one_tensor_in_two_spellings(tmp_path):
    weights = random_weights(CONFIG)
    with pytest.raises(WeightsError, match=f"two spellings: .*{QUERY}"):
        Bert.from_pretrained(write_folder(tmp_path, weights=weights | {prefixed(QUERY): weights[QUERY]}))


def shard(folder, index=None):
    """The random model in two files and their index, or in another index."""
    names = sorted(random_weights(CONFIG))
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    weights = random_weights(CONFIG)
    write_folder(folder)
    (folder / "model.safetensors").unlink()
    for part, held in parts.items():
        safetensors_numpy.save_file({name: weights[name] for name in held}, folder / part)
    whole = {"weight_map": {name: part for part, held in parts.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(whole if index is None else index))
    return folder


def test_shards(tmp_path):
    want = Bert.from_pretrained(write_folder(tmp_path / "whole"))(IDS)
    got = Bert.from_pretrained(shard(tmp_path / "parts"))(IDS)
    np.testing.assert_array_equal(got.last_hidden_state, want.last_hidden_state)


FIRST = "model-00001-of-00002.safetensors"
BAD_INDICES = {
    "not JSON": "{",
    "a list": [],
    "no weight_map": {},
    "no map": {"weight_map": [QUERY]},
    "not a file name": {"weight_map": {QUERY: 3}},
    "out of the folder": {"weight_map": {QUERY: f"../parts/{FIRST}"}},
    "absolute": {"weight_map": {QUERY: "/etc/model.safetensors"}},
    "lost file": {"weight_map": {QUERY: "model-00003-of-00002.safetensors"}},
    "lost tensor": {"weight_map": {"no.such.tensor": FIRST}},
    "incomplete": {"weight_map": {"embeddings.LayerNorm.bias": FIRST}},
}


@pytest.mark.row("W4")
@pytest.mark.parametrize("index", BAD_INDICES.values(), ids=BAD_INDICES)
def test_bad_index(tmp_path, index):
    folder = shard(tmp_path / "parts", index)
    if isinstance(index, str):
        (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(WeightsError):
        Bert.from_pretrained(folder)


def test_no_weights(tmp_path):
    (write_folder(tmp_path) / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"holds no weights: neither model\.safetensors nor"):
        Bert.from_pretrained(tmp_path)
