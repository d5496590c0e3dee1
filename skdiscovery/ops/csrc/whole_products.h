// Products of whole numbers from -127 to 127, in the way that suits the processor.
//
// A WholeMatrix is made once from eight-bit weights w (n_columns, k); multiply(rows, n_rows, out)
// is out = rows . w^T, for rows of Whole, as Sum. Behind the last row there must be room for one
// more number.

#pragma once

#include "arrays.h"
#include "panels.h"
#include "products.h"

#if !defined(__AVX512VNNI__) && defined(__AVX2__)
#include <immintrin.h>

#include <cstring>
#endif

namespace skdiscovery {

#if defined(__AVX512VNNI__)

using Whole = int8_t;
using Sum = int32_t;

// torch has this product, and uses the processor's instruction for it.
class WholeMatrix {
 public:
  explicit WholeMatrix(const Tensor& w)
      : n_columns_(w.size(0)), k_(w.size(1)), values_(arrays_(w)) {}

  void multiply(const Whole* rows, int64_t n_rows, Sum* out) const {
    // torch misreads the transpose of a single column.
    const Tensor columns = k_ > 1 ? view_of(values_, k_, n_columns_, k_, Side::transposed)
                                  : view_of(values_, 1, n_columns_, n_columns_, Side::plain);
    call_product("aten::_int_mm", view_of(rows, n_rows, k_, k_, Side::plain), columns,
                 view_of(out, n_rows, n_columns_, n_columns_, Side::plain));
  }

 private:
  Arrays<Whole> arrays_;
  int n_columns_, k_;
  const Whole* values_;
};

#elif defined(__AVX2__)

using Whole = int16_t;
using Sum = int32_t;

// Without that instruction torch takes twenty times as long as with float32. This one multiplies
// sixteen pairs and adds two by two (vpmaddwd), twice as much at once as float32's instruction.
struct WholeTile {
  using Weight = int8_t;
  using Row = Whole;
  using Sum = int32_t;
  static constexpr int kColumns = 16, kRows = 4, kDepth = 2;

  template <int n>
  static void multiply(const Row* rows, int64_t k, const Weight* panel, Sum (*sums)[kColumns]) {
    __m256i left[n] = {}, right[n] = {};
    for (int64_t at = 0; at < k; at += kDepth) {
      const Weight* weights = panel + at * kColumns;
      const __m256i left_weights = widen(weights), right_weights = widen(weights + kColumns);
#pragma GCC unroll 4
      for (int row = 0; row < n; ++row) {
        // Of an odd k, the last pair's second number is anything, times zero.
        int32_t pair;
        std::memcpy(&pair, rows + row * k + at, sizeof(pair));
        const __m256i states = _mm256_set1_epi32(pair);
        left[row] = _mm256_add_epi32(left[row], _mm256_madd_epi16(states, left_weights));
        right[row] = _mm256_add_epi32(right[row], _mm256_madd_epi16(states, right_weights));
      }
    }
#pragma GCC unroll 4
    for (int row = 0; row < n; ++row) {
      __m256i* out = reinterpret_cast<__m256i*>(sums[row]);
      out[0] = left[row];
      out[1] = right[row];
    }
  }

 private:
  static __m256i widen(const Weight* weights) {
    return _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(weights)));
  }
};

class WholeMatrix {
 public:
  explicit WholeMatrix(const Tensor& w)
      : panels_(Arrays<int8_t>()(w), w.size(1), w.size(0), 1, w.size(1)) {}

  void multiply(const Whole* rows, int64_t n_rows, Sum* out) const {
    panels_.multiply(rows, n_rows, out);
  }

 private:
  Panels<WholeTile> panels_;
};

#else

using Whole = float;
using Sum = float;

// float32's sums of up to 1,040 of these products are exact, and of more nearly so.
class WholeMatrix {
 public:
  explicit WholeMatrix(const Tensor& w)
      : n_columns_(w.size(0)), k_(w.size(1)), values_(arrays_(w)) {}

  void multiply(const Whole* rows, int64_t n_rows, Sum* out) const {
    skdiscovery::multiply(rows, n_rows, values_, n_columns_, k_, Side::transposed, out);
  }

 private:
  Arrays<Whole> arrays_;
  int n_columns_, k_;
  const Whole* values_;
};

#endif

}  // namespace skdiscovery
