// Matrix products by torch's own operators, on any device.

#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/shim_utils.h>

#include <array>

namespace skdiscovery {

using torch::stable::Tensor;

// c = a . b, by torch's operator of that name.
inline void call_product(const char* name, const Tensor& a, const Tensor& b, const Tensor& c) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(a), torch::stable::detail::from(b),
                                    torch::stable::detail::from(c)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, "out", stack.data(), TORCH_ABI_VERSION));
  (void)torch::stable::detail::to<Tensor>(stack[0]);  // c again: releases it
}

}  // namespace skdiscovery
