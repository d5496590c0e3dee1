// Steps of the mLSTM on a GPU, for skdiscovery/ops/cuda.py, which decides how many to enqueue.
//
// A step is two matrix products, which torch's cuBLAS makes in buffers at fixed addresses, and two
// fused kernels. These find their step, and the arrays of the whole sequence, through a struct in
// device memory: so a CUDA graph of a few steps, once captured, goes on through any sequence.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/BFloat16.h>

#include <cassert>
#include <optional>
#include <stdexcept>
#include <type_traits>

#include "gates.h"
#include "launch.h"
#include "packs.h"
#include "torch_product.h"

namespace skdiscovery {
namespace {

using torch::headeronly::BFloat16;
using torch::headeronly::ScalarType;
using OptionalTensor = std::optional<Tensor>;

// Calls run(Numbers) with the types to store and to compute in.
template <typename Run>
void with_numbers(const Tensor& stored, const Run& run) {
  switch (stored.scalar_type()) {
    case ScalarType::Double:
      return run(Numbers<double, double>{});
    case ScalarType::Float:
      return run(Numbers<float, float>{});
    case ScalarType::BFloat16:
      return run(Numbers<BFloat16, float>{});
    default:
      throw std::invalid_argument(
          "Expected x of dtype float64, float32 or bfloat16 on a GPU; use backend='torch' for "
          "others.");
  }
}

constexpr int kUnits = 4;  // of a piece of work; eight left too few threads to hide their waiting

// Calls run(width) with how many units a piece of work does: one, where rows of them do not divide
// into more.
template <typename Run>
void with_width(int64_t hidden, const Run& run) {
  if (hidden % kUnits == 0) {
    run(std::integral_constant<int, kUnits>{});
  } else {
    run(std::integral_constant<int, 1>{});
  }
}

template <typename T>
const T* read(const OptionalTensor& tensor) {
  return tensor.has_value() ? static_cast<const T*>(tensor->const_data_ptr()) : nullptr;
}

template <typename T>
T* write(const OptionalTensor& tensor) {
  return tensor.has_value() ? static_cast<T*>(tensor->mutable_data_ptr()) : nullptr;
}

// ---- The arrays of a sequence, in device memory ----------------------------------------------

// A table with a row per symbol, or the rows of all steps themselves.
template <typename Stored>
struct Lines {
  const Stored* data;
  const int64_t* symbols;
  int64_t n_symbols;

  SKDISCOVERY_INLINE const Stored* of_row(int64_t row, int64_t width) const {
    if (symbols == nullptr) return data + row * width;
    assert(symbols[row] >= 0 && symbols[row] < n_symbols);
    return data + symbols[row] * width;
  }
};

template <typename Stored, typename Real>
struct Forward {
  int64_t step;            // the one that comes next
  const int64_t* offsets;  // row where each step begins, and where the last one ends
  Lines<Stored> x, mx;
  const Real* keep;        // or null: everything is kept
  Stored *h, *gates, *mh;  // results, a row each; gates and mh only if they are wanted
  Real* c;
};

template <typename Stored, typename Real>
struct Backward {
  int64_t step;  // the one that comes next: they fall
  Lines<Stored> mx;
  const Real *keep, *c, *c0, *dc;
  const Stored *gates, *mh, *dh;
  Stored *dz, *dmx, *dmh;  // results, a row each
};

// Work for a single thread.
template <typename Sequence>
struct Set {
  Sequence* where;
  Sequence value;
  SKDISCOVERY_INLINE void operator()(int64_t, int64_t) const { *where = value; }
};

template <typename Sequence>
struct Tick {
  Sequence* sequence;
  int64_t n_steps;
  SKDISCOVERY_INLINE void operator()(int64_t, int64_t) const { sequence->step += n_steps; }
};

// ---- Forward ---------------------------------------------------------------------------------
//
// What a piece of work reads in any case, it asks for before it looks its step up, and so waits for
// both at once: also of lanes that have ended, whose places in the buffers are still there.

// From Wmh h, in m, to the multiplicative state; for an LSTM, from h.
template <typename Stored, typename Real, int width>
struct MultiplyInput {
  const Forward<Stored, Real>* sequence;
  int64_t ahead, hidden;
  bool multiplicative;
  const Stored* h;
  Stored* m;

