// Memory of one call: aligned to cache lines, not initialised, counted.
//
// Under a sanitizer (FASTPOP_SANITIZE, setup.py) it starts as NaN, so that what is read before it is
// written shows, and the address sanitizer knows where it ends.
#pragma once

#include <cstdint>
#include <new>
#include <vector>

#ifdef FASTPOP_SANITIZE
#include <cstring>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif
#endif

namespace fastpop {

class Workspace {
 public:
  Workspace() = default;
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() {
    for (void* block : blocks_) ::operator delete(block, kAlignment);
  }

  template <typename T>
  T* make(int64_t count) {
    const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 127) / 64 * 64;
    void* block = ::operator new(bytes, kAlignment);  // not std::aligned_alloc, which Windows lacks
    blocks_.push_back(block);
#ifdef FASTPOP_SANITIZE
    std::memset(block, 0xff, bytes);
#ifdef __SANITIZE_ADDRESS__
    const size_t used = static_cast<size_t>(count) * sizeof(T);
    ASAN_POISON_MEMORY_REGION(static_cast<char*>(block) + used, bytes - used);
#endif
#endif
    return static_cast<T*>(block);
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  std::vector<void*> blocks_;
};

}  // namespace fastpop
