// Products of whole numbers from -127 to 127, in the way that suits the processor.
//
// A WholeMatrix is made once from eight-bit weights w (n_columns, k), and multiply(rows, n_rows,
// out) is out = rows . w^T for rows of Whole, as Sum. Behind the last row there must be room for
// one number more.

#pragma once

#include "arrays.h"
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
// sixteen pairs at once and adds two by two (vpmaddwd), twice as many as float32's instruction
// does. The weights are packed for it: panels of 16 columns, in which the numbers of two rows of
// w^T alternate.
class WholeMatrix {
 public:
  explicit WholeMatrix(const Tensor& w)
      : n_columns_(w.size(0)), k_(w.size(1)), n_pairs_((k_ + 1) / 2) {
    const int64_t n_panels = (n_columns_ + kColumns - 1) / kColumns;
    panels_.resize(n_panels * panel_size());
    Arrays<int8_t> arrays;
    const int8_t* values = arrays(w);
    torch::stable::parallel_for(0, n_panels, 1, [&](int64_t first, int64_t last) {
      for (int64_t panel = first; panel < last; ++panel) pack(values, panel);
    });
  }

  void multiply(const Whole* rows, int64_t n_rows, Sum* out) const {
    const int64_t n_panels = panels_.size() / panel_size();
    const int64_t grain = kMultiplicationsPerThread / (n_rows * panel_size());
    torch::stable::parallel_for(0, n_panels, std::max<int64_t>(1, grain),
                                [&](int64_t panel, int64_t last) {
                                  for (; panel < last; ++panel)
                                    multiply_panel(rows, n_rows, panel, out);
                                });
  }

 private:
  static constexpr int kColumns = 16, kRows = 4;

  int64_t panel_size() const { return 2 * n_pairs_ * kColumns; }

  int64_t columns_of(int64_t panel) const {
    return std::min<int64_t>(kColumns, n_columns_ - panel * kColumns);
  }

  void pack(const int8_t* values, int64_t panel) {
    int8_t* packed = panels_.data() + panel * panel_size();
    for (int64_t column = 0; column < columns_of(panel); ++column) {
      const int8_t* weights = values + (panel * kColumns + column) * k_;
      for (int64_t at = 0; at < k_; ++at) {
        packed[at / 2 * 2 * kColumns + 2 * column + at % 2] = weights[at];
      }
    }
  }

  void multiply_panel(const Whole* rows, int64_t n_rows, int64_t panel, Sum* out) const {
    out += panel * kColumns;
    int64_t row = 0;
    for (; row + kRows <= n_rows; row += kRows) multiply_tile<kRows>(rows, row, panel, out);
    for (; row < n_rows; ++row) multiply_tile<1>(rows, row, panel, out);
  }

  template <int n>
  void multiply_tile(const Whole* rows, int64_t first_row, int64_t panel, Sum* out) const {
    const int8_t* weights = panels_.data() + panel * panel_size();
    rows += first_row * k_;
    __m256i sums[n][2] = {};
    for (int64_t pair = 0; pair < n_pairs_; ++pair, weights += 2 * kColumns) {
      const __m256i left = widen(weights), right = widen(weights + kColumns);
#pragma GCC unroll 4
      for (int row = 0; row < n; ++row) {
        // Of an odd k, the last pair's second number is anything, times zero.
        int32_t both;
        std::memcpy(&both, rows + row * k_ + 2 * pair, sizeof(both));
        const __m256i states = _mm256_set1_epi32(both);
        sums[row][0] = _mm256_add_epi32(sums[row][0], _mm256_madd_epi16(states, left));
        sums[row][1] = _mm256_add_epi32(sums[row][1], _mm256_madd_epi16(states, right));
      }
    }
#pragma GCC unroll 4
    for (int row = 0; row < n; ++row) {
      Sum line[kColumns];
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(line), sums[row][0]);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(line + kColumns / 2), sums[row][1]);
      std::copy_n(line, columns_of(panel), out + (first_row + row) * n_columns_);
    }
  }

  static __m256i widen(const int8_t* values) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
  }

  int64_t n_columns_, k_, n_pairs_;
  std::vector<int8_t> panels_;
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
