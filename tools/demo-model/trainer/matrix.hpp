// The one matrix product the trainer needs: OpenBLAS where CMake found it, plain loops otherwise.
#pragma once
#include <cstddef>

namespace aiv::demo {

using Index = std::ptrdiff_t;

// A row-major matrix inside someone else's memory; `stride` is the distance of two rows in values.
struct View {
  const float* data = nullptr;
  Index stride = 0;
  bool transposed = false;
  [[nodiscard]] View t() const { return {data, stride, !transposed}; }
};

// c[m, n] = a[m, k] * b[k, n] + keep * c, where `a` and `b` are taken as they read after their transposition.
void multiply(Index m, Index n, Index k, View a, View b, float keep, float* c, Index c_stride);

// Keeps OpenBLAS to the calling thread: the trainer parts its batch itself.
void use_one_thread_per_call();

}  // namespace aiv::demo
