// The integer alias draw. kernels/alias_draw/reference.py is the specification of every word here.
#pragma once
#include <cstdint>

#include "philox.h"

namespace fastpop {

// One bucket of the table: uint32 [V, 2] in memory, so that a draw touches one cache line.
struct AliasRow {
  uint32_t threshold, alias;
};

// The four words of draws 2*pair and 2*pair + 1 of one group.
FASTPOP_HD Words4 draw_words(uint64_t seed, uint64_t step, uint32_t group, uint32_t pair) {
  const Words4 counter{pair, group, static_cast<uint32_t>(step), static_cast<uint32_t>(step >> 32)};
  return philox4x32_10(counter, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

FASTPOP_HD uint32_t alias_pick(const AliasRow* table, uint32_t num_items, uint32_t word_bucket,
                               uint32_t word_threshold) {
  const uint32_t bucket = mulhi32(word_bucket, num_items);
  const AliasRow row = table[bucket];
  return word_threshold < row.threshold ? bucket : row.alias;
}

// Host: table [num_items] from masses that add up to 2^64 (two or more positive); O(V), exact.
void alias_build(const uint64_t* mass, int64_t num_items, AliasRow* table);

// Host: ids [num_groups, num_draws] of groups group..group+num_groups-1; 0 threads: most_threads().
void alias_draw_cpu(const AliasRow* table, int64_t num_items, uint64_t seed, uint64_t step, uint32_t group,
                    int64_t num_groups, int64_t num_draws, int num_threads, int64_t* ids);

// Host: ids [num_draws] of one group, on the calling thread.
void alias_draw_group(const AliasRow* table, int64_t num_items, uint64_t seed, uint64_t step, uint32_t group,
                      int64_t num_draws, int64_t* ids);

// Of a build with CUDA. Device pointers; runs on `stream` without a synchronisation. Null, or what went
// wrong.
const char* alias_draw_cuda(uintptr_t table, int64_t num_items, uint64_t seed, uint64_t step, uint32_t group,
                            int64_t num_groups, int64_t num_draws, uintptr_t ids, uintptr_t stream);

}  // namespace fastpop
