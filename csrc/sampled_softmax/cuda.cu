// Sampled softmax on a GPU for rows that have their own negatives. The algorithm is in rows.h.
#include <cuda_runtime.h>

#include "sampled_softmax/rows.h"

namespace fastpop {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
// Blocks a multiprocessor, hence registers a thread: 16 warps at 128 forward, 12 at 168 backward. Each
// has 4 KB in flight, where 20 KB a multiprocessor cover 700 ns of latency at 3.3 TB/s.
constexpr int kForwardBlocks = 4, kBackwardBlocks = 3;

// A warp per row; four rows per block, in order, so that small groups meet in L1.
template <class Layout>
__global__ __launch_bounds__(kThreads, kForwardBlocks) void sampled_rows_forward_kernel(const SampledRows a) {
  const int64_t b = blockIdx.x * static_cast<int64_t>(kWarps) + threadIdx.x / 32;
  if (b < a.B) RowPass<Layout>::forward(a, b);
}

template <class Layout>
__global__ __launch_bounds__(kThreads,
                             kBackwardBlocks) void sampled_rows_backward_kernel(const SampledRows a) {
  const int64_t b = blockIdx.x * static_cast<int64_t>(kWarps) + threadIdx.x / 32;
  if (b < a.B) RowPass<Layout>::backward(a, b);
}

}  // namespace

const char* sampled_rows_cuda(const SampledRows& a, bool backward, uintptr_t stream) {
  if (a.B == 0) return nullptr;
  const int64_t blocks = (a.B + kWarps - 1) / kWarps;
  if (blocks > 0x7fffffff) return "more rows than a grid has blocks";
  const auto grid = static_cast<unsigned>(blocks);
  with_layout(a.item_VD.dtype, takes_vectors(a.item_VD, a.D), a.D, [&](auto layout) {
    using Layout = decltype(layout);
    const auto on = reinterpret_cast<cudaStream_t>(stream);
    if (backward) {
      sampled_rows_backward_kernel<Layout><<<grid, kThreads, 0, on>>>(a);
    } else {
      sampled_rows_forward_kernel<Layout><<<grid, kThreads, 0, on>>>(a);
    }
  });
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace fastpop
