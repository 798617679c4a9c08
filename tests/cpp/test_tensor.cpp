// Conversions between storage and float32, over all 65536 patterns of both 16-bit formats, against float64 arithmetic.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "check.h"
#include "core/isa.h"
#include "core/processor.h"
#include "core/tensor.h"
#include "kernels/row_kernels.h"
#include "kernels/rows.h"

namespace {

using rattention::DType;

struct Format {
  DType dtype;
  int mantissa_bits;
  int exponent_bias;
  unsigned exponent_mask;
};

constexpr Format kHalf{DType::f16, 10, 15, 0x1FU};
constexpr Format kBrain{DType::bf16, 7, 127, 0xFFU};
constexpr unsigned kPatterns = 65536;

// The kernels of every level that this processor has and RATTENTION_MAX_ISA allows.
std::vector<const rattention::RowKernels*> levels() {
#ifdef __x86_64__
  std::vector<const rattention::RowKernels*> tables{&rattention::detail::kBaselineRowKernels};
  if (rattention::active_isa() >= rattention::Isa::avx2) tables.push_back(&rattention::detail::kAvx2RowKernels);
  if (rattention::active_isa() >= rattention::Isa::avx512) tables.push_back(&rattention::detail::kAvx512RowKernels);
  return tables;
#else
  return {&rattention::row_kernels()};
#endif
}

float load(std::uint16_t bits, DType dtype) {
  std::byte bytes[2];
  std::memcpy(bytes, &bits, sizeof bits);
  return rattention::load_element(bytes, dtype);
}

std::uint16_t store(float x, DType dtype) {
  std::byte bytes[2];
  rattention::store_row(&x, 1, bytes, dtype);
  std::uint16_t bits;
  std::memcpy(&bits, bytes, sizeof bits);
  return bits;
}

// The value of a pattern by the definition of the format.
double value_of(std::uint16_t bits, const Format& format) {
  const unsigned exponent = (bits >> format.mantissa_bits) & format.exponent_mask;
  const unsigned mantissa = bits & ((1U << format.mantissa_bits) - 1U);
  const double sign = (bits & 0x8000U) != 0 ? -1.0 : 1.0;
  if (exponent == format.exponent_mask) {
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  }
  const double fraction = std::ldexp(mantissa, -format.mantissa_bits) + (exponent == 0 ? 0.0 : 1.0);
  const int power = (exponent == 0 ? 1 : static_cast<int>(exponent)) - format.exponent_bias;
  return sign * std::ldexp(fraction, power);
}

void every_pattern_loads_and_comes_back(const Format& format) {
  int wrong = 0;
  for (unsigned pattern = 0; pattern < kPatterns; ++pattern) {
    const auto bits = static_cast<std::uint16_t>(pattern);
    const double want = value_of(bits, format);
    const float got = load(bits, format.dtype);
    if (std::isnan(want)) {
      wrong += !std::isnan(got) || !std::isnan(load(store(got, format.dtype), format.dtype));
    } else {
      wrong += static_cast<double>(got) != want || std::signbit(got) != std::signbit(want) ||
               store(got, format.dtype) != bits;
    }
  }
  CHECK(wrong == 0);
}

struct Rounding {
  std::vector<float> from;
  std::vector<std::uint16_t> to;

