// CPU kernels of the operators that skdiscovery/ops/mlstm.py defines.
//
// A step is two matrix products, from the libraries that torch brings, and two fused loops over
// units, which the compiler vectorises and torch's own threads share. All steps work in buffers
// that are allocated before the first: those that the caller gets, and a scratch.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "arrays.h"
#include "gates.h"
#include "products.h"
#include "threads.h"

namespace skdiscovery {
namespace {

// ---- Numbers ---------------------------------------------------------------------------------

// What both directions read.
template <typename Stored, typename Real>
class Cell : public Inputs<Stored> {
 public:
  Cell(const Tensor& x_, const OptionalTensor& mx_, const OptionalTensor& symbols_,
       const Tensor& wh_, const OptionalTensor& wmh_, const Tensor& h0_, const Tensor& c0_,
       const OptionalTensor& keep_)
      : Inputs<Stored>(x_, mx_, symbols_, wh_.size(1)),
        wh(stored_(wh_)),
        wmh(stored_(wmh_)),
        h0(stored_(h0_)),
        c0(real_(c0_)),
        keep(real_(keep_)) {}

  Real keep_of(int64_t row) const { return keep == nullptr ? Real(1) : keep[row]; }

 private:
  Arrays<Stored> stored_;
  Arrays<Real> real_;

 public:
  const Stored *const wh, *const wmh, *const h0;
  const Real *const c0, *const keep;
};

// The recurrent matrices, which n_steps products need.
template <typename Stored>
struct Factors {
  template <typename Real>
  Factors(const Cell<Stored, Real>& cell, Side side, int64_t most_rows, int64_t least_rows,
          int64_t n_steps)
      : wh(cell.wh, 4 * cell.hidden, cell.hidden, side, most_rows, least_rows, n_steps),
        wmh(cell.wmh, cell.hidden, cell.hidden, side, most_rows, least_rows, n_steps) {}

