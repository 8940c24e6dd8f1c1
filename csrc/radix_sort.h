// Stable sort of ids below a bound, with the slot each came from.
#pragma once

#include <cstdint>

namespace fastpop {

struct SortItem {  // 16 bytes
  uint64_t key;
  uint32_t slot;
};

// Sorts `num` items; returns where they lie, in `items` or in `other`.
inline SortItem* radix_sort(SortItem* items, SortItem* other, int64_t num, int64_t bound) {
  constexpr int kBits = 11;
  constexpr uint64_t kMask = (1 << kBits) - 1;
  for (int shift = 0; shift < 63 && (bound - 1) >> shift > 0; shift += kBits) {
    int64_t start[kMask + 1] = {};
    for (int64_t n = 0; n < num; ++n) ++start[(items[n].key >> shift) & kMask];
    int64_t total = 0;
    for (int64_t& s : start) {
      const int64_t count = s;
      s = total;
      total += count;
    }
    for (int64_t n = 0; n < num; ++n) other[start[(items[n].key >> shift) & kMask]++] = items[n];
    SortItem* const swap = items;
    items = other;
    other = swap;
  }
  return items;
}

}  // namespace fastpop