  SKDISCOVERY_INLINE void operator()(int64_t lane, int64_t unit) const {
    const int64_t at = lane * hidden + unit;
    const Pack<Stored, width> state = read_pack<width>((multiplicative ? m : h) + at);
    const int64_t step = sequence->step + ahead, row = sequence->offsets[step] + lane;
    if (row >= sequence->offsets[step + 1]) return;  // this one has ended
    const Real keep = sequence->keep == nullptr ? Real(1) : sequence->keep[row];
    Pack<Stored, width> result;
    for (int k = 0; k < width; ++k) result.of[k] = keep * Real(state.of[k]);
    if (multiplicative) {
      const auto mx = read_pack<width>(sequence->mx.of_row(row, hidden) + unit);
      if (sequence->mh != nullptr) write_pack(result, sequence->mh + row * hidden + unit);
      for (int k = 0; k < width; ++k) result.of[k] = Real(result.of[k]) * Real(mx.of[k]);
    }
    write_pack(result, m + at);
  }
};

// From Wh m, in z, to the next state.
template <typename Stored, typename Real, int width>
struct UpdateState {
  const Forward<Stored, Real>* sequence;
  int64_t ahead, hidden;
  const Stored* z;
  Stored* h;
  Real* c;

  SKDISCOVERY_INLINE void operator()(int64_t lane, int64_t unit) const {
    const int64_t at = lane * hidden + unit;
    const auto from_m = read_gates<width>(z + lane * 4 * hidden, hidden, unit);
    const auto c_before = read_pack<width>(c + at);
    const int64_t step = sequence->step + ahead, row = sequence->offsets[step] + lane;
    if (row >= sequence->offsets[step + 1]) return;
    const Real keep = sequence->keep == nullptr ? Real(1) : sequence->keep[row];
    const auto from_x = read_gates<width>(sequence->x.of_row(row, 4 * hidden), hidden, unit);
    GatePacks<Stored, width> gates;
    Pack<Stored, width> h_new;
    Pack<Real, width> c_new;
    for (int k = 0; k < width; ++k) {
      const auto a = from_m.template gates_of<Real>(k), b = from_x.template gates_of<Real>(k);
      const Gates<Real> activated = activate<Real>({a.i + b.i, a.f + b.f, a.o + b.o, a.u + b.u});
      const State<Real> state = advance(activated, keep * c_before.of[k]);
      gates.set(k, activated);
      h_new.of[k] = state.h;
      c_new.of[k] = state.c;
    }
    write_pack(h_new, h + at);
    write_pack(c_new, c + at);
    write_pack(h_new, sequence->h + row * hidden + unit);
    write_pack(c_new, sequence->c + row * hidden + unit);
    if (sequence->gates != nullptr) {
      write_gates(gates, sequence->gates + row * 4 * hidden, hidden, unit);
    }
  }
};

void begin_forward(Tensor sequence, Tensor offsets, Tensor x, OptionalTensor mx,
                   OptionalTensor symbols, OptionalTensor keep, Tensor h, Tensor c,
                   OptionalTensor gates, OptionalTensor mh) {
  with_numbers(x, [&](auto numbers) {
    using Stored = typename decltype(numbers)::Stored;
    using Real = typename decltype(numbers)::Real;
    using Sequence = Forward<Stored, Real>;
    const int64_t* rows = read<int64_t>(symbols);
    const Sequence value{0,
                         read<int64_t>(offsets),
                         {read<Stored>(x), rows, x.size(0)},
                         {read<Stored>(mx), rows, x.size(0)},
                         read<Real>(keep),
                         write<Stored>(h),
                         write<Stored>(gates),
                         write<Stored>(mh),
                         write<Real>(c)};
    Launcher(x).over_units<1>(1, 1, Set<Sequence>{write<Sequence>(sequence), value});
  });
}

void step_forward(Tensor sequence, Tensor h, Tensor c, Tensor m, Tensor z, Tensor wh_t,
                  OptionalTensor wmh_t, int64_t n_steps) {
  with_numbers(h, [&](auto numbers) {
    using Stored = typename decltype(numbers)::Stored;
    using Real = typename decltype(numbers)::Real;
    auto* all = write<Forward<Stored, Real>>(sequence);
    const int64_t n = h.size(0), hidden = h.size(1);
    const bool multiplicative = wmh_t.has_value();
    const Launcher launcher(h);
    with_width(hidden, [&](auto units) {
      constexpr int width = decltype(units)::value;
      for (int64_t ahead = 0; ahead < n_steps; ++ahead) {
        if (multiplicative) call_product("aten::mm", h, *wmh_t, m);
        launcher.over_units<width>(
            n, hidden,
            MultiplyInput<Stored, Real, width>{all, ahead, hidden, multiplicative, read<Stored>(h),
                                               write<Stored>(m)});
        call_product("aten::mm", m, wh_t, z);
        launcher.over_units<width>(
            n, hidden,
            UpdateState<Stored, Real, width>{all, ahead, hidden, read<Stored>(z), write<Stored>(h),
                                             write<Real>(c)});
      }
    });
    launcher.over_units<1>(1, 1, Tick<Forward<Stored, Real>>{all, n_steps});
  });
}

// ---- Backward --------------------------------------------------------------------------------

// From the gradients of a step's state, given and carried, to those of its gates.
template <typename Stored, typename Real, int width>
struct DifferentiateState {
  const Backward<Stored, Real>* sequence;
  int64_t ahead, n_lanes, hidden;
  const Stored* dh_carried;
  Real* dc_carried;
  Stored* dz;