  const Factor<Stored> wh, wmh;
};

// Products of bfloat16 numbers are up to twice as fast as float32's where the processor has an
// instruction for them, and far slower elsewhere: there they are widened.
#if defined(__AVX512BF16__)
using NumbersOfBFloat16 = Numbers<BFloat16, float>;
#else
using NumbersOfBFloat16 = Numbers<float, float>;
#endif

// Calls run(Numbers) with the types to store and to compute in.
template <typename Run>
auto with_numbers(const Tensor& x, const Run& run) {
  switch (x.scalar_type()) {
    case ScalarType::Double:
      return run(Numbers<double, double>{});
    case ScalarType::Float:
      return run(Numbers<float, float>{});
    case ScalarType::BFloat16:
      return run(NumbersOfBFloat16{});
    default:
      throw std::invalid_argument(
          "Expected x of dtype float64, float32 or bfloat16 on the CPU; use backend='torch' for "
          "others.");
  }
}

// ---- Forward ---------------------------------------------------------------------------------

// Advances the n rows from first_row on by one step. `gates` (n, 4H) and `mh` (n, H; mLSTM only)
// are what the backward pass needs, `m` (n, H) is scratch.
template <typename Stored, typename Real>
void step(const Cell<Stored, Real>& cell, const Factors<Stored>& factors, int64_t first_row,
          int64_t n, const Stored* h_before, const Real* c_before, Stored* mh, Stored* m,
          Stored* gates, Stored* h, Real* c) {
  const int64_t hidden = cell.hidden;
  if (factors.wmh) factors.wmh.multiply(h_before, n, mh);
  over_units(n, hidden, [&](int64_t row, int64_t first, int64_t last) {
    const Real keep = cell.keep_of(first_row + row);
    Stored* m_row = m + row * hidden;
    if (factors.wmh) {
      Stored* mh_row = mh + row * hidden;
      const Stored* mx_row = cell.mx_row(first_row + row);
#pragma GCC ivdep
      for (int64_t k = first; k < last; ++k) {
        mh_row[k] = keep * mh_row[k];  // the product of a state that is kept or not
        m_row[k] = Real(mh_row[k]) * mx_row[k];
      }
    } else {
      const Stored* h_row = h_before + row * hidden;
#pragma GCC ivdep
      for (int64_t k = first; k < last; ++k) m_row[k] = keep * h_row[k];
    }
  });
  factors.wh.multiply(m, n, gates);
  over_units(n, hidden, [&](int64_t row, int64_t first, int64_t last) {
    const Real keep = cell.keep_of(first_row + row);
    const Stored* x_row = cell.x_row(first_row + row);
    const Real* c_before_row = c_before + row * hidden;
    Stored *gates_row = gates + row * 4 * hidden, *h_row = h + row * hidden;
    Real* c_row = c + row * hidden;
#pragma GCC ivdep
    for (int64_t k = first; k < last; ++k) {
      const Gates<Real> recurrent = load<Real>(gates_row, hidden, k);
      const Gates<Real> input = load<Real>(x_row, hidden, k);
      const Gates<Real> activated = activate<Real>({recurrent.i + input.i, recurrent.f + input.f,
                                                    recurrent.o + input.o, recurrent.u + input.u});
      const State<Real> state = advance(activated, keep * c_before_row[k]);
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
  return with_numbers(x, [&](auto numbers) {
    using Stored = typename decltype(numbers)::Stored;
    using Real = typename decltype(numbers)::Real;
    const Cell<Stored, Real> cell(x, mx, symbols, wh, wmh, h0, c0, keep);
    const int64_t n_steps = (symbols.has_value() ? *symbols : x).size(0);
    const int64_t n = h0.size(0), hidden = cell.hidden, state = n * hidden;
    const Tensor h = new_array<Stored>(h0, {n_steps, n, hidden});
    const Tensor c = new_array<Real>(h0, {n_steps, n, hidden});
    const Tensor gates = new_array<Stored>(h0, {n_steps, n, 4 * hidden});
    const bool multiplicative = wmh.has_value();
    const Tensor mh =
        multiplicative ? new_array<Stored>(h0, {n_steps, n, hidden}) : new_array<Stored>(h0, {0});
    const Tensor m = new_array<Stored>(h0, {n, hidden});

    const Factors<Stored> factors(cell, Side::transposed, n, n, n_steps);
    const Stored* h_before = cell.h0;
    const Real* c_before = cell.c0;
    for (int64_t t = 0; t < n_steps; ++t) {
      Stored* h_now = data<Stored>(h) + t * state;
      Real* c_now = data<Real>(c) + t * state;
      step(cell, factors, t * n, n, h_before, c_before,
           multiplicative ? data<Stored>(mh) + t * state : nullptr, data<Stored>(m),
           data<Stored>(gates) + t * 4 * state, h_now, c_now);
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
  return with_numbers(x, [&](auto numbers) {
    using Stored = typename decltype(numbers)::Stored;
    using Real = typename decltype(numbers)::Real;
    const Cell<Stored, Real> cell(x, mx, symbols, wh, wmh, h0, c0, std::nullopt);
    const int64_t n_rows = (symbols.has_value() ? *symbols : x).size(0);
    const int64_t n_most = h0.size(0), hidden = cell.hidden;
    const Tensor h = new_array<Stored>(h0, {n_rows, hidden});
    const Tensor c = new_array<Real>(h0, {n_rows, hidden});
    const Tensor gates = new_array<Stored>(h0, {n_most, 4 * hidden});
    const Tensor mh = new_array<Stored>(h0, {n_most, hidden});
    const Tensor m = new_array<Stored>(h0, {n_most, hidden});

    const Factors<Stored> factors(cell, Side::transposed, n_most, batch_sizes.back(),
                                  batch_sizes.size());
    const Stored* h_before = cell.h0;
    const Real* c_before = cell.c0;
    int64_t row = 0;
    for (const int64_t n : batch_sizes) {
      Stored* h_now = data<Stored>(h) + row * hidden;
      Real* c_now = data<Real>(c) + row * hidden;
      step(cell, factors, row, n, h_before, c_before, data<Stored>(mh), data<Stored>(m),
           data<Stored>(gates), h_now, c_now);
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
template <typename Real, typename Stored>
Tensor sum_rows_of_symbols(const Tensor& rows, const int64_t* symbols, int64_t n_symbols) {
  const int64_t width = rows.size(2), n_rows = rows.size(0) * rows.size(1);
  const Tensor table = new_array<Real>(rows, {n_symbols, width});
  const Stored* from = data<Stored>(rows);
  Real* to = data<Real>(table);
  std::fill(to, to + n_symbols * width, Real(0));
  const int64_t n_blocks = (width + kColumnsPerThread - 1) / kColumnsPerThread;
  parallel_for(0, n_blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      const int64_t begin = block * kColumnsPerThread;
      const int64_t end = std::min(width, begin + kColumnsPerThread);
      for (int64_t row = 0; row < n_rows; ++row) {
        Real* sum = to + symbols[row] * width;
        const Stored* one = from + row * width;
#pragma GCC ivdep
        for (int64_t k = begin; k < end; ++k) sum[k] += one[k];
      }
    }
  });
  return table;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> mlstm_backward(
    Tensor dh, OptionalTensor dc, Tensor x, OptionalTensor mx, OptionalTensor symbols, Tensor wh,
    OptionalTensor wmh, Tensor h0, Tensor c0, OptionalTensor keep, Tensor h, Tensor c, Tensor gates,
    Tensor mh) {
  return with_numbers(x, [&](auto numbers) {
    using Stored = typename decltype(numbers)::Stored;
    using Real = typename decltype(numbers)::Real;
    const Cell<Stored, Real> cell(x, mx, symbols, wh, wmh, h0, c0, keep);
    const int64_t n_steps = h.size(0), n = h.size(1), hidden = cell.hidden, state = n * hidden;
    const bool multiplicative = wmh.has_value();
    Arrays<Stored> stored;
    const Stored *dh_all = stored(dh), *h_all = stored(h), *gates_all = stored(gates);
    const Stored* mh_all = stored(mh);
    Arrays<Real> real;
    const Real *dc_all = real(dc), *c_all = real(c);
    const std::vector<Real> no_dc(dc_all == nullptr ? hidden : 0);

    const Tensor dz = new_array<Stored>(h0, {n_steps, n, 4 * hidden});
    const Tensor m = new_array<Stored>(h0, {n_steps, n, hidden});
    const std::vector<int64_t> multiplicative_shape =
        multiplicative ? std::vector<int64_t>{n_steps, n, hidden} : std::vector<int64_t>{0};
    const Tensor dmx = new_array<Stored>(h0, multiplicative_shape);
    const Tensor dmh = new_array<Stored>(h0, multiplicative_shape);
    const Tensor dm = new_array<Stored>(h0, {n, hidden});
    const Tensor dh_carried = torch::stable::new_zeros(dm, {n, hidden});
    const Tensor dc_carried = new_array<Real>(h0, {n, hidden});
    std::fill(data<Real>(dc_carried), data<Real>(dc_carried) + state, Real(0));

    const Factors<Stored> factors(cell, Side::plain, n, n, n_steps);
    for (int64_t t = n_steps - 1; t >= 0; --t) {
      const int64_t first_row = t * n;
      const Real* c_before = t > 0 ? c_all + (t - 1) * state : cell.c0;
      const Stored* h_before = t > 0 ? h_all + (t - 1) * state : cell.h0;
      Stored* dz_now = data<Stored>(dz) + t * 4 * state;
      over_units(n, hidden, [&](int64_t row, int64_t first, int64_t last) {
        const Real keep_row = cell.keep_of(first_row + row);
        const int64_t at = row * hidden;
        const Stored* dh_row = dh_all + t * state + at;
        const Real* dc_row = dc_all == nullptr ? no_dc.data() : dc_all + t * state + at;
        const Real *c_row = c_all + t * state + at, *c_before_row = c_before + at;
        const Stored* gates_row = gates_all + t * 4 * state + 4 * at;
        const Stored* dh_carried_row = data<Stored>(dh_carried) + at;
        Real* dc_carried_row = data<Real>(dc_carried) + at;
        Stored* dz_row = dz_now + 4 * at;
#pragma GCC ivdep
        for (int64_t k = first; k < last; ++k) {
          const Gates<Real> unit = load<Real>(gates_row, hidden, k);
          const State<Real> d{Real(dh_row[k]) + Real(dh_carried_row[k]),
                              dc_row[k] + dc_carried_row[k]};
          const Real tanh_c = tanh(c_row[k]);
          const Real dc_now = cell_gradient(unit, tanh_c, d);
          store(gate_gradients(unit, tanh_c, keep_row * c_before_row[k], d.h, dc_now), dz_row,
                hidden, k);
          dc_carried_row[k] = keep_row * dc_now * unit.f;
        }
      });
      factors.wh.multiply(dz_now, n, data<Stored>(dm));
      over_units(n, hidden, [&](int64_t row, int64_t first, int64_t last) {
        const Real keep_row = cell.keep_of(first_row + row);
        const int64_t at = row * hidden;
        const Stored* dm_row = data<Stored>(dm) + at;
        Stored* m_row = data<Stored>(m) + t * state + at;
        if (multiplicative) {
          const Stored *mh_row = mh_all + t * state + at, *mx_row = cell.mx_row(first_row + row);
          Stored *dmx_row = data<Stored>(dmx) + t * state + at,
                 *dmh_row = data<Stored>(dmh) + t * state + at;
#pragma GCC ivdep
          for (int64_t k = first; k < last; ++k) {
            m_row[k] = Real(mh_row[k]) * mx_row[k];
            dmx_row[k] = Real(dm_row[k]) * mh_row[k];
            dmh_row[k] = keep_row * dm_row[k] * mx_row[k];
          }
        } else {
          const Stored* h_before_row = h_before + at;
          Stored* dh_carried_row = data<Stored>(dh_carried) + at;
#pragma GCC ivdep
          for (int64_t k = first; k < last; ++k) {
            m_row[k] = keep_row * h_before_row[k];
            dh_carried_row[k] = keep_row * dm_row[k];
          }
        }
      });
      if (multiplicative) {
        factors.wmh.multiply(data<Stored>(dmh) + t * state, n, data<Stored>(dh_carried));
      }
    }

    const Tensor dwh = new_array<Stored>(h0, {4 * hidden, hidden});
    sum_outer_products(data<Stored>(dz), 4 * hidden, data<Stored>(m), hidden, n_steps * n, true,
                       data<Stored>(dwh));
    const Tensor dwmh =
        multiplicative ? new_array<Stored>(h0, {hidden, hidden}) : new_array<Stored>(h0, {0});
    if (multiplicative) {  // the state before a step is h0, then h of the step before
      sum_outer_products(data<Stored>(dmh), hidden, cell.h0, hidden, n, true, data<Stored>(dwmh));
      sum_outer_products(data<Stored>(dmh) + state, hidden, h_all, hidden, (n_steps - 1) * n, false,
                         data<Stored>(dwmh));
    }
    Tensor dx = dz, dmx_of_operand = dmx;
    if (symbols.has_value()) {
      dx = sum_rows_of_symbols<Real, Stored>(dz, cell.symbols, x.size(0));
      if (multiplicative)
        dmx_of_operand = sum_rows_of_symbols<Real, Stored>(dmx, cell.symbols, x.size(0));
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

}  // namespace skdiscovery
