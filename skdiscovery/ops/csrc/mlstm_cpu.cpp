// CPU kernels of the operators that skdiscovery/ops/mlstm.py defines.
//
// A step is two matrix products, from the library that torch links, and two fused loops over units,
// which the compiler vectorises and torch's own threads share. All steps work in buffers that are
// allocated before the first: those that the caller gets, and a scratch.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "gates.h"

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

namespace {

using skdiscovery::Gates;
using skdiscovery::State;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// ---- Matrix products -------------------------------------------------------------------------
// BLAS counts columns first, so it sees each row-major matrix here as its transpose.

enum class Side { plain, transposed };

char letter(Side side) { return side == Side::plain ? 'N' : 'T'; }

void gemm(char a_side, char b_side, int m, int n, int k, const float* a, int lda, const float* b,
          int ldb, float beta, float* c) {
  const float one = 1;
  sgemm_(&a_side, &b_side, &m, &n, &k, &one, a, &lda, b, &ldb, &beta, c, &m);
}

void gemm(char a_side, char b_side, int m, int n, int k, const double* a, int lda, const double* b,
          int ldb, double beta, double* c) {
  const double one = 1;
  dgemm_(&a_side, &b_side, &m, &n, &k, &one, a, &lda, b, &ldb, &beta, c, &m);
}

void gemv(char side, int m, int n, const float* a, const float* x, float* y) {
  const float one = 1, zero = 0;
  const int step = 1;
  sgemv_(&side, &m, &n, &one, a, &m, x, &step, &zero, y, &step);
}

void gemv(char side, int m, int n, const double* a, const double* x, double* y) {
  const double one = 1, zero = 0;
  const int step = 1;
  dgemv_(&side, &m, &n, &one, a, &m, x, &step, &zero, y, &step);
}

// out = rows . w, or rows . w^T, for a matrix w of shape (w_rows, w_columns).
template <typename T>
void multiply(const T* rows, int n_rows, const T* w, int w_rows, int w_columns, Side side, T* out) {
  const bool plain = side == Side::plain;
  const int inner = plain ? w_rows : w_columns, outer = plain ? w_columns : w_rows;
  if (n_rows == 1) {  // BLAS's matrix product takes up to 1.5 times as long here
    gemv(letter(side), w_columns, w_rows, w, rows, out);
  } else {
    gemm(letter(side), 'N', outer, n_rows, inner, w, w_columns, rows, inner, T(0), out);
  }
}

// sum += a^T . b over n_rows rows; with `fresh`, sum = a^T . b.
template <typename T>
void sum_outer_products(const T* a, int a_columns, const T* b, int b_columns, int n_rows,
                        bool fresh, T* sum) {
  gemm('N', 'T', b_columns, a_columns, n_rows, b, b_columns, a, a_columns, T(fresh ? 0 : 1), sum);
}

// ---- Loops over units ------------------------------------------------------------------------

// Fewer units than this are not worth waking a thread.
constexpr int64_t kUnitsPerThread = 8192;

// Calls work(row, first, last) for parts of rows that together are all units of all rows.
template <typename Work>
void over_units(int64_t n_rows, int64_t hidden, const Work& work) {
  torch::stable::parallel_for(0, n_rows * hidden, kUnitsPerThread, [&](int64_t at, int64_t stop) {
    while (at < stop) {
      const int64_t row = at / hidden, first = at % hidden;
      const int64_t last = std::min(hidden, first + stop - at);
      work(row, first, last);
      at += last - first;
    }
  });
}

// A row of gates: four blocks of `hidden` units.
template <typename T>
SKDISCOVERY_INLINE Gates<T> load(const T* row, int64_t hidden, int64_t unit) {
  return {row[unit], row[hidden + unit], row[2 * hidden + unit], row[3 * hidden + unit]};
}

template <typename T>
SKDISCOVERY_INLINE void store(Gates<T> gates, T* row, int64_t hidden, int64_t unit) {
  row[unit] = gates.i;
  row[hidden + unit] = gates.f;
  row[2 * hidden + unit] = gates.o;
  row[3 * hidden + unit] = gates.u;
}

// ---- Operands --------------------------------------------------------------------------------

// Gives tensors as contiguous arrays of T, and keeps those alive that had to be converted.
template <typename T>
class Arrays {
 public:
  const T* operator()(const Tensor& tensor) {
    constexpr ScalarType type = torch::headeronly::CppTypeToScalarType<T>::value;
    Tensor ready = tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
    if (!ready.is_contiguous()) ready = torch::stable::contiguous(ready);
    kept_.push_back(ready);
    return static_cast<const T*>(ready.const_data_ptr());
  }

