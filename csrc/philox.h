// Philox4x32-10 (Salmon et al. 2011), the only source of random words; shared by C++ and CUDA.
#pragma once
#include <cstdint>

#include "hd.h"

namespace fastpop {

struct Words4 {
  uint32_t w0, w1, w2, w3;
};

// High 32 bits of a product: one instruction on a GPU, one widening multiply elsewhere.
FASTPOP_HD uint32_t mulhi32(uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
  return __umulhi(a, b);
#else
  return static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32);
#endif
}

FASTPOP_HD Words4 philox4x32_10(Words4 counter, uint32_t key0, uint32_t key1) {
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = mulhi32(0xD2511F53u, counter.w0);
    const uint32_t low0 = 0xD2511F53u * counter.w0;
    const uint32_t high1 = mulhi32(0xCD9E8D57u, counter.w2);
    const uint32_t low1 = 0xCD9E8D57u * counter.w2;
    counter = Words4{high1 ^ counter.w1 ^ key0, low1, high0 ^ counter.w3 ^ key1, low0};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

}  // namespace fastpop
