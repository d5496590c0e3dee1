// Products of integers from -127 to 127, in the way that suits the processor.
//
// An Int8Matrix is made once from eight-bit weights w (n_columns, k) and a scale for each column;
// multiply(rows, n_rows, out) is out = rows . w^T, as Sum, for rows of numbers to which kShift is
// added, as RowValue; scales() is what a Sum of each column is worth. Behind the last row there
// must be room for kRoomBehind more numbers.

#pragma once

#include "arrays.h"
#include "panels.h"
#include "products.h"

#if defined(__AVX2__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>
#endif

namespace skdiscovery {

constexpr int64_t kRoomBehind = 7;

#if defined(__AVX2__) && !defined(__AMX_INT8__)

using RowValue = uint8_t;

// Products for Panels of four bytes at once, of which those of one side have no sign: the rows', so
// these are shifted. Behind a row's last number its vector has anything, which meets zeros.
// (torch's own product packs its matrix anew each time; without VNNI it takes twenty times as long
// as that of float32.)
struct FourBytes {
  using Weight = int8_t;
  using Row = RowValue;
  using Sum = int32_t;
  static constexpr int kDepth = 4, kShift = 128;

  static int32_t read(const RowValue* row) {
    int32_t four;
    std::memcpy(&four, row, sizeof(four));
    return four;
  }
};

#if defined(__AVX512VNNI__)

struct IntegerProducts : FourBytes {
  using Vector = __m512i;
  static constexpr int kSteps = 1, kRows = 14;

  static Vector load(const int8_t* weights) { return _mm512_load_si512(weights); }
  static Vector broadcast(const RowValue* row) { return _mm512_set1_epi32(read(row)); }
  static Vector add(Vector sum, const Vector* row, const Vector* weights) {
    return _mm512_dpbusd_epi32(sum, row[0], weights[0]);
  }
};

#else

// vpmaddubsw adds up two products in 16 bits, and vpmaddwd, which widens that, takes as long: here
// for two of them at a time. So four weights of one sign may come to kMost at most, as the numbers
// of rows are 255 at most: the weights of a column that come to more are rounded anew, more
// coarsely. (Of a trained model most lose a bit, and its features are off from those of float32 by
// a third more than by eight bits alone.)
struct IntegerProducts : FourBytes {
  using Vector = __m256i;
  static constexpr int kSteps = 2, kRows = 5, kMost = 128;

  static Vector load(const int8_t* weights) {
    return _mm256_load_si256(reinterpret_cast<const Vector*>(weights));
  }
  static Vector broadcast(const RowValue* row) { return _mm256_set1_epi32(read(row)); }
  static Vector add(Vector sum, const Vector* row, const Vector* weights) {
    const Vector sums = _mm256_add_epi16(_mm256_maddubs_epi16(row[0], weights[0]),
                                         _mm256_maddubs_epi16(row[1], weights[1]));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
  }

  // Writes a column's weights as they are to be multiplied; returns what one of them is worth.
  static float fit(const int8_t* column, int64_t k, int8_t* fitted) {
    const int most = most_of_four(column, k);
    if (most <= kMost) {
      std::copy_n(column, k, fitted);
      return 1;
    }
    const float factor = (kMost - 2.0f) / most;  // to round four adds two at most
#pragma GCC ivdep
    for (int64_t at = 0; at < k; ++at) {
      fitted[at] = static_cast<int8_t>(static_cast<int32_t>(std::nearbyint(column[at] * factor)));
    }
    return 1 / factor;
  }

 private:
  // The most that weights of one sign, of four that `add` adds up in 16 bits, come to.
  static int most_of_four(const int8_t* column, int64_t k) {
    constexpr int64_t kBytes = sizeof(Vector);
    const Vector zero = _mm256_setzero_si256();
    Vector most = zero, least = zero;
    for (int64_t at = 0; at < k; at += kBytes) {
      Vector weights = zero;
      if (at + kBytes <= k) {  // a known number is copied at once
        std::memcpy(&weights, column + at, kBytes);
      } else {
        std::memcpy(&weights, column + at, k - at);
      }
      most = _mm256_max_epi16(most, sums_of_four(_mm256_max_epi8(weights, zero)));
      least = _mm256_min_epi16(least, sums_of_four(_mm256_min_epi8(weights, zero)));
    }
    int16_t mosts[16], leasts[16];
    std::memcpy(mosts, &most, sizeof(mosts));
    std::memcpy(leasts, &least, sizeof(leasts));
    return std::max<int>(*std::max_element(mosts, mosts + 16),
                         -*std::min_element(leasts, leasts + 16));
  }

