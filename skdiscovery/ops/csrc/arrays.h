// Tensors as plain arrays on the CPU, and loops over them that torch's threads share.

#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "gates.h"
#include "threads.h"

namespace skdiscovery {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// Fewer units than this are not worth waking a thread.
constexpr int64_t kUnitsPerThread = 8192;

// Calls work(row, first, last) for parts of rows that together are all units of all rows.
template <typename Work>
void over_units(int64_t n_rows, int64_t hidden, const Work& work) {
  parallel_for(0, n_rows * hidden, kUnitsPerThread, [&](int64_t at, int64_t stop) {
    while (at < stop) {
      const int64_t row = at / hidden, first = at % hidden;
      const int64_t last = std::min(hidden, first + stop - at);
      work(row, first, last);
      at += last - first;
    }
  });
}

inline Tensor as_type(const Tensor& tensor, ScalarType type) {
  return tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
}

// Gives tensors as contiguous arrays of T, and keeps those alive that had to be converted.
template <typename T>
class Arrays {
 public:
  const T* operator()(const Tensor& tensor) {
    Tensor ready = as_type(tensor, torch::headeronly::CppTypeToScalarType<T>::value);
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

// The input side of a recurrence; rows of several steps are numbered through.
template <typename Stored>
class Inputs {
 public:
  Inputs(const Tensor& x_, const OptionalTensor& mx_, const OptionalTensor& symbols_,
         int64_t hidden_)
      : hidden(hidden_), x(stored_(x_)), mx(stored_(mx_)), symbols(indices_(symbols_)) {
    if (symbols != nullptr) check_symbols(symbols_->numel(), x_.size(0));
  }

  const Stored* x_row(int64_t row) const { return x + line(row) * 4 * hidden; }
  const Stored* mx_row(int64_t row) const { return mx + line(row) * hidden; }

 private:
  Arrays<Stored> stored_;
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
  const Stored *const x, *const mx;
  const int64_t* const symbols;
};

}  // namespace skdiscovery
