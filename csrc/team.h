// Threads that work together: the one parallel region of the kernels, in which they meet once, at its end.
//
// Nobody owns a share of the work. Threads take pieces as they come, so one that another program keeps from
// its core holds up the piece that it has and no more. What a piece writes does not depend on who took it.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <exception>

#include "company.h"
#include "signal.h"

// Under the thread sanitizer, and where a compiler has no OpenMP (setup.py).
#ifdef FASTPOP_PLAIN_THREADS
#include <thread>
#include <vector>
#else
#include <omp.h>
#endif

namespace fastpop {

// Since the module was loaded: parallel regions of more than one thread, and gates in them (steps.h), where
// all work so far has to be done before more begins. At each, threads may wait for one that has no core.
inline std::atomic<int64_t> num_meetings{0};

// How many threads a kernel may have that is not told. OMP_NUM_THREADS is what torch heeds without OpenMP,
// too.
inline int most_threads() {
#ifdef FASTPOP_PLAIN_THREADS
  const char* asked = std::getenv("OMP_NUM_THREADS");
  if (const int number = asked == nullptr ? 0 : std::atoi(asked); number > 0) return number;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
#else
  return omp_get_max_threads();
#endif
}

// Whose they are.
inline const char* threads_of() {
#ifdef FASTPOP_PLAIN_THREADS
  return "the system";
#else
  return "OpenMP";
#endif
}

// work(me) on as many threads as there are, at most `threads`, each with a number of its own below that;
// returns when all have. What the first to fail throws is thrown again here.
template <class Work>
void in_team(int threads, const Work& work) {
  if (threads <= 1) return work(0);
  num_meetings.fetch_add(1, std::memory_order_relaxed);
  std::exception_ptr error;
  int left = 0;
  Signal leaving;
  const auto take_part = [&](int me, int team) {
    std::exception_ptr mine;
    try {
      work(me);
    } catch (...) {
      mine = std::current_exception();
    }
    leaving.change([&] {
      if (error == nullptr) error = mine;
      ++left;
    });
    // OpenMP's own end spins for milliseconds, on a core that a late thread could have.
    if (me == 0) leaving.wait([&] { return left == team; });
  };
#ifdef FASTPOP_PLAIN_THREADS
  // ThreadSanitizer does not see how GNU OpenMP's threads wait for each other, and would call every
  // region a race. It sees these.
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back([&take_part, i, threads] { take_part(i, threads); });
  take_part(0, threads);
  for (std::thread& other : others) other.join();
#else
#pragma omp parallel num_threads(threads)
  take_part(omp_get_thread_num(), omp_get_num_threads());
#endif
  if (error != nullptr) std::rethrow_exception(error);
}

// work(piece, me) for pieces 0, ..., num - 1, which do not need each other.
template <class Work>
void in_pieces(int threads, int64_t num, const Work& work) {
  std::atomic<int64_t> next{0};
  in_team(static_cast<int>(std::min<int64_t>(threads, num)), [&](int me) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < num;) work(i, me);
  });
}

// work(first, last, me) for parts of n things, in whole units: large ones first, then ever smaller ones of
// at least `least`, so that all threads end together. For results that do not depend on the cut, nor on how
// many threads there are: a call whose others come late is made alone (company.h).
template <class Work>
void in_parts(int threads, int64_t n, int64_t unit, int64_t least, int64_t most, const Work& work) {
  static Company company;  // one a place that calls this, since each has a Work of its own
  if (threads <= 1 || n <= least || !company.wanted(n)) {
    for (int64_t first = 0; first < n; first += most) work(first, std::min(first + most, n), 0);
    return;
  }
  using Clock = std::chrono::steady_clock;
  const auto ns = [](Clock::duration time) {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
  };
  std::atomic<int64_t> next{0};
  Clock::duration worked{0};
  int64_t mine = 0;  // of the caller
  const auto start = Clock::now();
  in_team(static_cast<int>(std::min<int64_t>(threads, (n + least - 1) / least)), [&](int me) {
    const auto begin = Clock::now();
    int64_t first = next.load(std::memory_order_relaxed);
    while (first < n) {
      const int64_t fair = std::clamp((n - first) / (3 * threads), least, most);
      const int64_t last = std::min((first + fair + unit - 1) / unit * unit, n);
      if (!next.compare_exchange_weak(first, last, std::memory_order_relaxed)) continue;
      work(first, last, me);
      if (me == 0) mine += last - first;
      first = next.load(std::memory_order_relaxed);
    }
    if (me == 0) worked = Clock::now() - begin;
  });
  company.met(n, mine, ns(worked), ns(Clock::now() - start - worked));
}

}  // namespace fastpop