  SKDISCOVERY_INLINE void operator()(int64_t lane, int64_t unit) const {
    const int64_t step = sequence->step - ahead, at = lane * hidden + unit;
    const int64_t row = step * n_lanes + lane, place = row * hidden + unit;
    const Real keep = sequence->keep == nullptr ? Real(1) : sequence->keep[row];
    const auto gates = read_gates<width>(sequence->gates + row * 4 * hidden, hidden, unit);
    const auto c = read_pack<width>(sequence->c + place);
    const auto c_before =
        read_pack<width>(step > 0 ? sequence->c + place - n_lanes * hidden : sequence->c0 + at);
    const auto dh_given = read_pack<width>(sequence->dh + place);
    const auto dh_later = read_pack<width>(dh_carried + at);
    Pack<Real, width> dc_given{};
    if (sequence->dc != nullptr) dc_given = read_pack<width>(sequence->dc + place);
    const auto dc_later = read_pack<width>(dc_carried + at);
    GatePacks<Stored, width> gradients;
    Pack<Real, width> dc_before;
    for (int k = 0; k < width; ++k) {
      const auto unit_gates = gates.template gates_of<Real>(k);
      const Real tanh_c = tanh(c.of[k]);
      const Real dh = Real(dh_given.of[k]) + Real(dh_later.of[k]);
      const Real dc =
          cell_gradient<Real>(unit_gates, tanh_c, {dh, dc_given.of[k] + dc_later.of[k]});
      gradients.set(k, gate_gradients(unit_gates, tanh_c, keep * c_before.of[k], dh, dc));
      dc_before.of[k] = keep * dc * unit_gates.f;
    }
    write_pack(dc_before, dc_carried + at);
    write_gates(gradients, dz + lane * 4 * hidden, hidden, unit);
    write_gates(gradients, sequence->dz + row * 4 * hidden, hidden, unit);
  }
};

// From the gradient of the multiplicative state, in dm, to that of Wmh h; for an LSTM, of h.
template <typename Stored, typename Real, int width>
struct DifferentiateInput {
  const Backward<Stored, Real>* sequence;
  int64_t ahead, n_lanes, hidden;
  bool multiplicative;
  Stored* dm;
  Stored* dh_carried;

