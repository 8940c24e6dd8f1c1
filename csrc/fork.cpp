#include "fork.h"

#include <atomic>

#ifndef _WIN32
#include <dirent.h>
#include <pthread.h>
#endif

namespace fastpop {
namespace {

std::atomic<bool> had_threads{false};
std::atomic<bool> lost_threads{false};

#ifndef _WIN32
// Threads of this process, of whichever library; true where the system does not say.
bool has_threads() {
  DIR* tasks = opendir("/proc/self/task");
  if (tasks == nullptr) return true;
  int entries = 0;
  while (readdir(tasks) != nullptr) ++entries;
  closedir(tasks);
  return entries > 3;  // "." and ".." and the one that asks
}

void before() { had_threads = has_threads(); }

void in_child() {
  if (had_threads) lost_threads = true;
}
#endif

}  // namespace

void watch_forks() {
#ifndef _WIN32
  pthread_atfork(before, nullptr, in_child);
#endif
}

bool has_lost_threads() { return lost_threads; }

}  // namespace fastpop
