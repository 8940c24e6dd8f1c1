// Threads that work together: the one parallel region of the kernels.
#pragma once

#include <omp.h>

#ifdef FASTPOP_PLAIN_THREADS
#include <thread>
#include <vector>
#endif

namespace fastpop {

// work(me, team) on as many threads as there are, at most `threads`; returns when all have. Exceptions
// may not leave it.
template <class Work>
void in_team(int threads, const Work& work) {
  if (threads <= 1) return work(0, 1);
#ifdef FASTPOP_PLAIN_THREADS
  // ThreadSanitizer does not see how GNU OpenMP's threads wait for each other, and would call every
  // region a race. It sees these.
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back([&work, i, threads] { work(i, threads); });
  work(0, threads);
  for (std::thread& other : others) other.join();
#else
#pragma omp parallel num_threads(threads)
  work(omp_get_thread_num(), omp_get_num_threads());
#endif
}

}  // namespace fastpop