  const T* operator()(const OptionalTensor& tensor) {
    return tensor.has_value() ? (*this)(*tensor) : nullptr;
  }

 private:
  std::vector<Tensor> kept_;
};

template <typename T>
T* data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

template <typename T>
Tensor new_array(const Tensor& like, std::vector<int64_t> shape) {
  return torch::stable::new_empty(like, shape, torch::headeronly::CppTypeToScalarType<T>::value);
}

Tensor as_type(const Tensor& tensor, ScalarType type) {
  return tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
}

// What both directions read; rows of several steps are numbered through.
template <typename T>
class Cell {
 public:
  Cell(const Tensor& x_, const OptionalTensor& mx_, const OptionalTensor& symbols_,
       const Tensor& wh_, const OptionalTensor& wmh_, const Tensor& h0_, const Tensor& c0_,
       const OptionalTensor& keep_)
      : hidden(wh_.size(1)), x(arrays_(x_)), mx(arrays_(mx_)), symbols(indices_(symbols_)),
        wh(arrays_(wh_)), wmh(arrays_(wmh_)), h0(arrays_(h0_)), c0(arrays_(c0_)),
        keep(arrays_(keep_)) {
    if (symbols != nullptr) check_symbols(symbols_->numel(), x_.size(0));
  }

  const T* x_row(int64_t row) const { return x + line(row) * 4 * hidden; }
  const T* mx_row(int64_t row) const { return mx + line(row) * hidden; }
  T keep_of(int64_t row) const { return keep == nullptr ? T(1) : keep[row]; }

 private:
  Arrays<T> arrays_;
  Arrays<int64_t> indices_;

  int64_t line(int64_t row) const { return symbols == nullptr ? row : symbols[row]; }

  void check_symbols(int64_t n, int64_t n_symbols) const {
    for (int64_t row = 0; row < n; ++row) {
      if (symbols[row] < 0 || symbols[row] >= n_symbols) {
        throw std::out_of_range("Symbol " + std::to_string(symbols[row]) +
                                " is out of range: the tables have " + std::to_string(n_symbols) +
                                " rows.");
      }
    }
  }

