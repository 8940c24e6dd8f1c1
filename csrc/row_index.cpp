#include "row_index.h"

#include <cstddef>

#include "team.h"

namespace fastpop {

void RowIndex::mark(int64_t id) {
  uint64_t* word = &bits_[id >> 6];
  const uint64_t bit = uint64_t{1} << (id & 63);
  // Most repeats find their bit set: a plain read first keeps popular words shared.
  if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & bit)) __atomic_fetch_or(word, bit, __ATOMIC_RELAXED);
}

void RowIndex::add(const int64_t* ids, int64_t num, int threads) {
  constexpr int64_t kFew = 1 << 14;
  in_parts(num > 2 * kFew ? threads : 1, num, 1, kFew, num, [&](int64_t first, int64_t last, int) {
    for (int64_t n = first; n < last; ++n) mark(ids[n]);
  });
}

void RowIndex::add_draws(const AliasRow* table, int64_t num_items, uint64_t seed, uint64_t step,
                         int64_t num_groups, int64_t num_draws, int threads) {
  constexpr int64_t kPiece = 1 << 12;  // even: whole Philox blocks
  const int64_t pieces_per_group = (num_draws + kPiece - 1) / kPiece;
  const int64_t pieces = num_groups * pieces_per_group;
  in_parts(threads, pieces, 1, 1, pieces, [&](int64_t first, int64_t last, int) {
    for (int64_t piece = first; piece < last; ++piece) {
      const auto group = static_cast<uint32_t>(piece / pieces_per_group);
      const int64_t start = piece % pieces_per_group * kPiece;
      const int64_t stop = start + kPiece < num_draws ? start + kPiece : num_draws;
      for (int64_t k = start; k < stop; k += 2) {
        const Words4 w = draw_words(seed, step, group, static_cast<uint32_t>(k / 2));
        const auto V = static_cast<uint32_t>(num_items);
        mark(alias_pick(table, V, w.w0, w.w1));
        if (k + 1 < stop) mark(alias_pick(table, V, w.w2, w.w3));
      }
    }
  });
}

void RowIndex::finish() {
  int64_t total = 0;
  for (std::size_t w = 0; w < bits_.size(); ++w) {
    before_[w] = static_cast<int32_t>(total);
    total += __builtin_popcountll(bits_[w]);
  }
  size_ = total;
}

void RowIndex::write_ids(int64_t* ids) const {
  for (std::size_t w = 0; w < bits_.size(); ++w)
    for (uint64_t left = bits_[w]; left != 0; left &= left - 1)
      *ids++ = static_cast<int64_t>(w) * 64 + __builtin_ctzll(left);
}

}  // namespace fastpop
