// What the rows of a group share: their negatives, and which of those a row leaves out.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "mutant.h"
#include "radix_sort.h"
#include "sampled_softmax/row_terms.h"
#include "workspace.h"

namespace fastpop {

// One group's negatives: sorted, each id once, without those that the prior removes (whose rows are
// then not read at all, and may hold anything).
struct Group {
  int64_t num;         // unique ids
  int64_t* id;         // [K padded]
  float* bias;         // [K padded], nats, -inf where no column is
  int32_t* row_of;     // [K padded], place in the index, or null
  int32_t* count;      // [K]
  int32_t* column_of;  // [K] column of each slot, -1 for a removed item, or null
  SortItem* by_key;    // [K] (key, column) in order of key, or null
};

class SharedNegatives : protected RowTerms {
 protected:
  using RowTerms::RowTerms;

  Group make_group(Workspace& memory, bool with_places) const {
    const int64_t columns = round_up(a_.K, tile_.panel);
    Group group{};
    group.id = memory.make<int64_t>(columns);
    group.bias = memory.make<float>(columns);
    group.count = memory.make<int32_t>(a_.K);
    group.row_of = with_places ? memory.make<int32_t>(columns) : nullptr;
    group.column_of = a_.exclude_diagonal ? memory.make<int32_t>(a_.K) : nullptr;
    group.by_key = a_.key_V != nullptr && a_.drop_accidental_hits ? memory.make<SortItem>(a_.K) : nullptr;
    return group;
  }

  // Whole panels, at least one: a row of removed negatives alone has its end to reach, too.
  int64_t columns_of(const Group& group) const {
    return round_up(std::max<int64_t>(group.num, 1), tile_.panel);
  }

  // The group's ids sorted and counted, their biases and places.
  void prepare(Group& group, SortItem* items, int64_t g) const {
    const int64_t* ids = negatives_of(g, group.id);
    for (int64_t k = 0; k < a_.K; ++k) items[k] = {static_cast<uint64_t>(ids[k]), static_cast<uint32_t>(k)};
    const SortItem* sorted = radix_sort(items, items + a_.K, a_.K, a_.V);
    int64_t num = 0;
    bool is_there = false;
    for (int64_t k = 0; k < a_.K; ++k) {
      if (k + kAhead < a_.K) ask_for_bias(static_cast<int64_t>(sorted[k + kAhead].key));
      const auto id = static_cast<int64_t>(sorted[k].key);
      if (k == 0 || sorted[k - 1].key != sorted[k].key) {
        const double bias = negative_bias(id);
        is_there = bias != -HUGE_VAL;
        group.id[num] = id;
        group.bias[num] = static_cast<float>(bias);
        group.count[num] = 0;
        num += is_there;
      }
      if (is_there) ++group.count[num - 1];
      if (group.column_of != nullptr)
        group.column_of[sorted[k].slot] = is_there ? static_cast<int32_t>(num - 1) : -1;
    }
    group.num = num;
    const int64_t columns = columns_of(group);
    for (int64_t k = 0; k < num; ++k) {
      if (group.count[k] > 1) {
        const double log_count = MUTANT(9, 0.0, std::log(double(group.count[k])));
        group.bias[k] = static_cast<float>(negative_bias(group.id[k]) + log_count);
      }
      if (group.row_of != nullptr) group.row_of[k] = a_.index->place(group.id[k]);
    }
    std::fill(group.bias + num, group.bias + columns, -kInf);
    if (group.by_key == nullptr) return;
    for (int64_t k = 0; k < num; ++k)
      group.by_key[k] = {static_cast<uint64_t>(a_.key_V[group.id[k]]), static_cast<uint32_t>(k)};
    std::sort(group.by_key, group.by_key + num, before);
  }

  // Takes out of row b's logits what is not its negative; true when one changed.
  bool correct(const Group& group, int64_t b, int64_t left, int64_t columns, float* row) const {
    bool changed = false;
    if (a_.exclude_diagonal) {
      const int64_t column = group.column_of[b], at = column - left;
      if (at >= 0 && at < columns) {
        const double count = group.count[column];
        row[at] += static_cast<float>(MUTANT(10, 0.0, std::log((count - 1) / count)));
        changed = true;
      }
    }
    if (group.by_key != nullptr) {
      const auto key = static_cast<uint64_t>(a_.key_V[a_.pos_id_B[b]]);
      const SortItem wanted{key, static_cast<uint32_t>(left)};
      const SortItem* stop = group.by_key + group.num;
      const SortItem* at = std::lower_bound<const SortItem*>(group.by_key, stop, wanted, before);
      for (; at != stop && at->key == key && at->slot < left + columns; ++at) {
        row[at->slot - left] = -kInf;
        changed = true;
      }
    } else if (a_.drop_accidental_hits) {
      const int64_t* stop = group.id + std::min(group.num, left + columns);
      const int64_t* found = std::lower_bound<const int64_t*>(group.id + left, stop, a_.pos_id_B[b]);
      if (found != stop && *found == a_.pos_id_B[b]) {
        row[found - group.id - left] = -kInf;
        changed = true;
      }
    }
    return changed;
  }

 private:
  static constexpr int64_t kAhead = 16;

  static bool before(const SortItem& one, const SortItem& other) {
    return one.key != other.key ? one.key < other.key : one.slot < other.slot;
  }
};

}  // namespace fastpop
