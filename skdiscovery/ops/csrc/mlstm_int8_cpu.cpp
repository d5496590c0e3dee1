// The CPU kernel of the operator that skdiscovery/ops/int8.py defines.
//
// Both sides of a product are integers from -127 to 127 with a scale per row: the weights' are
// given, and rounded further where a processor's sums need room (int8_products.h); the states' are
// found anew at each step. Sums are exact in int32, and nearly so in float32, which stands in
// without AVX2; gates and cell state are float32.

#include <torch/csrc/stable/library.h>

#include <cmath>
#include <cstring>
#include <tuple>

#include "arrays.h"
#include "gates.h"
#include "int8_products.h"
#include "threads.h"

namespace skdiscovery {
namespace {

// Calls work(row) for all rows.
template <typename Work>
void over_rows(int64_t n_rows, int64_t hidden, const Work& work) {
  const int64_t rows_per_thread = std::max<int64_t>(1, kUnitsPerThread / hidden);
  parallel_for(0, n_rows, rows_per_thread, [&](int64_t row, int64_t stop) {
    for (; row < stop; ++row) work(row);
  });
}

// The largest absolute value. As bits, since a compiler may reorder only integers' maxima; a
// NaN has larger bits than any number, so it is found too.
float largest(const float* row, int64_t n) {
  uint32_t most = 0;
  for (int64_t k = 0; k < n; ++k) {
    uint32_t bits;
    std::memcpy(&bits, row + k, sizeof(bits));
    most = std::max(most, bits & 0x7fffffffu);
  }
  float value;
  std::memcpy(&value, &most, sizeof(value));
  return value;
}

// Writes a row as integers; returns what one of them is worth.
float quantise(const float* row, int64_t n, RowValue* quantised) {
  const float most = largest(row, n);
  const float per_value = most > 0 ? 127 / most : 0;
#pragma GCC ivdep
  for (int64_t k = 0; k < n; ++k) {
    quantised[k] =
        static_cast<RowValue>(static_cast<int32_t>(std::nearbyint(row[k] * per_value)) + kShift);
  }
  return most / 127;
}

// What a step works in: room for n rows.
struct Scratch {
  Scratch(const Tensor& like, int64_t n, int64_t hidden)
      : state_(new_array<RowValue>(like, {n * hidden + kRoomBehind})),
        scales_(new_array<float>(like, {n})),
        sums_(new_array<Sum>(like, {n, 4 * hidden})),
        m_(new_array<float>(like, {n, hidden})),
        state(data<RowValue>(state_)),
        scales(data<float>(scales_)),
        sums(data<Sum>(sums_)),
        m(data<float>(m_)) {}

 private:
  Tensor state_, scales_, sums_, m_;

 public:
  RowValue* const state;
  float* const scales;
  Sum* const sums;
  float* const m;
};

// Advances the n rows from first_row on by one step.
void step(const Inputs<float>& inputs, const Int8Matrix& wh, const std::optional<Int8Matrix>& wmh,
          int64_t first_row, int64_t n, const float* h_before, const float* c_before,
          const Scratch& scratch, float* h, float* c) {
  const int64_t hidden = inputs.hidden;
  over_rows(n, hidden, [&](int64_t row) {
    const int64_t at = row * hidden;
    scratch.scales[row] = quantise(h_before + at, hidden, scratch.state + at);
  });
  if (wmh.has_value()) {
    wmh->multiply(scratch.state, n, scratch.sums);
    over_rows(n, hidden, [&](int64_t row) {
      const int64_t at = row * hidden;
      const float scale = scratch.scales[row];
      const float* mx_row = inputs.mx_row(first_row + row);
      const Sum* sums_row = scratch.sums + at;
      float* m_row = scratch.m + at;
#pragma GCC ivdep
      for (int64_t k = 0; k < hidden; ++k) {
        m_row[k] = scale * wmh->scales()[k] * sums_row[k] * mx_row[k];
      }
      scratch.scales[row] = quantise(m_row, hidden, scratch.state + at);
    });
  }
  wh.multiply(scratch.state, n, scratch.sums);
  over_units(n, hidden, [&](int64_t row, int64_t first, int64_t last) {
    const int64_t at = row * hidden;
    const float scale = scratch.scales[row];
    const float *x_row = inputs.x_row(first_row + row), *c_before_row = c_before + at;
    const Sum* sums_row = scratch.sums + 4 * at;
    float *h_row = h + at, *c_row = c + at;
#pragma GCC ivdep
    for (int64_t k = first; k < last; ++k) {
      const Gates<float> sums = load<float>(sums_row, hidden, k);
      const Gates<float> scales = load<float>(wh.scales(), hidden, k);
      const Gates<float> input = load<float>(x_row, hidden, k);
      const Gates<float> activated = activate<float>(
          {scale * scales.i * sums.i + input.i, scale * scales.f * sums.f + input.f,
           scale * scales.o * sums.o + input.o, scale * scales.u * sums.u + input.u});
      const State<float> state = advance(activated, c_before_row[k]);
      h_row[k] = state.h;
      c_row[k] = state.c;
    }
  });
}

std::tuple<Tensor, Tensor> mlstm_packed_int8(Tensor x, OptionalTensor mx, OptionalTensor symbols,
                                             std::vector<int64_t> batch_sizes, Tensor wh,
                                             Tensor wh_scales, OptionalTensor wmh,
                                             OptionalTensor wmh_scales, Tensor h0, Tensor c0) {
  const int64_t n_rows = (symbols.has_value() ? *symbols : x).size(0), hidden = wh.size(1);
  const Inputs<float> inputs(x, mx, symbols, hidden);
  Arrays<float> real;
  const Int8Matrix wh_matrix(wh, wh_scales);
  std::optional<Int8Matrix> wmh_matrix;
  if (wmh.has_value()) wmh_matrix.emplace(*wmh, *wmh_scales);
  const Tensor h = new_array<float>(h0, {n_rows, hidden});
  const Tensor c = new_array<float>(h0, {n_rows, hidden});
  const Scratch scratch(h0, h0.size(0), hidden);

  const float *h_before = real(h0), *c_before = real(c0);
  int64_t row = 0;
  for (const int64_t n : batch_sizes) {
    float *h_now = data<float>(h) + row * hidden, *c_now = data<float>(c) + row * hidden;
    step(inputs, wh_matrix, wmh_matrix, row, n, h_before, c_before, scratch, h_now, c_now);
    h_before = h_now;
    c_before = c_now;
    row += n;
  }
  return std::make_tuple(h, c);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skdiscovery, CPU, library) {
  library.impl("mlstm_packed_int8", TORCH_BOX(&mlstm_packed_int8));
}

}  // namespace skdiscovery