  SKDISCOVERY_INLINE void operator()(int64_t lane, int64_t unit) const {
    const int64_t row = (sequence->step - ahead) * n_lanes + lane, at = lane * hidden + unit;
    const Real keep = sequence->keep == nullptr ? Real(1) : sequence->keep[row];
    const auto gradient = read_pack<width>(dm + at);
    Pack<Stored, width> dh;  // for an mLSTM, of Wmh h
    if (multiplicative) {
      const int64_t place = row * hidden + unit;
      const auto mx = read_pack<width>(sequence->mx.of_row(row, hidden) + unit);
      const auto mh = read_pack<width>(sequence->mh + place);
      Pack<Stored, width> dmx;
      for (int k = 0; k < width; ++k) {
        dmx.of[k] = Real(gradient.of[k]) * Real(mh.of[k]);
        dh.of[k] = keep * Real(gradient.of[k]) * Real(mx.of[k]);
      }
      write_pack(dmx, sequence->dmx + place);
      write_pack(dh, sequence->dmh + place);
      write_pack(dh, dm + at);
    } else {
      for (int k = 0; k < width; ++k) dh.of[k] = keep * Real(gradient.of[k]);
      write_pack(dh, dh_carried + at);
    }
  }
};

void begin_backward(Tensor sequence, int64_t n_steps, OptionalTensor mx, OptionalTensor symbols,
                    OptionalTensor keep, Tensor c0, Tensor c, Tensor gates, OptionalTensor mh,
                    Tensor dh, OptionalTensor dc, Tensor dz, OptionalTensor dmx,
                    OptionalTensor dmh) {
  with_numbers(gates, [&](auto numbers) {
    using Stored = typename decltype(numbers)::Stored;
    using Real = typename decltype(numbers)::Real;
    using Sequence = Backward<Stored, Real>;
    const int64_t n_symbols = mx.has_value() ? mx->size(0) : 0;
    const Sequence value{n_steps - 1,         {read<Stored>(mx), read<int64_t>(symbols), n_symbols},
                         read<Real>(keep),    read<Real>(c),
                         read<Real>(c0),      read<Real>(dc),
                         read<Stored>(gates), read<Stored>(mh),
                         read<Stored>(dh),    write<Stored>(dz),
                         write<Stored>(dmx),  write<Stored>(dmh)};
    Launcher(gates).over_units<1>(1, 1, Set<Sequence>{write<Sequence>(sequence), value});
  });
}

void step_backward(Tensor sequence, Tensor dh, Tensor dc, Tensor dm, Tensor dz, Tensor wh,
                   OptionalTensor wmh, int64_t n_steps) {
  with_numbers(dh, [&](auto numbers) {
    using Stored = typename decltype(numbers)::Stored;
    using Real = typename decltype(numbers)::Real;
    auto* all = write<Backward<Stored, Real>>(sequence);
    const int64_t n = dh.size(0), hidden = dh.size(1);
    const bool multiplicative = wmh.has_value();
    const Launcher launcher(dh);
    with_width(hidden, [&](auto units) {
      constexpr int width = decltype(units)::value;
      for (int64_t ahead = 0; ahead < n_steps; ++ahead) {
        launcher.over_units<width>(
            n, hidden,
            DifferentiateState<Stored, Real, width>{all, ahead, n, hidden, read<Stored>(dh),
                                                    write<Real>(dc), write<Stored>(dz)});
        call_product("aten::mm", dz, wh, dm);
        launcher.over_units<width>(
            n, hidden,
            DifferentiateInput<Stored, Real, width>{all, ahead, n, hidden, multiplicative,
                                                    write<Stored>(dm), write<Stored>(dh)});
        if (multiplicative) call_product("aten::mm", dm, *wmh, dh);
      }
    });
    launcher.over_units<1>(1, 1, Tick<Backward<Stored, Real>>{all, -n_steps});
  });
}

}  // namespace

#ifdef __CUDACC__
#define SKDISCOVERY_DEVICE CUDA
#else
#define SKDISCOVERY_DEVICE CPU
#endif

STABLE_TORCH_LIBRARY_IMPL(skdiscovery, SKDISCOVERY_DEVICE, library) {
  library.impl("cuda_begin_forward", TORCH_BOX(&begin_forward));
  library.impl("cuda_step_forward", TORCH_BOX(&step_forward));
  library.impl("cuda_begin_backward", TORCH_BOX(&begin_backward));
  library.impl("cuda_step_backward", TORCH_BOX(&step_backward));
}

}  // namespace skdiscovery
