// Products of integers from -127 to 127, in the way that suits the processor.
//
// An Int8Matrix is made once from eight-bit weights w (n_columns, k); multiply(rows, n_rows, out)
// is out = rows . w^T, as Sum, for rows of numbers to which kShift is added, as RowValue. Behind
// the last row there must be room for kRoomBehind more numbers.

#pragma once

#include "arrays.h"
#include "panels.h"
#include "products.h"

#if defined(__AVX2__)
#include <immintrin.h>

#include <cstring>
#include <vector>
#endif

namespace skdiscovery {

constexpr int64_t kRoomBehind = 3;

#if defined(__AVX2__) && !defined(__AMX_INT8__)

// Products for Panels. Behind a row's last number its vector has anything, which meets zeros.
// (torch's own product packs its matrix anew each time.)
#if defined(__AVX512VNNI__)

using RowValue = uint8_t;

// Four bytes (vpdpbusd), of which those of one side have no sign: the rows', so these are shifted.
struct IntegerProducts {
  using Weight = int8_t;
  using Row = RowValue;
  using Sum = int32_t;
  using Vector = __m512i;
  static constexpr int kDepth = 4, kRows = 14, kShift = 128;

  static Vector load(const int8_t* weights) { return _mm512_load_si512(weights); }
  static Vector broadcast(const RowValue* row) {
    int32_t four;
    std::memcpy(&four, row, sizeof(four));
    return _mm512_set1_epi32(four);
  }
  static Vector add(Vector sum, Vector row, Vector weights) {
    return _mm512_dpbusd_epi32(sum, row, weights);
  }
};

#else

using RowValue = int16_t;

// Two 16-bit numbers (vpmaddwd), which is twice as much at once as float32's instruction; torch
// takes twenty times as long here as with float32.
struct IntegerProducts {
  using Weight = int8_t;
  using Row = RowValue;
  using Sum = int32_t;
  using Vector = __m256i;
  static constexpr int kDepth = 2, kRows = 4, kShift = 0;

  static Vector load(const int8_t* weights) {
    return _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(weights)));
  }
  static Vector broadcast(const RowValue* row) {
    int32_t two;
    std::memcpy(&two, row, sizeof(two));
    return _mm256_set1_epi32(two);
  }
  static Vector add(Vector sum, Vector row, Vector weights) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(row, weights));
  }
};

#endif

using Sum = IntegerProducts::Sum;
constexpr int kShift = IntegerProducts::kShift;

class Int8Matrix {
 public:
  explicit Int8Matrix(const Tensor& w)
      : panels_(Arrays<int8_t>()(w), w.size(1), w.size(0), 1, w.size(1)) {
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

 private:
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
  explicit Int8Matrix(const Tensor& w)
      : n_columns_(w.size(0)), k_(w.size(1)), values_(arrays_(w)) {}

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

 private:
  Arrays<RowValue> arrays_;
  int n_columns_, k_;
  const RowValue* values_;
};

#endif

}  // namespace skdiscovery
