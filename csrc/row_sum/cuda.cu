// Sums of rows by id on a GPU. The algorithm is in row_sum.h.
#include <cuda_runtime.h>

#include "row_sum/row_sum.h"

namespace fastpop {
namespace {

constexpr int kThreads = 128;
// 16 warps a multiprocessor, at 128 registers a thread; each has 4 KB in flight.
constexpr int kBlocks = 4;

// The team of this thread: teams of T lanes, in order.
template <int T>
__device__ int64_t team_index() {
  return (blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x) / T;
}

template <class Layout>
__global__ __launch_bounds__(kThreads, kBlocks) void row_sum_chunks_kernel(const RowSum a) {
  const int64_t c = team_index<Layout::kLanes>();
  if (c * a.chunk < a.num_entries) RowSumPass<Layout>::sum_chunk(a, c);
}

template <class Layout>
__global__ __launch_bounds__(kThreads, kBlocks) void row_sum_finish_kernel(const RowSum a) {
  RowSumPass<Layout>::finish(a, team_index<Layout::kLanes>());
}

}  // namespace

const char* row_sum_cuda(const RowSum& a, uintptr_t stream) {
  if (a.num_entries == 0) return nullptr;
  const char* said = nullptr;
  with_layout(a.rows.dtype, takes_vectors(a.rows, a.D), a.D, [&](auto layout) {
    using Layout = decltype(layout);
    const auto on = reinterpret_cast<cudaStream_t>(stream);
    const auto grid_of = [](int64_t teams) { return (teams * Layout::kLanes + kThreads - 1) / kThreads; };
    const int64_t chunks = num_chunks(a), teams = chunks > a.num_rows ? chunks : a.num_rows;
    if (grid_of(teams) > 0x7fffffff) {
      said = "more rows than a grid has blocks";
      return;
    }
    row_sum_chunks_kernel<Layout><<<static_cast<unsigned>(grid_of(chunks)), kThreads, 0, on>>>(a);
    row_sum_finish_kernel<Layout><<<static_cast<unsigned>(grid_of(teams)), kThreads, 0, on>>>(a);
  });
  if (said != nullptr) return said;
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace fastpop
