// Exact top-k items of each query, the catalogue streamed past blocks of queries.
//
// 1. A thread takes a block of queries, packs them into panels (scale within) and sorts what each
//    must not get.
// 2. It walks the catalogue in blocks of items that stay in L2; each block meets every panel. A
//    register tile scores 6 items for a panel's queries and compares them with each query's k-th
//    best so far. What is not worse goes to the query's buffer (scan.inc).
// 3. A full buffer drops what is excluded and all but the k best; the worst of these is the new bound.
// 4. At the end the k best in order: greater score first, of equal ones the smaller id.
// With fewer queries than the threads have panels, threads share the queries and take blocks of items as
// they come, and step 4 selects among what each found. Blocks of items are visited in a scattered order, so
// that a catalogue sorted by score does not pass the bound with every item. A score is the same sum in the
// same order wherever its tile lies, and the k best of it are one set: bits depend neither on the
// number of threads nor on that order.
// Cost: 2 B V D FLOPs and about k (1 + 2 log(V / k)) kept items a query. Memory a thread: 2 MiB of
// buffers (more for k above 1,600: 2.5 k numbers for each of 64 queries) and a block of items.
#include "top_items/top_items.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <functional>
#include <memory>
#include <numeric>
#include <vector>

#include "mutant.h"
#include "prefetch.h"
#include "ranges.h"
#include "team.h"
#include "workspace.h"

namespace fastpop {
namespace {

// Items of a block: with the panel that it meets in the reach of L2.
constexpr int64_t kItemBytes = int64_t{192} << 10;
constexpr int64_t kMostItems = 1536;
constexpr int64_t kBufferBytes = int64_t{2} << 20;
constexpr int64_t kMostQueries = 1024;
// Lists that are worth waking a thread for, and panels of queries that are worth a walk of the catalogue.
constexpr int64_t kFewLists = 16;
constexpr int64_t kFewPanels = 2;
// A hash of the ids that a query must not get: most survivors miss it and need no search.
constexpr int64_t kFilterWords = 8;

struct Sizes {
  Sizes(const TopItems& a, const Tile& tile) {
    item_rows = std::clamp<int64_t>(kItemBytes / (4 * std::max<int64_t>(a.D, 1)), 2 * kTileRows, kMostItems) /
                kTileRows * kTileRows;
    num_blocks = (a.V + item_rows - 1) / item_rows;
    const int64_t k = std::min(a.k, a.V);
    capacity = k + std::clamp<int64_t>(k * 3 / 2, 32, 1 << 14);
    queries = std::clamp<int64_t>(kBufferBytes / (8 * capacity), 1, kMostQueries);
    queries = std::min(round_up(queries, tile.panel), round_up(a.B, tile.panel));
    // Blocks j, j + step, ... with a step that is no divisor: all of them, scattered.
    step = std::max<int64_t>(1, static_cast<int64_t>(0.618 * static_cast<double>(num_blocks)));
    while (std::gcd(step, num_blocks) != 1) ++step;
  }
  int64_t item_rows, num_blocks, step;
  int64_t capacity;  // of a query's buffer
  int64_t queries;   // of a block: whole panels
};

// A block of queries and the best that one thread has found for them.
class Best {
 public:
  Best(const TopItems& a, const Tile& tile, const Sizes& sizes)
      : a_(a), tile_(tile), sizes_(sizes), capacity_(sizes.capacity), k_(std::min(a.k, a.V)) {
    const int64_t num = sizes.queries;
    query_ = memory_.make<float>(num * a.D);
    row_ = memory_.make<float>(round_up(a.D, tile.lanes));
    least_ = memory_.make<float>(num);
    least_key_ = memory_.make<uint64_t>(num);
    count_ = memory_.make<int32_t>(num);
    checked_ = memory_.make<int32_t>(num);
    key_ = memory_.make<uint64_t>(num * capacity_);
    filter_ = a.exclude_offsets == nullptr ? nullptr : memory_.make<uint64_t>(num * kFilterWords);
    if (a.item_VD.dtype != Dtype::f32 || a.item_VD.col_stride != 1)
      item_ = memory_.make<float>(sizes.item_rows * a.D);
  }

