// Loops that torch's threads share.

#pragma once

#include <torch/csrc/stable/ops.h>

#if defined(__SSE__)
#include <immintrin.h>
#endif

namespace skdiscovery {

// Calls work(first, last) for ranges that together are begin to end, on several threads if there is
// more than grain. All of them treat denormal numbers as the caller does, a setting of each thread.
template <typename Work>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Work& work) {
#if defined(__SSE__)
  const unsigned int callers = _mm_getcsr();
  torch::stable::parallel_for(begin, end, grain, [&](int64_t first, int64_t last) {
    const unsigned int own = _mm_getcsr();
    _mm_setcsr(callers);
    work(first, last);
    _mm_setcsr(own);
  });
#else
  torch::stable::parallel_for(begin, end, grain, work);
#endif
}

}  // namespace skdiscovery