 public:
  const int64_t hidden;
  const T *const x, *const mx;
  const int64_t* const symbols;
  const T *const wh, *const wmh, *const h0, *const c0, *const keep;
};

// Calls run(number) with a number of the type to compute in, which bfloat16 is widened to: this
// processor's bfloat16 products are no faster.
template <typename Run>
auto in_compute_type(const Tensor& x, const Run& run) {
  switch (x.scalar_type()) {
    case ScalarType::Double:
      return run(double{});
    case ScalarType::Float:
    case ScalarType::BFloat16:
      return run(float{});
    default:
      throw std::invalid_argument(
          "Expected x of dtype float64, float32 or bfloat16 on the CPU; use backend='torch' for "
          "others.");
  }
}

// ---- Forward ---------------------------------------------------------------------------------

// Advances the n rows from first_row on by one step. `gates` (n, 4H) and `mh` (n, H; mLSTM only)
// are what the backward pass needs, `m` (n, H) is scratch.
template <typename T>
void step(const Cell<T>& cell, int64_t first_row, int64_t n, const T* h_before, const T* c_before,
          T* mh, T* m, T* gates, T* h, T* c) {
  const int64_t hidden = cell.hidden;
  if (cell.wmh != nullptr) {
    multiply(h_before, n, cell.wmh, hidden, hidden, Side::transposed, mh);
  }
  over_units(n, hidden, [&](int64_t row, int64_t first, int64_t last) {
    const T keep = cell.keep_of(first_row + row);
    T* m_row = m + row * hidden;
    if (cell.wmh != nullptr) {
      T* mh_row = mh + row * hidden;
      const T* mx_row = cell.mx_row(first_row + row);
#pragma GCC ivdep
      for (int64_t k = first; k < last; ++k) {
        mh_row[k] *= keep;  // the product of a state that is kept or not
        m_row[k] = mh_row[k] * mx_row[k];
      }
    } else {
      const T* h_row = h_before + row * hidden;
#pragma GCC ivdep
      for (int64_t k = first; k < last; ++k) m_row[k] = keep * h_row[k];
    }
  });
  multiply(m, n, cell.wh, 4 * hidden, hidden, Side::transposed, gates);
  over_units(n, hidden, [&](int64_t row, int64_t first, int64_t last) {
    const T keep = cell.keep_of(first_row + row);
    const T* x_row = cell.x_row(first_row + row);
    const T* c_before_row = c_before + row * hidden;
    T *gates_row = gates + row * 4 * hidden, *h_row = h + row * hidden, *c_row = c + row * hidden;
#pragma GCC ivdep
    for (int64_t k = first; k < last; ++k) {
      const Gates<T> recurrent = load(gates_row, hidden, k), input = load(x_row, hidden, k);
      const Gates<T> activated =
          skdiscovery::activate<T>({recurrent.i + input.i, recurrent.f + input.f,
                                    recurrent.o + input.o, recurrent.u + input.u});
      const State<T> state = skdiscovery::advance(activated, keep * c_before_row[k]);
      store(activated, gates_row, hidden, k);
      h_row[k] = state.h;
      c_row[k] = state.c;
    }
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> mlstm(Tensor x, OptionalTensor mx,
                                                 OptionalTensor symbols, Tensor wh,
                                                 OptionalTensor wmh, Tensor h0, Tensor c0,
                                                 OptionalTensor keep) {
  return in_compute_type(x, [&](auto number) {
    using T = decltype(number);
    const Cell<T> cell(x, mx, symbols, wh, wmh, h0, c0, keep);
    const int64_t n_steps = (symbols.has_value() ? *symbols : x).size(0);
    const int64_t n = h0.size(0), hidden = cell.hidden, state = n * hidden;
    const Tensor h = new_array<T>(h0, {n_steps, n, hidden});
    const Tensor c = new_array<T>(h0, {n_steps, n, hidden});
    const Tensor gates = new_array<T>(h0, {n_steps, n, 4 * hidden});
    const bool multiplicative = wmh.has_value();
    const Tensor mh = multiplicative ? new_array<T>(h0, {n_steps, n, hidden})
                                     : new_array<T>(h0, {0});
    const Tensor m = new_array<T>(h0, {n, hidden});

    const T *h_before = cell.h0, *c_before = cell.c0;
    for (int64_t t = 0; t < n_steps; ++t) {
      T *h_now = data<T>(h) + t * state, *c_now = data<T>(c) + t * state;
      step(cell, t * n, n, h_before, c_before,
           multiplicative ? data<T>(mh) + t * state : nullptr, data<T>(m),
           data<T>(gates) + t * 4 * state, h_now, c_now);
      h_before = h_now;
      c_before = c_now;
    }
    return std::make_tuple(as_type(h, h0.scalar_type()), as_type(c, c0.scalar_type()),
                           as_type(gates, x.scalar_type()), as_type(mh, h0.scalar_type()));
  });
}

std::tuple<Tensor, Tensor> mlstm_packed(Tensor x, OptionalTensor mx, OptionalTensor symbols,
                                        std::vector<int64_t> batch_sizes, Tensor wh,
                                        OptionalTensor wmh, Tensor h0, Tensor c0) {
  return in_compute_type(x, [&](auto number) {
    using T = decltype(number);
    const Cell<T> cell(x, mx, symbols, wh, wmh, h0, c0, std::nullopt);
    const int64_t n_rows = (symbols.has_value() ? *symbols : x).size(0);
    const int64_t n_most = h0.size(0), hidden = cell.hidden;
    const Tensor h = new_array<T>(h0, {n_rows, hidden});
    const Tensor c = new_array<T>(h0, {n_rows, hidden});
    const Tensor gates = new_array<T>(h0, {n_most, 4 * hidden});
    const Tensor mh = new_array<T>(h0, {n_most, hidden});
    const Tensor m = new_array<T>(h0, {n_most, hidden});

    const T *h_before = cell.h0, *c_before = cell.c0;
    int64_t row = 0;
    for (const int64_t n : batch_sizes) {
      T *h_now = data<T>(h) + row * hidden, *c_now = data<T>(c) + row * hidden;
      step(cell, row, n, h_before, c_before, data<T>(mh), data<T>(m), data<T>(gates), h_now,
           c_now);
      h_before = h_now;
      c_before = c_now;
      row += n;
    }
    return std::make_tuple(as_type(h, h0.scalar_type()), as_type(c, c0.scalar_type()));
  });
}

// ---- Backward --------------------------------------------------------------------------------

// Columns of a table that one thread sums at a time: 256 rows of them stay in the cache.
constexpr int64_t kColumnsPerThread = 64;

// Reverses the look-up in a table of n_symbols rows: sums the rows of each symbol, always in order.
template <typename T>
Tensor sum_rows_of_symbols(const Tensor& rows, const int64_t* symbols, int64_t n_symbols) {
  const int64_t width = rows.size(2), n_rows = rows.size(0) * rows.size(1);
  const Tensor table = torch::stable::new_zeros(rows, {n_symbols, width});
  const T* from = data<T>(rows);
  T* to = data<T>(table);
  const int64_t n_blocks = (width + kColumnsPerThread - 1) / kColumnsPerThread;
  torch::stable::parallel_for(0, n_blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      const int64_t begin = block * kColumnsPerThread;
      const int64_t end = std::min(width, begin + kColumnsPerThread);
      for (int64_t row = 0; row < n_rows; ++row) {
        T* sum = to + symbols[row] * width;
        const T* one = from + row * width;
#pragma GCC ivdep
        for (int64_t k = begin; k < end; ++k) sum[k] += one[k];
      }
    }
  });
  return table;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> mlstm_backward(
    Tensor dh, Tensor dc, Tensor x, OptionalTensor mx, OptionalTensor symbols, Tensor wh,
    OptionalTensor wmh, Tensor h0, Tensor c0, OptionalTensor keep, Tensor h, Tensor c,
    Tensor gates, Tensor mh) {
  return in_compute_type(x, [&](auto number) {
    using T = decltype(number);
    const Cell<T> cell(x, mx, symbols, wh, wmh, h0, c0, keep);
    const int64_t n_steps = h.size(0), n = h.size(1), hidden = cell.hidden, state = n * hidden;
    const bool multiplicative = wmh.has_value();
    Arrays<T> arrays;
    const T *dh_all = arrays(dh), *dc_all = arrays(dc), *h_all = arrays(h), *c_all = arrays(c);
    const T *gates_all = arrays(gates), *mh_all = arrays(mh);

    const Tensor dz = new_array<T>(h0, {n_steps, n, 4 * hidden});
    const Tensor m = new_array<T>(h0, {n_steps, n, hidden});
    const std::vector<int64_t> multiplicative_shape =
        multiplicative ? std::vector<int64_t>{n_steps, n, hidden} : std::vector<int64_t>{0};
    const Tensor dmx = new_array<T>(h0, multiplicative_shape);
    const Tensor dmh = new_array<T>(h0, multiplicative_shape);
    const Tensor dm = new_array<T>(h0, {n, hidden});
    const Tensor dh_carried = torch::stable::new_zeros(dm, {n, hidden});
    const Tensor dc_carried = torch::stable::new_zeros(dm, {n, hidden});

    for (int64_t t = n_steps - 1; t >= 0; --t) {
      const int64_t first_row = t * n;
      const T* c_before = t > 0 ? c_all + (t - 1) * state : cell.c0;
      const T* h_before = t > 0 ? h_all + (t - 1) * state : cell.h0;
      T* dz_now = data<T>(dz) + t * 4 * state;
      over_units(n, hidden, [&](int64_t row, int64_t first, int64_t last) {
        const T keep_row = cell.keep_of(first_row + row);
        const int64_t at = row * hidden;
        const T *dh_row = dh_all + t * state + at, *dc_row = dc_all + t * state + at;
        const T *c_row = c_all + t * state + at, *c_before_row = c_before + at;
        const T* gates_row = gates_all + t * 4 * state + 4 * at;
        const T* dh_carried_row = data<T>(dh_carried) + at;
        T *dc_carried_row = data<T>(dc_carried) + at, *dz_row = dz_now + 4 * at;
#pragma GCC ivdep
        for (int64_t k = first; k < last; ++k) {
          const Gates<T> unit = load(gates_row, hidden, k);
          const State<T> d{dh_row[k] + dh_carried_row[k], dc_row[k] + dc_carried_row[k]};
          const T tanh_c = skdiscovery::tanh(c_row[k]);
          const T dc_now = skdiscovery::cell_gradient(unit, tanh_c, d);
          store(skdiscovery::gate_gradients(unit, tanh_c, keep_row * c_before_row[k], d.h, dc_now),
                dz_row, hidden, k);
          dc_carried_row[k] = keep_row * dc_now * unit.f;
        }
      });
      multiply(dz_now, n, cell.wh, 4 * hidden, hidden, Side::plain, data<T>(dm));
      over_units(n, hidden, [&](int64_t row, int64_t first, int64_t last) {
        const T keep_row = cell.keep_of(first_row + row);
        const int64_t at = row * hidden;
        const T* dm_row = data<T>(dm) + at;
        T* m_row = data<T>(m) + t * state + at;
        if (multiplicative) {
          const T *mh_row = mh_all + t * state + at, *mx_row = cell.mx_row(first_row + row);
          T *dmx_row = data<T>(dmx) + t * state + at, *dmh_row = data<T>(dmh) + t * state + at;
#pragma GCC ivdep
          for (int64_t k = first; k < last; ++k) {
            m_row[k] = mh_row[k] * mx_row[k];
            dmx_row[k] = dm_row[k] * mh_row[k];
            dmh_row[k] = keep_row * dm_row[k] * mx_row[k];
          }
        } else {
          const T* h_before_row = h_before + at;
          T* dh_carried_row = data<T>(dh_carried) + at;
#pragma GCC ivdep
          for (int64_t k = first; k < last; ++k) {
            m_row[k] = keep_row * h_before_row[k];
            dh_carried_row[k] = keep_row * dm_row[k];
          }
        }
      });
      if (multiplicative) {
        multiply(data<T>(dmh) + t * state, n, cell.wmh, hidden, hidden, Side::plain,
                 data<T>(dh_carried));
      }
    }

    const Tensor dwh = new_array<T>(h0, {4 * hidden, hidden});
    sum_outer_products(data<T>(dz), 4 * hidden, data<T>(m), hidden, n_steps * n, true,
                       data<T>(dwh));
    const Tensor dwmh = multiplicative ? new_array<T>(h0, {hidden, hidden})
                                       : new_array<T>(h0, {0});
    if (multiplicative) {  // the state before a step is h0, then h of the step before
      sum_outer_products(data<T>(dmh), hidden, cell.h0, hidden, n, true, data<T>(dwmh));
      sum_outer_products(data<T>(dmh) + state, hidden, h_all, hidden, (n_steps - 1) * n, false,
                         data<T>(dwmh));
    }
    Tensor dx = dz, dmx_of_operand = dmx;
    if (symbols.has_value()) {
      dx = sum_rows_of_symbols<T>(dz, cell.symbols, x.size(0));
      if (multiplicative) dmx_of_operand = sum_rows_of_symbols<T>(dmx, cell.symbols, x.size(0));
    }
    const ScalarType type = x.scalar_type();
    return std::make_tuple(as_type(dx, type), as_type(dmx_of_operand, type), as_type(dwh, type),
                           as_type(dwmh, type), as_type(dh_carried, type),
                           as_type(dc_carried, c0.scalar_type()));
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skdiscovery, CPU, library) {
  library.impl("mlstm", TORCH_BOX(&mlstm));
  library.impl("mlstm_backward", TORCH_BOX(&mlstm_backward));
  library.impl("mlstm_packed", TORCH_BOX(&mlstm_packed));
}
