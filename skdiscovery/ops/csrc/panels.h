// Products of a few rows at a time with one matrix, again and again.
//
// BLAS puts the matrix into an order that suits it for each product anew, which for 32 rows takes
// half as long as the product. Here that is done once. The matrix becomes panels of kColumns
// columns, through each of which up to kRows rows go together.

#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "threads.h"

namespace skdiscovery {

// Multiplications that are worth a thread of their own.
constexpr int64_t kMultiplicationsPerThread = 1 << 18;

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kRegisters = 32;
#else
constexpr int kVectorBytes = 32, kRegisters = 16;
#endif

// What a processor multiplies and adds up at once: kSteps times kDepth numbers of a row with as
// many of a column, for each column of a vector. The sums of two vectors of columns and kRows rows
// stay in registers, beside the vectors of weights and one of a row. This is for real numbers.
template <typename T>
struct RealProducts {
  using Weight = T;
  using Row = T;
  using Sum = T;
  typedef T Vector __attribute__((vector_size(kVectorBytes)));
  static constexpr int kDepth = 1, kSteps = 1, kRows = (kRegisters - 3) / 2;

  static Vector load(const T* weights) { return *reinterpret_cast<const Vector*>(weights); }
  static T broadcast(const T* row) { return *row; }  // by the multiplication itself
  static Vector add(Vector sum, const T* row, const Vector* weights) {
    return sum + row[0] * weights[0];
  }
};

// A matrix of k rows and n_columns columns, packed for such products: kDepth numbers of a column
// stand side by side, then come those of the next column. The number in a row and a column of it is
// w[row * row_step + column * column_step]; with kDepth > 1, row_step is 1.
template <typename Products>
class Panels {
 public:
  using Weight = typename Products::Weight;
  using Row = typename Products::Row;
  using Sum = typename Products::Sum;

  Panels(const Weight* w, int64_t k, int64_t n_columns, int64_t row_step, int64_t column_step)
      : k_(k),
        n_columns_(n_columns),
        panel_size_((k + kNumbersAtOnce - 1) / kNumbersAtOnce * kNumbersAtOnce * kColumns),
        n_panels_((n_columns + kColumns - 1) / kColumns),
        lines_(new Line[n_panels_ * panel_size_ * sizeof(Weight) / sizeof(Line) + 1]),
        starts_(n_panels_ * kColumns) {
    Weight* packed = reinterpret_cast<Weight*>(lines_.get());
    parallel_for(0, n_panels_, 1, [&](int64_t panel, int64_t last) {
      for (; panel < last; ++panel) {
        const Weight* columns = w + panel * kColumns * column_step;
        pack(columns, row_step, column_step, columns_of(panel), packed + panel * panel_size_);
      }
    });
  }

  // Lets the sums of each column begin with a number of its own, instead of zero.
  void start_at(const Sum* starts) { std::copy_n(starts, n_columns_, starts_.begin()); }

  // out = rows . matrix, or with `add`, out += rows . matrix
  void multiply(const Row* rows, int64_t n_rows, Sum* out, bool add = false) const {
    const int64_t n_multiplications = std::max<int64_t>(1, n_rows * panel_size_);
    const int64_t grain = std::max<int64_t>(1, kMultiplicationsPerThread / n_multiplications);
    parallel_for(0, n_panels_, grain, [&](int64_t panel, int64_t last) {
      for (; panel < last; ++panel) multiply_panel(rows, n_rows, panel, out, add);
    });
  }

 private:
  using Vector = typename Products::Vector;
  static constexpr int kRows = Products::kRows, kDepth = Products::kDepth;
  static constexpr int kSteps = Products::kSteps, kNumbersAtOnce = kSteps * kDepth;
  static constexpr int kLanes = sizeof(Vector) / sizeof(Sum), kColumns = 2 * kLanes;

  struct alignas(64) Line {  // of the cache, so that no vector lies in two
    char bytes[64];
  };