  // Step 1 for queries [first, first + num).
  void begin(int64_t first, int64_t num) {
    first_ = first;
    num_ = num;
    std::fill(query_, query_ + round_up(num, tile_.panel) * a_.D, 0.0f);
    std::fill(least_, least_ + round_up(num, tile_.panel), -FLT_MAX);
    std::fill(least_key_, least_key_ + num, 0);
    std::fill(count_, count_ + num, 0);
    std::fill(checked_, checked_ + num, 0);
    const float scale = static_cast<float>(a_.scale);
    for (int64_t q = 0; q < num; ++q) {
      tile_.fetch(a_.query_BD, first + q, a_.D, a_.D, row_);
      float* out = query_ + q / tile_.panel * tile_.panel * a_.D + q % tile_.panel;
      for (int64_t d = 0; d < a_.D; ++d) out[d * tile_.panel] = row_[d] * scale;
    }
    if (filter_ != nullptr) sort_excluded();
  }

  // Step 2 for the j-th block of items in the order of visits.
  void scan(int64_t j) {
    const int64_t first = j * sizes_.step % sizes_.num_blocks * sizes_.item_rows;
    const int64_t num = std::min(sizes_.item_rows, a_.V - first);
    ItemBlock block{static_cast<const float*>(a_.item_VD.data) + first * a_.item_VD.row_stride,
                    a_.item_VD.row_stride,
                    num,
                    a_.D,
                    first,
                    a_.bias_V == nullptr ? nullptr : a_.bias_V + first};
    if (item_ != nullptr) {
      for (int64_t i = 0; i < num; ++i) {
        // Of strided float32 no line is a row's.
        if (a_.item_VD.dtype != Dtype::f32)
          prefetch_row(a_.item_VD, std::min(first + i + 16, a_.V - 1), a_.D);
        tile_.fetch(a_.item_VD, first + i, a_.D, a_.D, item_ + i * a_.D);
      }
      block.item = item_;
      block.stride = a_.D;
    }
    const auto prune_one = [](void* self, int64_t q) { static_cast<Best*>(self)->prune(q); };
    for (int64_t q = 0; q < num_; q += tile_.panel) {
      const int64_t lanes = std::min<int64_t>(tile_.panel, num_ - q);
      const QueryPanel panel{query_ + q * a_.D,
                             static_cast<int>((lanes + tile_.lanes - 1) / tile_.lanes),
                             lanes == 64 ? ~uint64_t{0} : (uint64_t{1} << lanes) - 1,
                             least_ + q,
                             least_key_ + q,
                             count_ + q,
                             key_ + q * capacity_,
                             capacity_,
                             prune_one,
                             this,
                             q};
      tile_.scan(block, panel);
    }
  }

  // Step 3.
  void prune(int64_t q) {
    uint64_t* keys = key_ + q * capacity_;
    if (filter_ != nullptr) {
      int32_t kept = checked_[q];
      for (int32_t n = kept; n < count_[q]; ++n)
        if (MUTANT(14, true, !is_excluded(q, id_of(keys[n])))) keys[kept++] = keys[n];
      count_[q] = kept;
    }
    if (count_[q] > k_) {
      std::nth_element(keys, keys + k_ - 1, keys + count_[q], std::greater<uint64_t>());
      count_[q] = static_cast<int32_t>(k_);
      least_key_[q] = keys[k_ - 1];
      least_[q] = score_of(keys[k_ - 1]);
    }
    checked_[q] = count_[q];
  }

  const uint64_t* begin_of(int64_t q) const { return key_ + q * capacity_; }
  const uint64_t* end_of(int64_t q) const { return begin_of(q) + count_[q]; }

 private:
  static int64_t hash_of(int64_t id) { return id & (64 * kFilterWords - 1); }

  void sort_excluded() {
    const int64_t* offsets = a_.exclude_offsets + first_;
    excluded_.assign(a_.exclude_item + offsets[0], a_.exclude_item + offsets[num_]);
    std::fill(filter_, filter_ + num_ * kFilterWords, 0);
    for (int64_t q = 0; q < num_; ++q) {
      int64_t* const from = excluded_.data() + (offsets[q] - offsets[0]);
      int64_t* const to = excluded_.data() + (offsets[q + 1] - offsets[0]);
      if (!tile_.ascends(from, to - from)) std::sort(from, to);
      for (const int64_t* id = from; id < to; ++id)
        filter_[q * kFilterWords + hash_of(*id) / 64] |= uint64_t{1} << (hash_of(*id) % 64);
    }
  }

