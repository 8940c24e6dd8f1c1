// Builds alias tables and draws from them on the CPU.
#include "alias_draw/alias_draw.h"

#include <algorithm>
#include <vector>

#include "fork.h"
#include "team.h"

namespace fastpop {
namespace {

constexpr uint64_t kWord = uint64_t{1} << 32;
// Draws of one piece of work; below it, starting threads costs more than the draws.
constexpr int64_t kPiece = 1 << 14;

// How many of the 2^32 words fall in bucket j: ceil((j+1) 2^32 / V) - ceil(j 2^32 / V).
uint64_t bucket_words(uint64_t j, uint64_t num_items) {
  const uint64_t last = num_items - 1;
  return ((j + 1) * kWord + last) / num_items - (j * kWord + last) / num_items;
}

// Draws start..stop-1 of one group; start is even, the first of two that share a Philox block.
void draw_piece(const AliasRow* table, uint32_t V, uint64_t seed, uint64_t step, uint32_t group,
                int64_t start, int64_t stop, int64_t* ids) {
  for (int64_t k = start; k < stop; k += 2) {
    const Words4 w = draw_words(seed, step, group, static_cast<uint32_t>(k / 2));
    ids[k] = alias_pick(table, V, w.w0, w.w1);
    if (k + 1 < stop) ids[k + 1] = alias_pick(table, V, w.w2, w.w3);
  }
}

}  // namespace

void alias_draw_group(const AliasRow* table, int64_t num_items, uint64_t seed, uint64_t step, uint32_t group,
                      int64_t num_draws, int64_t* ids) {
  draw_piece(table, static_cast<uint32_t>(num_items), seed, step, group, 0, num_draws, ids);
}

void alias_build(const uint64_t* mass, int64_t num_items, AliasRow* table) {
  const uint64_t V = static_cast<uint64_t>(num_items);
  std::vector<uint64_t> left(mass, mass + V);
  std::vector<uint32_t> unit(V);
  uint64_t heaviest = 0;
  for (uint64_t j = 0; j < V; ++j) {
    unit[j] = static_cast<uint32_t>(bucket_words(j, V));
    if (mass[j] > mass[heaviest]) heaviest = j;
    table[j] = AliasRow{0, static_cast<uint32_t>(j)};
  }
  // V >= 2, so a bucket holds at most 2^31 words and unit * 2^32 fits.
  const auto is_long = [&](uint64_t j) { return left[j] >= unit[j] * kWord; };
  const auto next_long = [&](uint64_t j) {
    while (j < V && !is_long(j)) ++j;
    return j;
  };

  int64_t carry = 0;
  uint64_t giver = next_long(0);
  std::vector<uint64_t> waiting;
  for (const bool nearly_empty : {true, false}) {
    for (uint64_t j = 0; j < V; ++j) {
      if (mass[j] >= unit[j] * kWord || (mass[j] < kWord) != nearly_empty) continue;
      uint64_t short_one = j;
      while (true) {
        const int64_t n = unit[short_one];
        uint64_t threshold = 0;
        if (left[short_one] > 0) {
          // Rounds (left + carry) / n; unsigned, since left + n may pass 2^63 when V = 2.
          const int64_t shift = std::clamp(carry, -n, n) + n / 2;
          const uint64_t back = shift < 0 ? static_cast<uint64_t>(-shift) : 0;
          const uint64_t wanted = shift >= 0 ? left[short_one] + static_cast<uint64_t>(shift)
                                             : left[short_one] - std::min(back, left[short_one]);
          threshold = std::clamp<uint64_t>(wanted / static_cast<uint64_t>(n), 1, kWord - 1);
        }
        const uint64_t need = static_cast<uint64_t>(n) * (kWord - threshold);
        if (waiting.empty() || left[waiting.back()] < need) {
          while (giver < V && left[giver] < need) {
            waiting.push_back(giver);
            giver = next_long(giver + 1);
          }
          if (giver < V) {
            waiting.push_back(giver);
            giver = next_long(giver + 1);
          }
        }
        if (waiting.empty()) {
          if (mass[short_one] == 0) table[short_one] = AliasRow{0, static_cast<uint32_t>(heaviest)};
          break;
        }
        const uint64_t source = waiting.back();
        waiting.pop_back();
        const uint64_t given = std::min(need, left[source]);
        carry += static_cast<int64_t>(left[short_one]) - n * static_cast<int64_t>(threshold) -
                 static_cast<int64_t>(need - given);
        table[short_one] = AliasRow{static_cast<uint32_t>(threshold), static_cast<uint32_t>(source)};
        left[source] -= given;
        if (is_long(source)) {
          waiting.push_back(source);
          break;
        }
        short_one = source;
      }
    }
  }
}

void alias_draw_cpu(const AliasRow* table, int64_t num_items, uint64_t seed, uint64_t step, uint32_t group,
                    int64_t num_groups, int64_t num_draws, int num_threads, int64_t* ids) {
  const uint32_t V = static_cast<uint32_t>(num_items);
  const int64_t pieces_per_group = (num_draws + kPiece - 1) / kPiece;
  const int64_t pieces = num_groups * pieces_per_group;
  const bool alone = num_groups * num_draws < 2 * kPiece || has_lost_threads();
  const int threads = alone ? 1 : num_threads > 0 ? num_threads : most_threads();
  in_parts(threads, pieces, 1, 1, pieces, [&](int64_t first, int64_t last, int) {
    for (int64_t piece = first; piece < last; ++piece) {
      const int64_t g = piece / pieces_per_group;
      const int64_t start = (piece % pieces_per_group) * kPiece;
      const int64_t stop = std::min(start + kPiece, num_draws);
      draw_piece(table, V, seed, step, group + static_cast<uint32_t>(g), start, stop, ids + g * num_draws);
    }
  });
}

}  // namespace fastpop
