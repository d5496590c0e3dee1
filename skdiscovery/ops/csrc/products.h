// Matrix products on the CPU, from the libraries that torch brings or, of panels, our own.
//
// Theirs is a matrix that counts columns first, so they see each row-major matrix here as its
// transpose: m, n and k, and the sides, are in their terms.

#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/BFloat16.h>

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <type_traits>
#include <vector>

#include "panels.h"
#include "threads.h"
#include "torch_product.h"

extern "C" {
void sgemm_(const char*, const char*, const int*, const int*, const int*, const float*,
            const float*, const int*, const float*, const int*, const float*, float*, const int*);
void dgemm_(const char*, const char*, const int*, const int*, const int*, const double*,
            const double*, const int*, const double*, const int*, const double*, double*,
            const int*);
void sgemv_(const char*, const int*, const int*, const float*, const float*, const int*,
            const float*, const int*, const float*, float*, const int*);
void dgemv_(const char*, const int*, const int*, const double*, const double*, const int*,
            const double*, const int*, const double*, double*, const int*);
}

namespace skdiscovery {

using torch::headeronly::BFloat16;
using torch::stable::Tensor;

enum class Side { plain, transposed };

inline void gemm(Side a_side, Side b_side, int m, int n, int k, const float* a, int lda,
                 const float* b, int ldb, float beta, float* c, int ldc) {
  const char sides[] = {a_side == Side::plain ? 'N' : 'T', b_side == Side::plain ? 'N' : 'T'};
  const float one = 1;
  sgemm_(&sides[0], &sides[1], &m, &n, &k, &one, a, &lda, b, &ldb, &beta, c, &ldc);
}

inline void gemm(Side a_side, Side b_side, int m, int n, int k, const double* a, int lda,
                 const double* b, int ldb, double beta, double* c, int ldc) {
  const char sides[] = {a_side == Side::plain ? 'N' : 'T', b_side == Side::plain ? 'N' : 'T'};
  const double one = 1;
  dgemm_(&sides[0], &sides[1], &m, &n, &k, &one, a, &lda, b, &ldb, &beta, c, &ldc);
}

// A row-major view of an array, as a tensor that does not own it; `line` is what a row, or with
// Side::transposed a column, is apart from the next.
template <typename T>
Tensor view_of(const T* data, int rows, int columns, int line, Side side) {
  const std::array<int64_t, 2> shape{rows, columns};
  const std::array<int64_t, 2> strides =
      side == Side::plain ? std::array<int64_t, 2>{line, 1} : std::array<int64_t, 2>{1, line};
  return torch::stable::from_blob(const_cast<T*>(data), shape, strides,
                                  torch::stable::Device(torch::headeronly::DeviceType::CPU),
                                  torch::headeronly::CppTypeToScalarType<T>::value);
}

// BLAS has no such product; torch has, with float32 sums inside.
inline void gemm(Side a_side, Side b_side, int m, int n, int k, const BFloat16* a, int lda,
                 const BFloat16* b, int ldb, float beta, BFloat16* c, int ldc) {
  std::vector<BFloat16> addend;
  if (beta != 0) addend.assign(c, c + static_cast<int64_t>(m) * n);
  call_product("aten::mm", view_of(b, n, k, ldb, b_side), view_of(a, k, m, lda, a_side),
               view_of(c, n, m, ldc, Side::plain));
  for (size_t at = 0; at < addend.size(); ++at) c[at] += beta * addend[at];
}

inline void gemv(Side side, int m, int n, const float* a, const float* x, float* y) {
  const char letter = side == Side::plain ? 'N' : 'T';
  const float one = 1, zero = 0;
  const int step = 1;
  sgemv_(&letter, &m, &n, &one, a, &m, x, &step, &zero, y, &step);
}

inline void gemv(Side side, int m, int n, const double* a, const double* x, double* y) {
  const char letter = side == Side::plain ? 'N' : 'T';
  const double one = 1, zero = 0;
  const int step = 1;
  dgemv_(&letter, &m, &n, &one, a, &m, x, &step, &zero, y, &step);
}

inline void gemv(Side side, int m, int n, const BFloat16* a, const BFloat16* x, BFloat16* y) {
  const bool plain = side == Side::plain;
  gemm(side, Side::plain, plain ? m : n, 1, plain ? n : m, a, m, x, plain ? n : m, 0.0f, y,
       plain ? m : n);
}

// out = rows . w, or rows . w^T, for a matrix w of shape (w_rows, w_columns).
template <typename T>
void multiply(const T* rows, int n_rows, const T* w, int w_rows, int w_columns, Side side, T* out) {
  const bool plain = side == Side::plain;
  const int inner = plain ? w_rows : w_columns, outer = plain ? w_columns : w_rows;
  if (n_rows == 1) {  // BLAS's matrix product takes up to 1.5 times as long here
    gemv(side, w_columns, w_rows, w, rows, out);
    return;
  }
  const auto multiply_share = [=](int64_t first, int64_t last) {
    const T* share = w + first * (plain ? 1 : w_columns);
    gemm(side, Side::plain, static_cast<int>(last - first), n_rows, inner, share, w_columns, rows,
         inner, 0, out + first, outer);
  };
  if constexpr (std::is_same_v<T, BFloat16>) {
    multiply_share(0, outer);
  } else {  // BLAS's own threads share so few rows badly
    const int64_t n_multiplications = std::max<int64_t>(1, static_cast<int64_t>(n_rows) * inner);
    const int64_t grain = std::max<int64_t>(1, kMultiplicationsPerThread / n_multiplications);
    parallel_for(0, outer, grain, multiply_share);
  }
}

// Whether BLAS leaves half of each vector unused: torch's, MKL, has no AVX-512 for AMD's
// processors.
inline bool blas_is_narrow() {
#if defined(__AVX512F__)
  return __builtin_cpu_is("amd");
#else
  return false;
#endif
}

// For how many rows, at most, panels are faster than BLAS: measured for 8 to 128 of them, and 512
// where it is narrow.
inline int most_rows_by_panels() {
#if defined(__AVX512F__)
  if (!blas_is_narrow()) return 64;
#endif
  return std::numeric_limits<int>::max();
}

template <typename T>
constexpr bool kHasPanels =
#if defined(__AVX2__)
    std::is_floating_point_v<T>;
#else
    false;
#endif

// One side of many products, rows . w or rows . w^T, for a matrix w of shape (w_rows, w_columns) or
// null: in panels, where that is faster.
template <typename T>
class Factor {
 public:
  Factor(const T* w, int w_rows, int w_columns, Side side, int64_t most_rows, int64_t least_rows,
         int64_t n_products)
      : w_(w), w_rows_(w_rows), w_columns_(w_columns), side_(side) {
    if constexpr (kHasPanels<T>) {
      const bool too_few = most_rows < 2 || n_products < kProductsPerPacking ||
                           n_products * most_rows < kRowsPerPacking;
      if (w == nullptr || too_few || least_rows > most_rows_by_panels()) return;
      if (side == Side::plain) {
        panels_.emplace(w, w_rows, w_columns, w_columns, 1);
      } else {
        panels_.emplace(w, w_columns, w_rows, 1, w_columns);
      }
    }
  }

