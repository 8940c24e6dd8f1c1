// Sums of rows by id, over entries that are sorted by id: the gradient of a table.
//
// Sorted entry i comes from place_N[i]. An entry that was among the first `num_heads` is one term,
// head_coef * rows[entry]; a later one is negative k of group g, a term coef_BK[b, k] * rows[b] for each
// row b of the group. segment_N[i] counts the ids below key_N[i]: the row of the result it belongs to.
//
// Who owns what: entries are cut into chunks of equal length, whatever the ids, and a team of lanes
// owns a chunk: an item that a tenth of all entries name takes no longer than the rest. A team keeps
// one running sum, E numbers a lane, and writes it when the id changes. A segment that began in an
// earlier chunk goes to the chunk's carry row; a second pass adds the carries of such a segment, in
// order, to the row that its first chunk wrote. One writer per row, no atomics, the cut depends on N
// alone: bitwise repeatable on every device.
//
// Cost: an entry reads a row of D numbers, which for queries come from L2 (33 MB at B = 65,536, D = 128,
// fp32), and 44 bytes of memory: its place, segment and coefficient's sector. 2 D FLOPs: bandwidth
// binds. B = 65,536, K = 1,024, D = 128: 3.0 GB from memory and 17 to 34 GB from L2.
#pragma once

#include <cstdint>

#include "lanes.h"
#include "row_layout.h"

namespace fastpop {

struct RowSum {
  int64_t num_entries;  // N
  int64_t num_rows;     // n: at least the number of different ids
  int64_t D;
  int64_t chunk;           // entries a team owns
  const int32_t* key_N;    // sorted
  const int64_t* place_N;  // where each stood before the sort
  const int32_t* segment_N;

  Matrix rows;  // [num_heads or B, D], fewer than 2^31
  int64_t num_heads, B, K, group_size;
  const float* head_coef;  // or null: 1
  const float* coef_BK;
  const float* scale;  // multiplies the rows of the result, not the weights; or null: 1

  // Rows of ids that come once are neither read nor written, and nothing is padded.
  bool only_repeats;

  int64_t* id_n;     // past the different ids, the last one again; or null
  float* sum_nD;     // and zeros there. Contiguous, or null: not wanted
  double* weight_n;  // sums of coefficients alone, or null
  float* carry_cD;   // of each chunk; workspace
  double* carry_c;
};

FASTPOP_HD int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// The first sorted entry from `from` on whose segment is above `segment`; N if none is.
FASTPOP_HD int64_t end_of_segment(const RowSum& a, int32_t segment, int64_t from) {
  int64_t below = from, above = a.num_entries;
  while (below < above) {
    const int64_t middle = below + (above - below) / 2;
    if (a.segment_N[middle] > segment) {
      above = middle;
    } else {
      below = middle + 1;
    }
  }
  return below;
}

// Term s of an entry: a coefficient times a row.
struct Term {
  int32_t row;
  float coef;
};

FASTPOP_HD Term term_of(const RowSum& a, int64_t entry, int64_t s) {
  if (entry < a.num_heads) {
    const float coef = a.head_coef == nullptr ? 1.0f : a.head_coef[entry];
    return {static_cast<int32_t>(entry), s == 0 ? coef : 0.0f};
  }
  const int64_t at = entry - a.num_heads, group = at / a.K;
  const int64_t b = group * a.group_size + s;
  if (b >= a.B) return {0, 0.0f};  // the last group may be ragged
  return {static_cast<int32_t>(b), a.coef_BK[b * a.K + (at - group * a.K)]};
}

// Whether the id of sorted entry i comes again.
FASTPOP_HD bool repeats(const int32_t* key_N, int64_t num_entries, int64_t i) {
  return (i > 0 && key_N[i - 1] == key_N[i]) || (i + 1 < num_entries && key_N[i + 1] == key_N[i]);
}

template <class Layout>
struct RowSumPass {
  static constexpr int T = Layout::kLanes, E = Layout::kNumbers, kRows = Layout::kRows;
  static constexpr int kCarries = E >= 32 ? 1 : 32 / E;  // carry rows in flight
  using Team = Lanes<T>;
  using Sum = PerLane<Numbers<E>, T>;

  static FASTPOP_HD void clear(const Team& team, Sum& sum) {
    team.each([&](int lane) {
      FASTPOP_UNROLL
      for (int i = 0; i < E; ++i) sum[lane].x[i] = 0;
    });
  }

  static FASTPOP_HD void write(const Team& team, const RowSum& a, bool carried, int64_t at, Sum& sum,
                               double weight) {
    float* rows = carried ? a.carry_cD : a.sum_nD;
    double* weights = carried ? a.carry_c : a.weight_n;
    const float scale = carried || a.scale == nullptr ? 1.0f : *a.scale;
    team.each([&](int lane) {
      if (a.sum_nD != nullptr) {
        FASTPOP_UNROLL
        for (int i = 0; i < E; ++i) sum[lane].x[i] *= scale;
        Layout::store_floats(rows + at * a.D, a.D, lane, sum[lane]);
      }
      if (lane == 0 && a.weight_n != nullptr) weights[at] = weight;
    });
  }

