#include "demo-model/trainer/matrix.hpp"

#ifdef AIV_DEMO_OPENBLAS
#include <cblas.h>
#endif

namespace aiv::demo {

#ifdef AIV_DEMO_OPENBLAS

void multiply(Index m, Index n, Index k, View a, View b, float keep, float* c, Index c_stride) {
  const auto as_blas = [](Index value) { return static_cast<blasint>(value); };
  cblas_sgemm(CblasRowMajor, a.transposed ? CblasTrans : CblasNoTrans,
              b.transposed ? CblasTrans : CblasNoTrans, as_blas(m), as_blas(n), as_blas(k), 1.0F, a.data,
              as_blas(a.stride), b.data, as_blas(b.stride), keep, c, as_blas(c_stride));
}

void use_one_thread_per_call() {
  openblas_set_num_threads(1);
}

#else

void multiply(Index m, Index n, Index k, View a, View b, float keep, float* c, Index c_stride) {
  for (Index i = 0; i < m; ++i) {
    float* row = c + i * c_stride;
    for (Index j = 0; j < n; ++j) row[j] = keep == 0.0F ? 0.0F : row[j] * keep;
    for (Index p = 0; p < k; ++p) {
      const float factor = a.transposed ? a.data[p * a.stride + i] : a.data[i * a.stride + p];
      if (b.transposed) {
        for (Index j = 0; j < n; ++j) row[j] += factor * b.data[j * b.stride + p];
      } else {
        for (Index j = 0; j < n; ++j) row[j] += factor * b.data[p * b.stride + j];
      }
    }
  }
}

void use_one_thread_per_call() {}

#endif

}  // namespace aiv::demo
