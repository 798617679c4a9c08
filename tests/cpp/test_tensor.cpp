// Conversions between storage and float32, over all 65536 patterns of both 16-bit formats, against float64 arithmetic.
#include <cmath>
#include <cstring>
#include <limits>

#include "check.h"
#include "core/tensor.h"

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

// Between each pair of neighbours: the midpoint goes to the even one, anything off it to the nearer one.
void stores_round_to_nearest_even(const Format& format) {
  const unsigned infinity = format.exponent_mask << format.mantissa_bits;
  int wrong = 0;
  for (unsigned pattern = 0; pattern + 1 < infinity; ++pattern) {
    const auto below = static_cast<std::uint16_t>(pattern);
    const auto above = static_cast<std::uint16_t>(pattern + 1);
    const auto middle = static_cast<float>((value_of(below, format) + value_of(above, format)) / 2);
    const std::uint16_t even = pattern % 2 == 0 ? below : above;
    wrong += store(middle, format.dtype) != even || store(-middle, format.dtype) != (even | 0x8000U);
    if (middle == 0.0F) continue;
    wrong += store(std::nextafter(middle, 0.0F), format.dtype) != below;
    wrong += store(std::nextafter(middle, std::numeric_limits<float>::max()), format.dtype) != above;
  }
  CHECK(wrong == 0);
}

void too_large_becomes_infinite() {
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(load(store(65519.996F, DType::f16), DType::f16) == 65504.0F);
  CHECK(load(store(65520.0F, DType::f16), DType::f16) == infinity);
  CHECK(load(store(-1e30F, DType::f16), DType::f16) == -infinity);
  CHECK(load(store(std::numeric_limits<float>::max(), DType::bf16), DType::bf16) == infinity);
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
      {"too large becomes infinite", too_large_becomes_infinite},
      {"rows are stored element by element", rows_are_stored_element_by_element},
      {"views find rows by strides of any sign", views_find_rows_by_strides_of_any_sign},
  });
}
