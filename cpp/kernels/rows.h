// Rows of views as float32 in working memory, and back. bfloat16 and float16 round to nearest, ties to even.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace rattention {

float load_element(const std::byte* source, DType dtype);
// n adjacent elements as float32, and float32 as n adjacent elements.
void widen(const std::byte* source, DType dtype, std::int64_t n, float* floats);
void store_row(const float* source, std::int64_t n, std::byte* destination, DType dtype);

// Row i of head h of batch entry b as float32; `padded` >= dim floats are written, zeros behind the row.
void load_row(const TensorView& view, std::int64_t b, std::int64_t h, std::int64_t i, float* row, std::int64_t padded);

// Row i of a view of 16-bit elements as it is; `padded` >= dim of them are written, zeros behind the row.
void copy_halves(const TensorView& view, std::int64_t b, std::int64_t h, std::int64_t i, std::uint16_t* row,
                 std::int64_t padded);

// The rows as float32 where they lie, or nullptr where that cannot be: another dtype, gaps between elements, odd
// addresses. On success `stride` is the distance of two rows in floats.
const float* float_rows(const TensorView& view, std::int64_t b, std::int64_t h, std::int64_t* stride);

// The same of bfloat16, as bits; the stride is in elements.
const std::uint16_t* bf16_rows(const TensorView& view, std::int64_t b, std::int64_t h, std::int64_t* stride);

// Those of float_rows() that are whole, aligned vectors as well; a load across two cache lines costs two.
const float* vector_rows(const TensorView& view, std::int64_t b, std::int64_t h, std::int64_t* stride);

}  // namespace rattention
