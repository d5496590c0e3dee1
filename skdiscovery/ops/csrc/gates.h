// The mathematics of one unit of the mLSTM, forward and backward, for the CPU and for CUDA.
//
// Everything is branch-free arithmetic on one number, so that a compiler turns a loop over units
// into vector instructions. The names are those of skdiscovery/ops/reference.py.

#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define SKDISCOVERY_INLINE __host__ __device__ __forceinline__
#else
#define SKDISCOVERY_INLINE inline __attribute__((always_inline))
#endif

namespace skdiscovery {

// Stored numbers (weights, tables, hidden states, gates) may be narrower than the real ones that
// are computed with and that cell states are kept in.
template <typename Stored_, typename Real_>
struct Numbers {
  using Stored = Stored_;
  using Real = Real_;
};

// How a floating-point type is laid out, and what exp(x) - 1 needs in it.
template <typename T>
struct Format;

template <>
struct Format<float> {
  using Bits = uint32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr int exponent_bias = 127;
  static constexpr float limit = 87.0f;            // exp(limit) is finite, exp(-limit) is normal
  static constexpr float ln2_high = 0.693145752f;  // ends in zeros: n * ln2_high is exact
  static constexpr float ln2_low = 1.42860677e-6f;
  static constexpr int n_terms = 7;
};

template <>
struct Format<double> {
  using Bits = uint64_t;
  static constexpr int mantissa_bits = 52;
  static constexpr int exponent_bias = 1023;
  static constexpr double limit = 708.0;
  static constexpr double ln2_high = 6.93147180369123816490e-01;
  static constexpr double ln2_low = 1.90821492927058770002e-10;
  static constexpr int n_terms = 13;
};

SKDISCOVERY_INLINE constexpr double inverse_factorial(int k) {
  return k == 0 ? 1.0 : inverse_factorial(k - 1) / k;
}

// Taylor's 1/k! + r/(k+1)! + ... + r^(last-k)/last!
template <int k, int last, typename T>
SKDISCOVERY_INLINE T series(T r) {
  constexpr T coefficient = static_cast<T>(inverse_factorial(k));
  if constexpr (k == last) {
    return coefficient;
  } else {
    return coefficient + r * series<k + 1, last>(r);
  }
}

// exp(x) - 1 to a few units in the last place, near zero too; NaN stays NaN.
// With x = n ln2 + r, |r| <= ln2 / 2, it is 2^n (exp(r) - 1) + (2^n - 1).
template <typename T>
SKDISCOVERY_INLINE T exp_minus_one(T x) {
  using F = Format<T>;
  using Bits = typename F::Bits;
  constexpr T log2_e = static_cast<T>(1.44269504088896340736);
  constexpr T round = static_cast<T>(Bits{3} << (F::mantissa_bits - 1));
  x = x < -F::limit ? -F::limit : x;
  x = x > F::limit ? F::limit : x;
  const T shifted = x * log2_e + round;  // adding 1.5 * 2^mantissa_bits leaves n in the low bits
  const T n = shifted - round;
  const T r = (x - n * F::ln2_high) - n * F::ln2_low;
  Bits bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits + F::exponent_bias) << F::mantissa_bits;
  T power;  // 2^n
  std::memcpy(&power, &bits, sizeof(power));
  return power * (r * series<1, F::n_terms>(r)) + (power - 1);
}

template <typename T>
SKDISCOVERY_INLINE T sigmoid(T x) {
  return 1 / (2 + exp_minus_one(-x));
}

template <typename T>
SKDISCOVERY_INLINE T tanh(T x) {
  const T e = exp_minus_one(2 * x);
  return e / (2 + e);
}

#ifdef __CUDA_ARCH__
// A GPU has an exponential and a division of its own, whose relative error is some 1e-6 or less.
// Near zero, where tanh is x, that exponential minus one would not do.
template <>
SKDISCOVERY_INLINE float sigmoid(float x) {
  return __fdividef(1.0f, 1.0f + __expf(-x));
}

template <>
SKDISCOVERY_INLINE float tanh(float x) {
  const float e = exp_minus_one(2 * x);
  return __fdividef(e, 2.0f + e);
}
#endif

// The gates of a unit, or their gradients before activation.
template <typename T>
struct Gates {
  T i, f, o, u;
};

// A row of gates: four blocks of `hidden` units.
template <typename Real, typename Stored>
SKDISCOVERY_INLINE Gates<Real> load(const Stored* row, int64_t hidden, int64_t unit) {
  return {Real(row[unit]), Real(row[hidden + unit]), Real(row[2 * hidden + unit]),
          Real(row[3 * hidden + unit])};
}

template <typename Real, typename Stored>
SKDISCOVERY_INLINE void store(Gates<Real> gates, Stored* row, int64_t hidden, int64_t unit) {
  row[unit] = gates.i;
  row[hidden + unit] = gates.f;
  row[2 * hidden + unit] = gates.o;
  row[3 * hidden + unit] = gates.u;
}

// A unit's hidden and cell state, or their gradients.
template <typename T>
struct State {
  T h, c;
};

template <typename T>
SKDISCOVERY_INLINE Gates<T> activate(Gates<T> z) {
  return {sigmoid(z.i), sigmoid(z.f), sigmoid(z.o), tanh(z.u)};
}

template <typename T>
SKDISCOVERY_INLINE State<T> advance(Gates<T> gates, T c_before) {
  const T c = gates.f * c_before + gates.i * gates.u;
  return {gates.o * tanh(c), c};
}

// From the gradients `d` of a unit's new state: the total gradient of its cell state...
template <typename T>
SKDISCOVERY_INLINE T cell_gradient(Gates<T> gates, T tanh_c, State<T> d) {
  return d.c + d.h * gates.o * (1 - tanh_c * tanh_c);
}

// ...and with it those of the gates before activation. That of c_before is dc * gates.f.
template <typename T>
SKDISCOVERY_INLINE Gates<T> gate_gradients(Gates<T> gates, T tanh_c, T c_before, T dh, T dc) {
  return {dc * gates.u * gates.i * (1 - gates.i), dc * c_before * gates.f * (1 - gates.f),
          dh * tanh_c * gates.o * (1 - gates.o), dc * gates.i * (1 - gates.u * gates.u)};
}

}  // namespace skdiscovery