  void add(float x, unsigned bits) {
    from.insert(from.end(), {x, -x});
    to.insert(to.end(), {static_cast<std::uint16_t>(bits), static_cast<std::uint16_t>(bits | 0x8000U)});
  }
};

// Every pattern, and between each pair of neighbours: the midpoint goes to the even one, anything off it to the nearer
// one. The last neighbour is infinity, which stands for the next power of two; beyond lies the largest float.
Rounding all_boundaries(const Format& format) {
  const unsigned infinity = format.exponent_mask << format.mantissa_bits;
  const double next_power = std::ldexp(2.0, static_cast<int>(format.exponent_mask) - 1 - format.exponent_bias);
  const float largest = std::numeric_limits<float>::max();
  Rounding all;
  for (unsigned pattern = 0; pattern < infinity; ++pattern) {
    const double below = value_of(static_cast<std::uint16_t>(pattern), format);
    const bool last = pattern + 1 == infinity;
    const double above = last ? next_power : value_of(static_cast<std::uint16_t>(pattern + 1), format);
    const auto middle = static_cast<float>((below + above) / 2);
    all.add(static_cast<float>(below), pattern);
    all.add(middle, pattern + pattern % 2);
    all.add(std::nextafter(middle, largest), pattern + 1);
    if (middle != 0.0F) all.add(std::nextafter(middle, 0.0F), pattern);
  }
  all.add(largest, infinity);
  all.add(std::numeric_limits<float>::infinity(), infinity);
  return all;
}

// All levels, the processor's own mode and that of tasks, and both lengths that are no whole vectors.
void stores_round_to_nearest_even(const Format& format) {
  const Rounding all = all_boundaries(format);
  for (const rattention::RowKernels* kernels : levels()) {
    const auto narrow = format.dtype == DType::f16 ? kernels->narrow_float16 : kernels->narrow_bfloat16;
    for (const bool denormals_are_zero : {false, true})
      for (const std::size_t first : {std::size_t{0}, std::size_t{5}}) {
        std::vector<std::uint16_t> got(all.to.size() - first);
        const rattention::FloatMode mode = rattention::float_mode();
        if (denormals_are_zero) rattention::set_float_mode(mode | rattention::kDenormalsAreZero);
        narrow(all.from.data() + first, static_cast<std::int64_t>(got.size()),
               reinterpret_cast<std::byte*>(got.data()));
        rattention::set_float_mode(mode);
        CHECK(std::equal(got.begin(), got.end(), all.to.begin() + static_cast<std::ptrdiff_t>(first)));
      }
  }
}

// The same bits at all levels: the sign, the highest bits of the payload, quiet.
void nan_stays_nan(const Format& format) {
  const unsigned infinity = format.exponent_mask << format.mantissa_bits;
  const unsigned quiet = 1U << (format.mantissa_bits - 1);
  for (const std::uint32_t bits :
       {0x7FC00000U, 0xFFC00000U, 0x7F800001U, 0xFF800001U, 0x7FFFFFFFU, 0x7FA54321U, 0xFFC54321U}) {
    const std::uint32_t payload = (bits & 0x7FFFFFU) >> (23 - format.mantissa_bits);
    float x;
    std::memcpy(&x, &bits, sizeof x);
    for (const rattention::RowKernels* kernels : levels()) {
      std::uint16_t got = 0;
      (format.dtype == DType::f16 ? kernels->narrow_float16 : kernels->narrow_bfloat16)(
          &x, 1, reinterpret_cast<std::byte*>(&got));
      CHECK(got == ((bits >> 16 & 0x8000U) | infinity | quiet | payload));
    }
  }
}

void rows_are_stored_element_by_element() {
  const float row[] = {1.0F, -2.5F, 3.25F};
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    std::byte bytes[12];
    rattention::store_row(row, 3, bytes, dtype);
    for (std::int64_t i = 0; i < 3; ++i) {
      CHECK(rattention::load_element(bytes + i * rattention::size_of(dtype), dtype) == row[i]);
    }
  }
}

void views_find_rows_by_strides_of_any_sign() {
  float data[2 * 3 * 4];
  for (int i = 0; i < 24; ++i) data[i] = static_cast<float>(i);
  rattention::TensorView view;
  view.data = reinterpret_cast<const std::byte*>(data + 20);
  view.shape = {1, 2, 3, 4};
  view.strides = {0, -12 * 4, -4 * 4, 4};
  CHECK(rattention::load_element(view.row(0, 0, 0), DType::f32) == 20.0F);
  CHECK(rattention::load_element(view.row(0, 0, 2), DType::f32) == 12.0F);
  CHECK(rattention::load_element(view.row(0, 1, 1), DType::f32) == 4.0F);
  CHECK(rattention::to_string(view.shape) == "[1, 2, 3, 4]");
}

}  // namespace

int main() {
  return rattention::test::run({
      {"every float16 pattern", [] { every_pattern_loads_and_comes_back(kHalf); }},
      {"every bfloat16 pattern", [] { every_pattern_loads_and_comes_back(kBrain); }},
      {"float16 rounds to nearest even", [] { stores_round_to_nearest_even(kHalf); }},
      {"bfloat16 rounds to nearest even", [] { stores_round_to_nearest_even(kBrain); }},
      {"NaN stays NaN in float16", [] { nan_stays_nan(kHalf); }},
      {"NaN stays NaN in bfloat16", [] { nan_stays_nan(kBrain); }},
      {"rows are stored element by element", rows_are_stored_element_by_element},
      {"views find rows by strides of any sign", views_find_rows_by_strides_of_any_sign},
  });
}
