// Row-wise optimiser steps on a GPU. The algorithm is in step.h.
#include <cuda_runtime.h>

#include "row_update/step.h"

namespace fastpop {
namespace {

constexpr int kThreads = 128;
// 12 warps a multiprocessor at 168 registers a thread, each with 4 to 12 KB in flight.
constexpr int kBlocks = 3;

template <class Layout>
__global__ __launch_bounds__(kThreads, kBlocks) void row_update_kernel(const TableStep a) {
  const int64_t i = (blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x) / Layout::kLanes;
  if (i < a.n) TableStepPass<Layout>::update(a, i);
}

}  // namespace

const char* row_update_cuda(const TableStep& a, uintptr_t stream) {
  if (a.n == 0) return nullptr;
  const char* said = nullptr;
  with_layout(a.table_VD.dtype, takes_vectors(a), a.D, [&](auto layout) {
    using Layout = decltype(layout);
    const int64_t blocks = (a.n * Layout::kLanes + kThreads - 1) / kThreads;
    if (blocks > 0x7fffffff) {
      said = "more rows than a grid has blocks";
      return;
    }
    row_update_kernel<Layout>
        <<<static_cast<unsigned>(blocks), kThreads, 0, reinterpret_cast<cudaStream_t>(stream)>>>(a);
  });
  if (said != nullptr) return said;
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace fastpop
