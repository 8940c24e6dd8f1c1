// The sorted set of the ids of a step, and the place of each id in it.
#pragma once

#include <cstdint>
#include <vector>

#include "alias_draw/alias_draw.h"

namespace fastpop {

// One bit an item and a running count for each 64: 3/16 of a byte an item, no sort.
class RowIndex {
 public:
  explicit RowIndex(int64_t num_items) : bits_((num_items + 63) / 64, 0), before_(bits_.size()), size_(0) {}

  void add(const int64_t* ids, int64_t num, int threads);
  // The ids of groups 0..num_groups-1 of a draw.
  void add_draws(const AliasRow* table, int64_t num_items, uint64_t seed, uint64_t step, int64_t num_groups,
                 int64_t num_draws, int threads);
  // After the last add.
  void finish();

  int64_t size() const { return size_; }
  int32_t place(int64_t id) const {
    const uint64_t below = bits_[id >> 6] & ((uint64_t{1} << (id & 63)) - 1);
    return before_[id >> 6] + __builtin_popcountll(below);
  }
  void write_ids(int64_t* ids) const;

 private:
  void mark(int64_t id);

  std::vector<uint64_t> bits_;
  std::vector<int32_t> before_;
  int64_t size_;
};

}  // namespace fastpop
