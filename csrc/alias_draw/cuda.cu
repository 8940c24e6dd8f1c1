// Draws from an alias table on the GPU: the ids of cpu.cpp, bit for bit.
#include <cuda_runtime.h>

#include "alias_draw/alias_draw.h"

namespace fastpop {
namespace {

constexpr int kThreads = 256;

// One thread owns two draws, which share a Philox block; grid-stride over groups x pairs.
// In registers: the counter, the key, four words. Read: one 8-byte table row a draw. Written: two
// ids, once. No atomics and no order between threads, hence bitwise repeatable.
__global__ void alias_draw_kernel(const AliasRow* __restrict__ table, uint32_t num_items, uint64_t seed,
                                  uint64_t step, uint32_t group, int64_t num_groups, int64_t num_draws,
                                  int64_t* __restrict__ ids) {
  const int64_t pairs = (num_draws + 1) / 2;
  const int64_t total = num_groups * pairs;
  for (int64_t at = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; at < total;
       at += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t g = at / pairs;
    const int64_t pair = at % pairs;
    const Words4 w = draw_words(seed, step, group + static_cast<uint32_t>(g), static_cast<uint32_t>(pair));
    int64_t* out = ids + g * num_draws + 2 * pair;
    out[0] = alias_pick(table, num_items, w.w0, w.w1);
    if (2 * pair + 1 < num_draws) out[1] = alias_pick(table, num_items, w.w2, w.w3);
  }
}

}  // namespace

const char* alias_draw_cuda(uintptr_t table, int64_t num_items, uint64_t seed, uint64_t step, uint32_t group,
                            int64_t num_groups, int64_t num_draws, uintptr_t ids, uintptr_t stream) {
  const int64_t total = num_groups * ((num_draws + 1) / 2);
  if (total == 0) return nullptr;
  const int64_t blocks = (total + kThreads - 1) / kThreads;
  const unsigned grid = static_cast<unsigned>(blocks < 65536 ? blocks : 65536);
  alias_draw_kernel<<<grid, kThreads, 0, reinterpret_cast<cudaStream_t>(stream)>>>(
      reinterpret_cast<const AliasRow*>(table), static_cast<uint32_t>(num_items), seed, step, group,
      num_groups, num_draws, reinterpret_cast<int64_t*>(ids));
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace fastpop
