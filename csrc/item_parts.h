// How a catalogue is cut for sums over its items: into parts that are summed each on its own and merged in
// order, and each part into chunks that follow each other.
//
// The number of items alone decides, so sums have the same bits on any number of threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ranges.h"
#include "steps.h"
#include "tile.h"

namespace fastpop {

class ItemParts {
 public:
  // Whole `unit`s of items in a part.
  ItemParts(int64_t num_items, int64_t unit) : num_items_(num_items), unit_(unit) {
    // Of eight chunks; of fewer where there would be fewer than eight parts, down to half a chunk; of more
    // where there would be more parts than a step that follows another may have.
    const int64_t small = std::min<int64_t>(8, (2 * num_items + kChunk - 1) / kChunk);
    const int64_t large = std::min<int64_t>(Steps::kMostFollowing, num_items / (8 * kChunk));
    num_ = static_cast<int>(std::max<int64_t>({small, large, 1}));
    for (int p = 0; p < num_; ++p) {
      const Range all = part(num_items_, unit_, p, num_);
      num_chunks_ = std::max(num_chunks_, (all.last - all.first + kChunk - 1) / kChunk);
    }
  }

  int num() const { return num_; }
  int64_t num_chunks() const { return num_chunks_; }  // of the longest part
  Range items(int p) const { return part(num_items_, unit_, p, num_); }
  // Chunk j of part p; empty where the part is shorter.
  Range chunk(int p, int64_t j) const {
    const Range all = items(p);
    return {std::min(all.first + j * kChunk, all.last), std::min(all.first + (j + 1) * kChunk, all.last)};
  }

  // A step for each chunk, a piece for each part, once all steps so far are done; `what` counts from
  // `first`. Returns the last.
  int add_to(Steps& steps, int kind, int64_t first) const {
    int last = steps.gate(kind, first, num_);
    for (int64_t j = 1; j < num_chunks_; ++j) last = steps.add(kind, first + j, num_, {-1, -1, last});
    return last;
  }

 private:
  int64_t num_items_, unit_;
  int num_;
  int64_t num_chunks_ = 1;
};

}  // namespace fastpop
