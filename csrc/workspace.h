// Memory of one call: aligned to cache lines, not initialised, counted.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

namespace fastpop {

class Workspace {
 public:
  Workspace() = default;
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() {
    for (void* block : blocks_) std::free(block);
  }

  template <typename T>
  T* make(int64_t count) {
    const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 127) / 64 * 64;
    void* block = std::aligned_alloc(64, bytes);
    if (block == nullptr) throw std::bad_alloc();
    blocks_.push_back(block);
    return static_cast<T*>(block);
  }

 private:
  std::vector<void*> blocks_;
};

}  // namespace fastpop
