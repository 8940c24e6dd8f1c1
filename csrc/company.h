// Whether the other threads of a call come in time, as its last calls say.
//
// Beside busy processes a thread may be kept from its core for a time slice, some 3 ms, and a call ends when
// all of its threads have. Where the caller, at the speed of what it did itself, would have been done sooner
// alone, the next few calls are made alone, then one asks again, and after each in a row that came so late,
// twice as many are alone. For results that do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace fastpop {

// Since the module was loaded: calls that were made alone for this.
inline std::atomic<int64_t> num_alone{0};

class Company {
 public:
  static constexpr int kFewAlone = 4, kMostAlone = 64;
  static constexpr int64_t kLate = 300'000;  // ns; less is the noise of waking

  // Whether a call on n things is made with others.
  bool wanted(int64_t n) {
    if (n > 2 * late_at_.load(std::memory_order_relaxed)) return true;  // of these nothing is known
    int left = alone_.load(std::memory_order_relaxed);
    while (left > 0 && !alone_.compare_exchange_weak(left, left - 1, std::memory_order_relaxed)) {
    }
    if (left > 0) num_alone.fetch_add(1, std::memory_order_relaxed);
    return left <= 0;
  }

  // A call on n things with others: how many of them its caller did, how long it worked on these and how long
  // it waited, in nanoseconds.
  void met(int64_t n, int64_t mine, int64_t worked, int64_t waited) {
    const double alone_ns = static_cast<double>(worked) * n / std::max<int64_t>(mine, 1);
    if (waited < kLate || mine == 0 || static_cast<double>(worked + waited) < alone_ns) {
      row_.store(0, std::memory_order_relaxed);
      return;
    }
    const int alone = std::clamp(2 * row_.load(std::memory_order_relaxed), kFewAlone, kMostAlone);
    row_.store(alone, std::memory_order_relaxed);
    late_at_.store(n, std::memory_order_relaxed);
    alone_.store(alone, std::memory_order_relaxed);
  }

 private:
  std::atomic<int> alone_{0}, row_{0};  // calls to be alone; as many as the last late one led to
  std::atomic<int64_t> late_at_{0};     // how many things a late call had
};

}  // namespace fastpop