  bool is_excluded(int64_t q, int64_t id) const {
    if (!(filter_[q * kFilterWords + hash_of(id) / 64] >> (hash_of(id) % 64) & 1)) return false;
    const int64_t* offsets = a_.exclude_offsets + first_;
    const int64_t* ids = excluded_.data() - offsets[0];
    return std::binary_search(ids + offsets[q], ids + offsets[q + 1], id);
  }

  const TopItems& a_;
  const Tile& tile_;
  const Sizes& sizes_;
  Workspace memory_;
  int64_t capacity_, k_;
  int64_t first_ = 0, num_ = 0;  // queries
  float* query_;                 // [panels, D, panel]
  float* row_;                   // [D]
  float* item_ = nullptr;        // [item row, D], of items that are not float32 rows
  float* least_;                 // [query], and the next three
  uint64_t* least_key_;
  int32_t* count_;
  int32_t* checked_;  // how many of a buffer are known not to be excluded
  uint64_t* key_;     // [query, capacity]
  uint64_t* filter_;  // [query, word], or null
  std::vector<int64_t> excluded_;
};

// Step 4: the k best of all that was found for query b, in order.
void write(const TopItems& a, int64_t b, std::vector<uint64_t>& found) {
  const int64_t num = std::min(a.k, static_cast<int64_t>(found.size()));
  const auto last = found.begin() + num;
  if (last != found.end()) std::nth_element(found.begin(), last, found.end(), std::greater<uint64_t>());
  std::sort(found.begin(), last, std::greater<uint64_t>());
  int64_t* id = a.id_BK + b * a.k;
  float* score = a.score_BK + b * a.k;
  for (int64_t n = 0; n < num; ++n) {
    id[n] = id_of(found[n]);
    score[n] = score_of(found[n]);
  }
  std::fill(id + num, id + a.k, -1);
  std::fill(score + num, score + a.k, -HUGE_VALF);
}

// Queries [start, stop) against all items.
void some_queries(const TopItems& a, const Sizes& sizes, int64_t start, int64_t stop, Best& best) {
  std::vector<uint64_t> found;
  best.begin(start, stop - start);
  for (int64_t j = 0; j < sizes.num_blocks; ++j) best.scan(j);
  for (int64_t q = 0; q < stop - start; ++q) {
    best.prune(q);
    found.assign(best.begin_of(q), best.end_of(q));
    write(a, start + q, found);
  }
}

// All queries; a thread takes blocks of items as they come.
void split_items(const TopItems& a, const Sizes& sizes, std::vector<std::unique_ptr<Best>>& best) {
  const int threads = static_cast<int>(best.size());
  for (int64_t first = 0; first < a.B; first += sizes.queries) {
    const int64_t num = std::min(sizes.queries, a.B - first);
    std::vector<char> has_begun(threads, 0);
    in_pieces(threads, sizes.num_blocks, [&](int64_t j, int me) {
      if (!has_begun[me]) best[me]->begin(first, num);
      has_begun[me] = 1;
      best[me]->scan(j);
    });
    in_parts(threads, num, 1, kFewLists, num, [&](int64_t from, int64_t to, int) {
      std::vector<uint64_t> found;
      for (int64_t q = from; q < to; ++q) {
        found.clear();
        for (int i = 0; i < threads; ++i) {
          if (!has_begun[i]) continue;
          best[i]->prune(q);
          found.insert(found.end(), best[i]->begin_of(q), best[i]->end_of(q));
        }
        write(a, first + q, found);
      }
    });
  }
}

}  // namespace

void top_items_cpu(const TopItems& a, const Tile& tile) {
  if (a.B == 0) return;
  const Sizes sizes(a, tile);
  const bool by_queries = a.B >= a.threads * int64_t{tile.panel};
  const int64_t parts = by_queries ? a.threads : std::min<int64_t>(a.threads, sizes.num_blocks);
  std::vector<std::unique_ptr<Best>> best;
  for (int64_t i = 0; i < parts; ++i) best.push_back(std::make_unique<Best>(a, tile, sizes));
  if (!by_queries) return split_items(a, sizes, best);
  const int64_t fair = std::max<int64_t>(a.B / (2 * a.threads), tile.panel);
  in_parts(a.threads, a.B, tile.panel, std::min(fair, kFewPanels * tile.panel), sizes.queries,
           [&](int64_t first, int64_t last, int me) { some_queries(a, sizes, first, last, *best[me]); });
}

}  // namespace fastpop