  int64_t columns_of(int64_t panel) const {
    return std::min<int64_t>(kColumns, n_columns_ - panel * kColumns);
  }

  void pack(const Weight* columns, int64_t row_step, int64_t column_step, int64_t n,
            Weight* to) const {
    if (n < kColumns || k_ % kNumbersAtOnce > 0) std::fill_n(to, panel_size_, Weight(0));
    constexpr int64_t kBlock = 512 / sizeof(Weight);  // a panel's rows that the cache has room for
    for (int64_t first = 0; first < k_; first += kBlock) {
      const int64_t last = std::min(k_, first + kBlock);
      for (int64_t column = 0; column < n; ++column) {
        const Weight* from = columns + column * column_step;
        for (int64_t row = first; row < last; row += kDepth) {
          Weight* group = to + row * kColumns + column * kDepth;
          if (row + kDepth <= k_) {  // a known number is copied at once
            std::copy_n(from + row * row_step, kDepth, group);
          } else {
            std::copy_n(from + row * row_step, k_ - row, group);
          }
        }
      }
    }
  }

  void multiply_panel(const Row* rows, int64_t n_rows, int64_t panel, Sum* out, bool add) const {
    int64_t row = 0;
    for (; row + kRows <= n_rows; row += kRows) multiply_rows<kRows>(rows, row, panel, out, add);
    multiply_last<kRows - 1>(rows, row, n_rows - row, panel, out, add);
  }

  template <int n>
  void multiply_last(const Row* rows, int64_t row, int64_t n_left, int64_t panel, Sum* out,
                     bool add) const {
    if constexpr (n > 0) {
      if (n_left == n) {
        multiply_rows<n>(rows, row, panel, out, add);
      } else {
        multiply_last<n - 1>(rows, row, n_left, panel, out, add);
      }
    }
  }

  template <int n>
  void sum_products(const Row* rows, const Weight* packed, Sum (&sums)[n][kColumns]) const {
    Vector left[n] = {}, right[n] = {};
    for (int64_t at = 0; at < k_; at += kNumbersAtOnce) {
      const Weight* weights = packed + at * kColumns;
      Vector left_weights[kSteps], right_weights[kSteps];
      for (int step = 0; step < kSteps; ++step) {
        left_weights[step] = Products::load(weights + 2 * step * kLanes * kDepth);
        right_weights[step] = Products::load(weights + (2 * step + 1) * kLanes * kDepth);
      }
#pragma GCC unroll 14
      for (int row = 0; row < n; ++row) {
        decltype(Products::broadcast(rows)) numbers[kSteps];
        for (int step = 0; step < kSteps; ++step) {
          numbers[step] = Products::broadcast(rows + row * k_ + at + step * kDepth);
        }
        left[row] = Products::add(left[row], numbers, left_weights);
        right[row] = Products::add(right[row], numbers, right_weights);
      }
    }
#pragma GCC unroll 14
    for (int row = 0; row < n; ++row) {
      Vector* out = reinterpret_cast<Vector*>(sums[row]);
      out[0] = left[row];
      out[1] = right[row];
    }
  }

  template <int n>
  void multiply_rows(const Row* rows, int64_t row, int64_t panel, Sum* out, bool add) const {
    const Weight* packed = reinterpret_cast<const Weight*>(lines_.get()) + panel * panel_size_;
    alignas(Line) Sum sums[n][kColumns];
    sum_products(rows + row * k_, packed, sums);
    const int64_t n_sums = columns_of(panel);
    const Sum* starts = starts_.data() + panel * kColumns;
    for (int i = 0; i < n; ++i) {
      Sum* to = out + (row + i) * n_columns_ + panel * kColumns;
      for (int64_t column = 0; column < n_sums; ++column) {
        to[column] = (add ? to[column] : starts[column]) + sums[i][column];
      }
    }
  }

  int64_t k_, n_columns_, panel_size_, n_panels_;
  std::unique_ptr<Line[]> lines_;
  std::vector<Sum> starts_;
};

}  // namespace skdiscovery
