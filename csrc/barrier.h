// A barrier for kernels that meet hundreds of times a call.
//
// OpenMP's own spins for about a millisecond before it lets go of the core. Where other programs share
// the cores, the thread that all wait for is then kept out by those that wait. This one spins for a few
// microseconds, then yields.
#pragma once

#include <atomic>
#include <thread>

namespace fastpop {

class Barrier {
 public:
  void wait(int team) {
    const int round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == team) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
      if (spins < 2000) {
        pause();
      } else {
        std::this_thread::yield();
      }
    }
  }

 private:
  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> round_{0};
};

}  // namespace fastpop
