// Runs a piece of work per row and so many units on the GPU, in the order of the caller's stream.
//
// Without nvcc the same pieces run in a plain loop on the CPU. Nobody uses that but the tests,
// which so cover on any machine what the GPU is to do, save the launch itself and the GPU's own
// exponential and division.

#pragma once

#include <cstdint>

#include "gates.h"

#ifdef __CUDACC__

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/shim_utils.h>

#include <stdexcept>
#include <string>

namespace skdiscovery {

constexpr int kThreads = 256;

// Rows go along the grid's first dimension, which alone may be longer than 65,535.
template <int width, typename Work>
__global__ void __launch_bounds__(kThreads)
    run_units(const Work work, int64_t n_rows, int64_t n_units) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const int64_t unit = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * width;
  if (row < n_rows && unit < n_units) work(row, unit);
}

// Makes the device of a tensor the current one, and launches into its current stream.
class Launcher {
 public:
  explicit Launcher(const torch::stable::Tensor& tensor)
      : guard_(tensor.get_device_index()), stream_(nullptr) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  // Calls work(row, unit) for all rows and each `width`th unit.
  template <int width, typename Work>
  void over_units(int64_t n_rows, int64_t n_units, const Work& work) const {
    if (n_rows == 0) return;  // a grid of no blocks is an error
    const int64_t n_pieces = (n_units + width - 1) / width;
    dim3 block(kThreads, 1);
    for (; block.x / 2 >= n_pieces; block.x /= 2) block.y *= 2;  // rows of few units share a block
    const dim3 grid(static_cast<unsigned>((n_rows + block.y - 1) / block.y),
                    static_cast<unsigned>((n_pieces + block.x - 1) / block.x));
    run_units<width><<<grid, block, 0, stream_>>>(work, n_rows, n_units);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) {
      throw std::runtime_error(std::string("A kernel of the mLSTM could not be launched: ") +
                               cudaGetErrorString(error));
    }
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

}  // namespace skdiscovery

#else

namespace skdiscovery {

class Launcher {
 public:
  template <typename Tensor>
  explicit Launcher(const Tensor&) {}

  template <int width, typename Work>
  void over_units(int64_t n_rows, int64_t n_units, const Work& work) const {
    for (int64_t row = 0; row < n_rows; ++row) {
      for (int64_t unit = 0; unit < n_units; unit += width) work(row, unit);
    }
  }
};

}  // namespace skdiscovery

#endif
