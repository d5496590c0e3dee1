// Consecutive numbers that are read and written at once.
//
// A GPU's thread that moves a few at a time waits once where it would else wait for each, and there
// are fewer threads to start.

#pragma once

#include <cstdint>

#include "gates.h"

namespace skdiscovery {

constexpr int kAtOnce = 16;  // bytes, the most that a GPU's thread reads at once

template <typename T, int n>
struct alignas(sizeof(T) * n < kAtOnce ? sizeof(T) * n : kAtOnce) Pack {
  T of[n];
};

template <int n, typename T>
SKDISCOVERY_INLINE Pack<T, n> read_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, n>*>(from);
}

template <int n, typename T>
SKDISCOVERY_INLINE void write_pack(const Pack<T, n>& pack, T* to) {
  *reinterpret_cast<Pack<T, n>*>(to) = pack;
}

// The gates of consecutive units, or their gradients before activation.
template <typename T, int n>
struct GatePacks {
  Pack<T, n> i, f, o, u;

  template <typename Real>
  SKDISCOVERY_INLINE Gates<Real> gates_of(int unit) const {
    return {Real(i.of[unit]), Real(f.of[unit]), Real(o.of[unit]), Real(u.of[unit])};
  }

  template <typename Real>
  SKDISCOVERY_INLINE void set(int unit, const Gates<Real>& gates) {
    i.of[unit] = gates.i;
    f.of[unit] = gates.f;
    o.of[unit] = gates.o;
    u.of[unit] = gates.u;
  }
};

// From a row of gates, four blocks of `hidden` units: those of `n` units.
template <int n, typename T>
SKDISCOVERY_INLINE GatePacks<T, n> read_gates(const T* row, int64_t hidden, int64_t unit) {
  return {read_pack<n>(row + unit), read_pack<n>(row + hidden + unit),
          read_pack<n>(row + 2 * hidden + unit), read_pack<n>(row + 3 * hidden + unit)};
}

template <int n, typename T>
SKDISCOVERY_INLINE void write_gates(const GatePacks<T, n>& gates, T* row, int64_t hidden,
                                    int64_t unit) {
  write_pack(gates.i, row + unit);
  write_pack(gates.f, row + hidden + unit);
  write_pack(gates.o, row + 2 * hidden + unit);
  write_pack(gates.u, row + 3 * hidden + unit);
}

}  // namespace skdiscovery
