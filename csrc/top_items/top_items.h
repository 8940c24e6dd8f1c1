// Exact top-k of scale * q.e + bias on the CPU: what the binding fills in and the kernel reads.
#pragma once

#include <cstdint>
#include <cstring>

#include "tile.h"

namespace fastpop {

// A scored item as one integer: the greater the better. Scores compare as their bits do once
// negative ones are turned over; NaN is above all numbers; of equal scores the smaller id is better.
inline uint64_t key_of(float score, int64_t id) {
  score += 0.0f;  // -0 is 0
  uint32_t bits;
  std::memcpy(&bits, &score, 4);
  if (score != score) bits = 0x7fc00000;
  bits ^= bits >> 31 ? 0xffffffff : 0x80000000;
  return static_cast<uint64_t>(bits) << 32 | (0xffffffff - static_cast<uint64_t>(id));
}

inline float score_of(uint64_t key) {
  uint32_t bits = static_cast<uint32_t>(key >> 32);
  bits ^= bits >> 31 ? 0x80000000 : 0xffffffff;
  float score;
  std::memcpy(&score, &bits, 4);
  return score;
}

inline int64_t id_of(uint64_t key) { return 0xffffffff - (key & 0xffffffff); }

// Items of neighbouring ids, float32, columns side by side.
struct ItemBlock {
  const float* item;
  int64_t stride, num, D, first_id;
  const float* bias;  // [num], or null
};

// One panel of queries and the items that each still has to consider. A scan appends to them what is
// not worse than `least`, and calls `prune` when a query's buffer is full.
struct QueryPanel {
  const float* query;   // [D, panel], scale within
  int num_vectors;      // that hold queries
  uint64_t lanes;       // a bit for each lane that holds a query
  float* least;         // [panel] scores below are out; -FLT_MAX lets all but -inf pass
  uint64_t* least_key;  // [panel]
  int32_t* count;       // [panel]
  uint64_t* key;        // [panel, capacity]
  int64_t capacity;
  void (*prune)(void* owner, int64_t query);
  void* owner;
  int64_t first_query;
};

struct TopItems {
  // See kernels/top_items/reference.py.
  Matrix query_BD, item_VD;
  int64_t B, V, D, k;
  const float* bias_V;  // or null
  double scale;
  const int64_t* exclude_offsets;  // or null
  const int64_t* exclude_item;
  int64_t* id_BK;
  float* score_BK;
  int threads;
};

void top_items_cpu(const TopItems& args, const Tile& tile);

}  // namespace fastpop