  explicit operator bool() const { return w_ != nullptr; }

  void multiply(const T* rows, int n_rows, T* out) const {
    if constexpr (kHasPanels<T>) {
      if (panels_.has_value() && n_rows <= most_rows_by_panels()) {
        panels_->multiply(rows, n_rows, out);
        return;
      }
    }
    skdiscovery::multiply(rows, n_rows, w_, w_rows_, w_columns_, side_, out);
  }

 private:
  struct None {};
  // From where on packing is worth its time: measured for 2 to 128 rows.
  static constexpr int64_t kProductsPerPacking = 4, kRowsPerPacking = 64;

  const T* w_;
  int w_rows_, w_columns_;
  Side side_;
  std::conditional_t<kHasPanels<T>, std::optional<Panels<RealProducts<T>>>, None> panels_;
};

// out = rows^T, for a matrix of n_rows and n_columns.
template <typename T>
void transpose(const T* rows, int64_t n_rows, int64_t n_columns, T* out) {
  constexpr int64_t kBlock = 64 / sizeof(T);  // a line of the cache
  const int64_t n_blocks = (n_columns + kBlock - 1) / kBlock;
  parallel_for(0, n_blocks, 1, [=](int64_t block, int64_t last) {
    for (; block < last; ++block) {
      const int64_t end = std::min(n_columns, (block + 1) * kBlock);
      for (int64_t row = 0; row < n_rows; ++row) {
        for (int64_t column = block * kBlock; column < end; ++column) {
          out[column * n_rows + row] = rows[row * n_columns + column];
        }
      }
    }
  });
}

// Rows that are summed at a time: a panel of so many stays in the cache, and as they are no
// multiple of a power of two, transposed rows do not all begin in the same places of it.
constexpr int64_t kRowsAtOnce = 1840;

// sum_outer_products, below.
template <typename T>
void sum_by_panels(const T* a, int64_t a_columns, const T* b, int64_t b_columns, int64_t n_rows,
                   bool fresh, T* sum) {
  std::vector<T> a_transposed(a_columns * std::min(n_rows, kRowsAtOnce));
  int64_t first = 0;
  do {
    const int64_t n = std::min(kRowsAtOnce, n_rows - first);
    transpose(a + first * a_columns, n, a_columns, a_transposed.data());
    const Panels<RealProducts<T>> panels(b + first * b_columns, n, b_columns, b_columns, 1);
    panels.multiply(a_transposed.data(), a_columns, sum, !fresh || first > 0);
    first += n;
  } while (first < n_rows);
}

// sum += a^T . b over n_rows rows; with `fresh`, sum = a^T . b.
template <typename T>
void sum_outer_products(const T* a, int a_columns, const T* b, int b_columns, int n_rows,
                        bool fresh, T* sum) {
  if constexpr (kHasPanels<T>) {
    if (blas_is_narrow()) {
      sum_by_panels(a, a_columns, b, b_columns, n_rows, fresh, sum);
      return;
    }
  }
  gemm(Side::plain, Side::transposed, b_columns, a_columns, n_rows, b, b_columns, a, a_columns,
       fresh ? 0 : 1, sum, b_columns);
}

}  // namespace skdiscovery
