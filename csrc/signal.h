// Something that threads wait for: 100 microseconds awake, then asleep.
//
// Asleep, not yielding: a core without work takes a thread that waits for another core, which is then the
// one that is waited for; and who slept is let in before who spun.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace fastpop {

class Signal {
 public:
  // change(), which alone may change what wait() reads.
  template <class Change>
  void change(const Change& change) {
    std::lock_guard<std::mutex> lock(mutex_);
    change();
    round_.fetch_add(1, std::memory_order_release);
    if (sleeping_ > 0) changed_.notify_all();
  }

  // Returns once ready() is true. Both run under the lock.
  template <class Ready>
  void wait(const Ready& ready) {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!ready()) {
      const uint32_t round = round_.load(std::memory_order_relaxed);
      lock.unlock();
      const bool is_new = spin(round);
      lock.lock();
      if (is_new) continue;
      ++sleeping_;
      changed_.wait(lock, [&] { return round_.load(std::memory_order_relaxed) != round; });
      --sleeping_;
    }
  }

 private:
  // Whether something changed meanwhile.
  bool spin(uint32_t round) const {
    const auto start = std::chrono::steady_clock::now();
    do {
      for (int i = 0; i < 16; ++i) {
        if (round_.load(std::memory_order_acquire) != round) return true;
        pause();
      }
    } while (std::chrono::steady_clock::now() - start < std::chrono::microseconds(100));
    return false;
  }

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  int sleeping_ = 0;
  alignas(64) std::atomic<uint32_t> round_{0};
};

}  // namespace fastpop
