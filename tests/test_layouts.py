"""Rows M1 to M4: inputs lie in memory as they like; the result has the bits of a contiguous copy's."""

from __future__ import annotations

import numpy as np
import pytest
import rattention as ra

from tests.mechanisms import BFLOAT16, DTYPES, Arrays, Sizes, by_mechanism

SIZES = Sizes(batch=2, heads=4, kv_heads=2, rows=70, dim=24)


def laid_out(inputs: Arrays, layout) -> Arrays:
    """The same numbers, each array laid out anew; masses as if they had a fourth axis."""
    new = {n: layout(a) if a.ndim == 4 else layout(a[..., None])[..., 0] for n, a in inputs.items()}
    for name, array in new.items():
        np.testing.assert_array_equal(array, inputs[name])
    return new


def assert_same_bits(mechanism, inputs: Arrays, others: Arrays) -> None:
    for options in ({}, {"causal": True, "window": 20}):
        expected = mechanism.forward(**inputs, **options, metrics=ra.MetricOptions())
        got = mechanism.forward(**others, **options, metrics=ra.MetricOptions())
        np.testing.assert_array_equal(got.output, expected.output)
        for (name, a), (_, b) in zip(got.metrics, expected.metrics, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)
    for look, options in ((mechanism.rows, {"rows": [0, 69]}), (mechanism.pooled, {"shape": (9, 11)})):
        np.testing.assert_array_equal(
            look(**mechanism.map_inputs(others), **options, causal=True),
            look(**mechanism.map_inputs(inputs), **options, causal=True),
        )


def by_axes(*axes):
    """Stored with its axes in another order."""
    return lambda a: np.ascontiguousarray(a.transpose(axes)).transpose(np.argsort(axes))


def every_other(axis):
    def layout(a):
        return np.repeat(a, 2, axis=axis)[(slice(None),) * axis + (slice(None, None, 2),)]

    return layout


def inside_a_larger_array(a):
    larger = np.full([n + 3 for n in a.shape], 7, a.dtype)
    middle = larger[tuple(slice(1, 1 + n) for n in a.shape)]
    middle[...] = a
    return middle


def in_a_field(a):
    records = np.zeros(a.shape, [("pad", np.int8), ("x", a.dtype)])
    records["x"] = a
    return records["x"]


LAYOUTS = {
    "[B, L, H, D]": by_axes(0, 2, 1, 3),
    "last axis first": by_axes(3, 0, 1, 2),
    "Fortran order": np.asfortranarray,
    "every other row": every_other(2),
    "every other number": every_other(3),
    "every other head": every_other(1),
    "inside a larger array": inside_a_larger_array,
    "a field of records": in_a_field,
}


@pytest.mark.row("M1")
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@by_mechanism
def test_layouts(mechanism, dtype, layout):
    inputs = mechanism.draw(SIZES, dtype=dtype)
    assert_same_bits(mechanism, inputs, laid_out(inputs, layout))


@pytest.mark.row("M1")
@pytest.mark.parametrize("dtype", DTYPES)
@by_mechanism
def test_one_projection_split_into_three(mechanism, dtype):
    """[B, L, 3, H, D], as a fused linear layer gives it."""
    packed = np.random.default_rng(0).standard_normal((2, 70, 3, 4, 24), np.float32).astype(DTYPES[dtype])
    query, key, value = (packed[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    views = mechanism.complete({"query": query, "key": key, "value": value})
    assert_same_bits(mechanism, {n: np.ascontiguousarray(a) for n, a in views.items()}, views)


@pytest.mark.row("M2")
@pytest.mark.parametrize("axis", range(4))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@by_mechanism
def test_negative_strides(mechanism, dtype, axis):
    inputs = mechanism.draw(SIZES, dtype=dtype)
    assert_same_bits(mechanism, inputs, laid_out(inputs, lambda a: np.flip(np.flip(a, axis).copy(), axis)))


@pytest.mark.row("M2")
@pytest.mark.parametrize("axis", range(4))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@by_mechanism
def test_strides_of_zero(mechanism, dtype, axis):
    inputs = mechanism.draw(SIZES, dtype=dtype)

    def first(a):
        return np.broadcast_to(np.take(a, [0], axis=axis), a.shape)

    views = {n: first(a) if axis < a.ndim else a for n, a in inputs.items()}
    assert all(view.strides[axis] == 0 for view in views.values() if axis < view.ndim)
    assert_same_bits(mechanism, {name: view.copy() for name, view in views.items()}, views)


@pytest.mark.row("M2")
@by_mechanism
def test_overlapping_rows(mechanism):
    """A sliding view: rows that share their numbers."""
    numbers = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    view = np.lib.stride_tricks.sliding_window_view(numbers, 24)[None, None, :70]
    views = mechanism.complete(dict.fromkeys(("query", "key", "value"), view))
    assert_same_bits(mechanism, {name: v.copy() for name, v in views.items()}, views)


@pytest.mark.row("M3")
@pytest.mark.parametrize("offset", [1, 2, 3, 5, 7, 13, 17, 31])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@by_mechanism
def test_misaligned(mechanism, dtype, offset):
    def layout(a):
        buffer = bytearray(offset + a.nbytes)
        buffer[offset:] = a.tobytes()
        storage = np.uint16 if a.dtype == BFLOAT16 else a.dtype
        return np.frombuffer(buffer, storage, offset=offset).view(a.dtype).reshape(a.shape)

    inputs = mechanism.draw(SIZES, dtype=dtype)
    others = laid_out(inputs, layout)
    assert offset % inputs["query"].itemsize == 0 or not others["query"].flags.aligned
    assert_same_bits(mechanism, inputs, others)


def assert_unchanged(mechanism, inputs: Arrays) -> None:
    before = {name: array.tobytes() for name, array in inputs.items()}
    copies = {name: np.array(array) for name, array in inputs.items()}
    assert_same_bits(mechanism, copies, inputs)
    assert {name: array.tobytes() for name, array in inputs.items()} == before


@pytest.mark.row("M4")
@pytest.mark.parametrize("dtype", DTYPES)
@by_mechanism
def test_read_only(mechanism, dtype):
    inputs = mechanism.draw(SIZES, dtype=dtype)
    for array in inputs.values():
        array.flags.writeable = False
    assert_unchanged(mechanism, inputs)


@pytest.mark.row("M4")
@pytest.mark.parametrize("mode", ["r", "c", "r+"])
@by_mechanism
def test_mapped_files(mechanism, mode, tmp_path):
    inputs = mechanism.draw(SIZES)
    for name, array in inputs.items():
        np.save(tmp_path / f"{name}.npy", array)
    files = {name: tmp_path / f"{name}.npy" for name in inputs}
    content = {name: path.read_bytes() for name, path in files.items()}
    assert_unchanged(mechanism, {name: np.load(path, mmap_mode=mode) for name, path in files.items()})
    assert {name: path.read_bytes() for name, path in files.items()} == content


@pytest.mark.row("M4")
@pytest.mark.parametrize("dtype", DTYPES)
@by_mechanism
def test_writeable_inputs_are_not_written(mechanism, dtype):
    assert_unchanged(mechanism, mechanism.draw(SIZES, dtype=dtype))