  // Chunk c.
  // 1. kRows terms at a time: segments and places, then coefficients and rows, all in flight at once.
  // 2. In order: where the segment changes, write the sum and begin the next with its id.
  static FASTPOP_HD void sum_chunk(const RowSum& a, int64_t c) {
    const Team team;
    const int64_t first = c * a.chunk, last = smaller(first + a.chunk, a.num_entries);
    int32_t segment = a.segment_N[first];
    bool carried = first > 0 && a.segment_N[first - 1] == segment;
    bool wanted = true;  // the sum of this segment
    const auto begin = [&](int64_t entry) {
      wanted = !a.only_repeats || repeats(a.key_N, a.num_entries, entry);
      team.each([&](int lane) {
        if (lane == 0 && a.id_n != nullptr) a.id_n[segment] = a.key_N[entry];
      });
    };
    if (!carried) begin(first);
    Sum sum;
    clear(team, sum);
    double weight = 0;

    const int64_t terms = (last - first) * a.group_size;
    FASTPOP_NO_UNROLL
    for (int64_t t = 0; t < terms; t += kRows) {
      int32_t of[kRows];
      Term term[kRows];
      PerLane<typename Layout::Row, T> row[kRows];
      FASTPOP_UNROLL
      for (int u = 0; u < kRows; ++u) {
        const int64_t i = a.group_size == 1 ? t + u : (t + u) / a.group_size;
        const int64_t entry = smaller(first + i, last - 1);
        of[u] = a.segment_N[entry];
        term[u] = term_of(a, a.place_N[entry], t + u - i * a.group_size);
        if (first + i >= last) term[u].coef = 0;
        if (a.only_repeats && !repeats(a.key_N, a.num_entries, entry)) term[u].coef = 0;
      }
      if (a.sum_nD != nullptr) {
        FASTPOP_UNROLL
        for (int u = 0; u < kRows; ++u)
          team.each([&](int lane) {
            // A row that adds nothing is not read.
            Layout::load(a.rows, term[u].row, term[u].coef == 0 ? 0 : a.D, lane, row[u][lane]);
          });
      }
      FASTPOP_UNROLL
      for (int u = 0; u < kRows; ++u) {
        if (of[u] != segment) {
          if (wanted) write(team, a, carried, carried ? c : segment, sum, weight);
          clear(team, sum);
          weight = 0;
          segment = of[u];
          carried = false;
          begin(first + (a.group_size == 1 ? t + u : (t + u) / a.group_size));
        }
        // A row without a gradient adds nothing, even where its query is not finite.
        if (term[u].coef == 0) continue;
        weight += term[u].coef;
        if (a.sum_nD == nullptr) continue;
        team.each([&](int lane) { Layout::axpy(term[u].coef, row[u][lane], sum[lane]); });
      }
    }
    if (wanted) write(team, a, carried, carried ? c : segment, sum, weight);
  }

  // Where chunk c's last segment began in it and goes on: the carries of the chunks it spans, added.
  static FASTPOP_HD void add_carries(const RowSum& a, int64_t c) {
    const int64_t first = c * a.chunk, next = first + a.chunk;
    if (next >= a.num_entries) return;
    const int32_t segment = a.segment_N[next - 1];
    if (a.segment_N[next] != segment) return;
    if (first > 0 && a.segment_N[first - 1] == segment) return;
    const int64_t last = (end_of_segment(a, segment, next) - 1) / a.chunk;
    const Team team;
    Sum sum;
    clear(team, sum);
    double weight = 0;
    FASTPOP_NO_UNROLL
    for (int64_t at = c + 1; at <= last; at += kCarries) {
      Sum part[kCarries];
      double weights[kCarries];
      FASTPOP_UNROLL
      for (int u = 0; u < kCarries; ++u) {
        const int64_t from = smaller(at + u, last);
        weights[u] = a.weight_n == nullptr ? 0 : a.carry_c[from];
        if (a.sum_nD == nullptr) continue;
        team.each([&](int lane) { Layout::load_floats(a.carry_cD + from * a.D, a.D, lane, part[u][lane]); });
      }
      FASTPOP_UNROLL
      for (int u = 0; u < kCarries; ++u) {
        if (at + u > last) continue;
        weight += weights[u];
        if (a.sum_nD == nullptr) continue;
        add(team, sum, part[u]);
      }
    }
    const float scale = a.scale == nullptr ? 1.0f : *a.scale;
    team.each([&](int lane) {
      if (lane == 0 && a.weight_n != nullptr) a.weight_n[segment] += weight;
      if (a.sum_nD == nullptr) return;
      Numbers<E> begun;
      Layout::load_floats(a.sum_nD + segment * a.D, a.D, lane, begun);
      FASTPOP_UNROLL
      for (int i = 0; i < E; ++i) begun.x[i] += scale * sum[lane].x[i];
      Layout::store_floats(a.sum_nD + segment * a.D, a.D, lane, begun);
    });
  }

  static FASTPOP_HD void add(const Team& team, Sum& sum, const Sum& part) {
    team.each([&](int lane) {
      FASTPOP_UNROLL
      for (int i = 0; i < E; ++i) sum[lane].x[i] += part[lane].x[i];
    });
  }

  // Row r of the result, past the different ids: the last id again, with zeros.
  static FASTPOP_HD void pad(const RowSum& a, int64_t r) {
    if (r <= a.segment_N[a.num_entries - 1]) return;
    const Team team;
    Sum zeros;
    clear(team, zeros);
    write(team, a, false, r, zeros, 0);
    team.each([&](int lane) {
      if (lane == 0 && a.id_n != nullptr) a.id_n[r] = a.key_N[a.num_entries - 1];
    });
  }

  static FASTPOP_HD void finish(const RowSum& a, int64_t t) {
    if (t * a.chunk < a.num_entries) add_carries(a, t);
    if (t < a.num_rows && !a.only_repeats) pad(a, t);
  }
};

inline int64_t num_chunks(const RowSum& a) { return (a.num_entries + a.chunk - 1) / a.chunk; }

// One team after the other: for tests.
void row_sum_host(const RowSum& a);

// Of a build with CUDA. Runs on `stream` without a synchronisation. Null, or what went wrong.
const char* row_sum_cuda(const RowSum& a, uintptr_t stream);

}  // namespace fastpop