  // Of each eight numbers two sums, in 16 bits: those `add` makes of kSteps * kDepth. (The other
  // two are of two numbers only.)
  static Vector sums_of_four(Vector numbers) {
    const Vector pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), numbers);
    return _mm256_add_epi16(pairs, _mm256_srli_epi64(pairs, 32));
  }
};

#endif

using Sum = IntegerProducts::Sum;
constexpr int kShift = IntegerProducts::kShift;

class Int8Matrix {
 public:
  Int8Matrix(const Tensor& w, const Tensor& scales)
      : scales_(w.size(0)), panels_(pack(w, scales, scales_.data())) {
    // A shifted state's sums are too large by what the shift alone would give.
    const std::vector<RowValue> shift(w.size(1) + kRoomBehind, kShift);
    std::vector<Sum> sums(w.size(0));
    panels_.multiply(shift.data(), 1, sums.data());
    for (Sum& sum : sums) sum = -sum;
    panels_.start_at(sums.data());
  }

  void multiply(const RowValue* rows, int64_t n_rows, Sum* out) const {
    panels_.multiply(rows, n_rows, out);
  }

  const float* scales() const { return scales_.data(); }

 private:
  static Panels<IntegerProducts> pack(const Tensor& w, const Tensor& scales, float* new_scales) {
    const int64_t n_columns = w.size(0), k = w.size(1);
    Arrays<int8_t> integers;
    Arrays<float> real;
    const int8_t* columns = integers(w);
    std::copy_n(real(scales), n_columns, new_scales);
#if !defined(__AVX512VNNI__)
    std::vector<int8_t> fitted(n_columns * k);
    const int64_t grain = std::max<int64_t>(1, kUnitsPerThread / k);
    parallel_for(0, n_columns, grain, [&](int64_t column, int64_t last) {
      for (; column < last; ++column) {
        const int64_t at = column * k;
        new_scales[column] *= IntegerProducts::fit(columns + at, k, fitted.data() + at);
      }
    });
    columns = fitted.data();
#endif
    return Panels<IntegerProducts>(columns, k, n_columns, 1, k);
  }

  std::vector<float> scales_;
  Panels<IntegerProducts> panels_;
};

#else

#if defined(__AMX_INT8__)
using RowValue = int8_t;
using Sum = int32_t;
#else
// float32's sums of up to 1,040 of these products are exact, and of more nearly so.
using RowValue = float;
using Sum = float;
#endif
constexpr int kShift = 0;

class Int8Matrix {
 public:
  Int8Matrix(const Tensor& w, const Tensor& scales)
      : n_columns_(w.size(0)), k_(w.size(1)), values_(arrays_(w)), scales_(real_(scales)) {}

  void multiply(const RowValue* rows, int64_t n_rows, Sum* out) const {
#if defined(__AMX_INT8__)
    // torch has this product, and uses the processor's units for it. It misreads the transpose of
    // a single column.
    const Tensor columns = k_ > 1 ? view_of(values_, k_, n_columns_, k_, Side::transposed)
                                  : view_of(values_, 1, n_columns_, n_columns_, Side::plain);
    call_product("aten::_int_mm", view_of(rows, n_rows, k_, k_, Side::plain), columns,
                 view_of(out, n_rows, n_columns_, n_columns_, Side::plain));
#else
    skdiscovery::multiply(rows, n_rows, values_, n_columns_, k_, Side::transposed, out);
#endif
  }

  const float* scales() const { return scales_; }

 private:
  Arrays<RowValue> arrays_;
  Arrays<float> real_;
  int n_columns_, k_;
  const RowValue* values_;
  const float* scales_;
};

#endif

}  // namespace skdiscovery
