// Lanes of a warp that act together, as code that a GPU runs and a CPU can.
//
// On a device Lanes<L> is what one thread sees of L neighbours of its warp, and PerLane<X, L> is one X
// in its registers. On the host PerLane holds L of them and each() is a loop over them, so that what
// the kernels compute is run, and tested, without a GPU: sums take the same order on both.
#pragma once

#include <cstdint>
#include <cstring>

#include "hd.h"

namespace fastpop {

template <class X, int L>
struct PerLane {
#ifdef __CUDA_ARCH__
  X x;
  FASTPOP_HD X& operator[](int) { return x; }
  FASTPOP_HD const X& operator[](int) const { return x; }
#else
  X x[L];
  X& operator[](int lane) { return x[lane]; }
  const X& operator[](int lane) const { return x[lane]; }
#endif
};

template <int L>
struct Lanes {
  static_assert(L == 8 || L == 32, "teams are 8 or 32 lanes");

  // f(lane) for every lane; on a device, for this thread's.
  template <class F>
  FASTPOP_HD void each(F f) const {
#ifdef __CUDA_ARCH__
    f(static_cast<int>(threadIdx.x % L));
#else
    for (int lane = 0; lane < L; ++lane) f(lane);
#endif
  }

  // y of lane: x of lane source(lane). All L lanes take part.
  template <class X, class F>
  FASTPOP_HD PerLane<X, L> from(const PerLane<X, L>& x, F source) const {
    PerLane<X, L> y;
#ifdef __CUDA_ARCH__
    y.x = shuffle(x.x, source(static_cast<int>(threadIdx.x % L)));
#else
    for (int lane = 0; lane < L; ++lane) y.x[lane] = x.x[source(lane)];
#endif
    return y;
  }

  // Combines lanes that differ in the bits LOW..HIGH/2: with LOW = 1 each HIGH neighbours, with LOW > 1
  // the same place in each team of LOW. A butterfly: every lane ends up with the same bits.
  template <int LOW, int HIGH, class X, class F>
  FASTPOP_HD void reduce(PerLane<X, L>& x, F combine) const {
    FASTPOP_UNROLL
    for (int offset = HIGH / 2; offset >= LOW; offset /= 2) {
      const PerLane<X, L> other = from(x, [offset](int lane) { return lane ^ offset; });
      each([&](int lane) { combine(x[lane], other[lane]); });
    }
  }

  // x summed over each T neighbours.
  template <int T, class X>
  FASTPOP_HD void sum(PerLane<X, L>& x) const {
    reduce<1, T>(x, [](X& mine, const X& other) { mine += other; });
  }

#ifdef __CUDA_ARCH__
 private:
  // Any X of whole 32-bit words. The mask names this team only: others may be elsewhere in the code.
  template <class X>
  static __device__ __forceinline__ X shuffle(const X& x, int source) {
    constexpr int words = sizeof(X) / 4;
    static_assert(sizeof(X) % 4 == 0, "whole words");
    const unsigned base = threadIdx.x % 32 / L * L;
    const unsigned mask = L == 32 ? 0xffffffffu : ((1u << (L % 32)) - 1) << base;
    unsigned word[words];
    memcpy(word, &x, sizeof(X));
    FASTPOP_UNROLL
    for (int i = 0; i < words; ++i) word[i] = __shfl_sync(mask, word[i], source, L);
    X y;
    memcpy(&y, word, sizeof(X));
    return y;
  }
#endif
};

}  // namespace fastpop
