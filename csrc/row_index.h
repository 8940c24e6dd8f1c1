// The sorted set of the ids of a step, and the place of each id in it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "alias_draw/alias_draw.h"

namespace fastpop {

// Of many ids of few items: one bit an item and a running count for each 64, 3/16 of a byte an item, no sort.
// Of few ids of many items, where going over all bits would take longer than the ids do: the ids sorted, and
// where those with the same first bits begin, 16 to 32 bytes an id.
class RowIndex {
 public:
  // num_ids: that are to come, repeats and all; another number is only slower.
  RowIndex(int64_t num_items, int64_t num_ids);

  void add(const int64_t* ids, int64_t num, int threads);
  // The ids of groups 0..num_groups-1 of a draw.
  void add_draws(const AliasRow* table, int64_t num_items, uint64_t seed, uint64_t step, int64_t num_groups,
                 int64_t num_draws, int threads);
  // After the last add.
  void finish();

  int64_t size() const { return size_; }
  // Of an id that is there.
  int32_t place(int64_t id) const {
    if (sorts_) {
      const uint32_t* first = ids_.data() + start_[id >> shift_];
      const uint32_t* last = ids_.data() + start_[(id >> shift_) + 1];
      return static_cast<int32_t>(std::lower_bound(first, last, static_cast<uint32_t>(id)) - ids_.data());
    }
    const uint64_t below = bits_[id >> 6] & ((uint64_t{1} << (id & 63)) - 1);
    return before_[id >> 6] + __builtin_popcountll(below);
  }
  void write_ids(int64_t* ids) const;

 private:
  void mark(int64_t id);
  void sort();

  int64_t num_items_;
  bool sorts_;
  std::vector<uint64_t> bits_;
  std::vector<int32_t> before_;
  std::vector<uint32_t> ids_;   // as they came; sorted, each once, when all are there
  std::vector<int32_t> start_;  // of the ids >> shift_
  int shift_ = 0;
  int64_t size_ = 0;
};

}  // namespace fastpop
