// Sampled softmax for rows that have their own negatives: one warp per row.
//
// A row's K gathered table rows are read once forward and once backward, and used for nothing else, so
// memory binds, not arithmetic. Bytes per row: K (D s + 40) forward, s the item's size: 32 of the 40 are
// the sector of log p (32 more for log q, and a table row where ids are drawn, 8 of 32). FLOPs: 2 K D
// forward, 4 K D backward, .5 and 1 per byte at fp32, 1 and 2 at 16 bits, where a GPU has 20 to 300 per byte.
// B = 65,536, K = 1,024, D = 128, bf16: 17.2 GB of items alone, 5.7 ms each way at 3.0 TB/s, predicted.
//
// Who owns what: a warp owns a row. It walks its negatives 32 at a time: lane j fetches or draws
// negative j and its bias; teams of T lanes each take T of them, one after the other, several rows in
// flight. In registers: the query, E numbers a lane; the rows in flight, 32 numbers a lane at most;
// backward, d_query, E numbers a lane. No shared memory, no atomics, sums in a fixed order: bitwise
// repeatable.
#pragma once

#include <cmath>
#include <cstdint>

#include "alias_draw/alias_draw.h"
#include "lanes.h"
#include "online_lse.h"
#include "row_layout.h"
#include "sampled_softmax/logit.h"

namespace fastpop {

// Rows that share negatives, at most. A warp per row gathers again what its neighbours have in L1; from
// 16 rows on a matrix product does better.
constexpr int kMaxGroupSize = 8;

struct SampledRows {
  // Inputs: see kernels/sampled_softmax/reference.py, whose Inputs these are. All on the device.
  Matrix query_BD, item_VD;
  int64_t B, V, D, K, group_size;  // V < 2^31
  const int64_t* pos_id_B;
  const int64_t* neg_id_GK;     // or null: the ids are drawn from
  const AliasRow* table;        // this table under
  const uint64_t* counter_2;    // (seed, step)
  const int64_t* key_V;         // or null; equal keys are one item (accidental hits)
  const float* log_prior_V;     // or null
  const float* log_proposal_V;  // or null
  const float* prior_weight;
  const float* scale;
  double log_count;
  LogQ logq;
  bool drop_accidental_hits, exclude_diagonal;

  float* lse_B;        // forward: written. backward: read
  float* pos_logit_B;  // the same

  // Backward: upstream gradients, and what is wanted, or null.
  const float* d_lse_B;
  const float* d_pos_B;
  float* d_query_BD;  // contiguous
  double* d_scale_B;  // each row's share
  // Entries of the table's gradient, B positives first, then G x K negatives: the item of each, and
  // each row's coefficient for it (times the row's query and scale: the gradient of the item's row).
  int32_t* entry_id;
  float* coef_pos_B;
  float* coef_BK;
};

FASTPOP_HD bool in_range(int64_t id, int64_t V) { return id >= 0 && id < V; }

FASTPOP_HD int64_t key_of(const SampledRows& a, int64_t id) {
  return a.key_V != nullptr && in_range(id, a.V) ? a.key_V[id] : id;
}

// What a warp knows of its row before it reads a negative.
struct OneRow {
  int64_t b, group, pos_id, pos_key;
  double prior_weight;
  float scale;
  uint64_t seed, step;

  FASTPOP_HD OneRow(const SampledRows& a, int64_t row)
      : b(row),
        group(row / a.group_size),
        pos_id(a.pos_id_B[row]),
        pos_key(key_of(a, pos_id)),
        prior_weight(*a.prior_weight),
        scale(*a.scale),
        seed(a.counter_2 == nullptr ? 0 : a.counter_2[0]),
        step(a.counter_2 == nullptr ? 0 : a.counter_2[1]) {}
};

struct Candidate {
  int32_t id;  // in range always
  float bias;  // -inf: not there. NaN: the id was out of range, and so will the row's loss be
};

FASTPOP_HD int64_t negative_id(const SampledRows& a, const OneRow& row, int64_t k) {
  if (a.neg_id_GK != nullptr) return a.neg_id_GK[row.group * a.K + k];
  // Both lanes of a pair make the block that holds the words of both: no exchange, 1/100 of the work.
  const Words4 w =
      draw_words(row.seed, row.step, static_cast<uint32_t>(row.group), static_cast<uint32_t>(k / 2));
  const auto V = static_cast<uint32_t>(a.V);
  return k % 2 == 0 ? alias_pick(a.table, V, w.w0, w.w1) : alias_pick(a.table, V, w.w2, w.w3);
}

FASTPOP_HD double prior_at(const SampledRows& a, const OneRow& row, int64_t id) {
  return a.log_prior_V == nullptr ? 0.0 : prior_term(row.prior_weight, a.log_prior_V[id]);
}

FASTPOP_HD Candidate negative(const SampledRows& a, const OneRow& row, int64_t k) {
  if (k >= a.K) return {0, -HUGE_VALF};
  const int64_t id = negative_id(a, row, k);
  if (!in_range(id, a.V)) return {0, NAN};
  double bias = prior_at(a, row, id);
  if (a.log_proposal_V != nullptr) bias += negative_correction(a.log_proposal_V[id], a.log_count);
  const bool hit = a.drop_accidental_hits && key_of(a, id) == row.pos_key;
  const bool own = a.exclude_diagonal && k == row.b;
  return {static_cast<int32_t>(id), hit || own ? -HUGE_VALF : static_cast<float>(bias)};
}

FASTPOP_HD Candidate positive(const SampledRows& a, const OneRow& row) {
  if (!in_range(row.pos_id, a.V)) return {0, NAN};
  double bias = prior_at(a, row, row.pos_id);
  if (a.log_proposal_V != nullptr) bias += positive_correction(a.log_proposal_V[row.pos_id], a.logq);
  return {static_cast<int32_t>(row.pos_id), static_cast<float>(bias)};
}

template <class Layout>
struct RowPass {
  static constexpr int T = Layout::kLanes, E = Layout::kNumbers, kRows = Layout::kRows;
  using Warp = Lanes<32>;
  template <class X>
  using Per = PerLane<X, 32>;
  using Query = Per<Numbers<E>>;
  using Item = Per<typename Layout::Row>;

  static FASTPOP_HD void load_query(const Warp& warp, const SampledRows& a, int64_t b, Query& q) {
    warp.each([&](int lane) {
      FASTPOP_UNROLL
      for (int i = 0; i < E; ++i) {
        const int d = Layout::at(lane % T, i / Layout::kVec) + i % Layout::kVec;
        q[lane].x[i] = d < a.D ? number_at(a.query_BD, b, d) : 0.0f;
      }
    });
  }

  // <query, item> in every lane, and the item as the lanes of each team hold it.
  static FASTPOP_HD Per<float> dot_with(const Warp& warp, const SampledRows& a, int64_t id, const Query& q,
                                        Item& item) {
    Per<float> dot;
    warp.each([&](int lane) {
      Layout::load(a.item_VD, id, a.D, lane % T, item[lane]);
      dot[lane] = Layout::dot(item[lane], q[lane]);
    });
    warp.template sum<T>(dot);
    return dot;
  }

  static FASTPOP_HD void fetch(const Warp& warp, const SampledRows& a, const OneRow& row, int64_t k,
                               Per<int32_t>& id, Per<float>& bias) {
    warp.each([&](int lane) {
      const Candidate one = negative(a, row, k + lane);
      id[lane] = one.id;
      bias[lane] = one.bias;
    });
  }

  // use(s, item, dot): the team of lanes t T .. t T + T - 1 has the item of lane t T + s and its dot
  // product, for s = 0 .. T - 1 (fewer where fewer negatives are left).
  template <class Use>
  static FASTPOP_HD void walk(const Warp& warp, const SampledRows& a, const Per<int32_t>& id, int64_t left,
                              const Query& q, Use use) {
    const int steps = left < T ? static_cast<int>(left) : T;
    FASTPOP_NO_UNROLL
    for (int first = 0; first < steps; first += kRows) {
      Item item[kRows];
      Per<int32_t> of[kRows];
      FASTPOP_UNROLL
      for (int u = 0; u < kRows; ++u)
        of[u] = warp.from(id, [s = first + u](int lane) { return lane / T * T + s; });
      // Every load leaves before the first is waited for.
      FASTPOP_UNROLL
      for (int u = 0; u < kRows; ++u)
        warp.each([&](int lane) { Layout::load(a.item_VD, of[u][lane], a.D, lane % T, item[u][lane]); });
      FASTPOP_UNROLL
      for (int u = 0; u < kRows; ++u) {
        Per<float> dot;
        warp.each([&](int lane) { dot[lane] = Layout::dot(item[u][lane], q[lane]); });
        warp.template sum<T>(dot);
        use(first + u, item[u], dot);
      }
    }
  }

  // lse and pos_logit of row b.
  // 1. The query into registers; the positive's logit.
  // 2. 32 negatives at a time: ids and biases (of the next 32, while this one's rows are read), rows,
  //    dot products; lane j keeps logit j and adds it to its own online log-sum-exp.
  // 3. The lanes' sums merged; the positive joins last, as it is never dropped.
  static FASTPOP_HD void forward(const SampledRows& a, int64_t b) {
    const Warp warp;
    const OneRow row(a, b);
    Query q;
    load_query(warp, a, b, q);
    const Candidate pos = positive(a, row);
    Item pos_item;
    const Per<float> pos_dot = dot_with(warp, a, pos.id, q, pos_item);

    Per<OnlineLse> lse;
    warp.each([&](int lane) { lse[lane] = OnlineLse{}; });
    Per<int32_t> id, next_id;
    Per<float> bias, next_bias, dot_of_lane;
    fetch(warp, a, row, 0, next_id, next_bias);
    FASTPOP_NO_UNROLL
    for (int64_t k = 0; k < a.K; k += 32) {
      id = next_id;
      bias = next_bias;
      fetch(warp, a, row, k + 32, next_id, next_bias);
      warp.each([&](int lane) { dot_of_lane[lane] = 0; });
      walk(warp, a, id, a.K - k, q, [&](int s, const Item&, const Per<float>& dot) {
        warp.each([&](int lane) {
          if (lane % T == s) dot_of_lane[lane] = dot[lane];
        });
      });
      warp.each([&](int lane) { lse[lane].add(logit(row.scale, dot_of_lane[lane], bias[lane])); });
    }
    warp.template reduce<1, 32>(lse, [](OnlineLse& mine, const OnlineLse& other) { mine.merge(other); });

    warp.each([&](int lane) {
      if (lane != 0) return;
      const float pos_logit = logit(row.scale, pos_dot[lane], pos.bias);
      a.pos_logit_B[b] = pos_logit;
      a.lse_B[b] = static_cast<float>(log_add(lse[lane].log(), pos_logit));
    });
  }

  // Gradients of d_lse * lse + d_pos * pos_logit of row b.
  // 1. As forward, but each logit becomes g = d_lse * exp(logit - lse) at once, and the row that made
  //    it, still in registers, adds g * item to the team's part of d_query.
  // 2. Lane j keeps g of negative j and writes it, with the id, for the table's gradient.
  // 3. The teams' parts of d_query are summed; the positive's share joins; written once.
  // A row without a gradient (a removed positive, an ignored row) reads no item.
  static FASTPOP_HD void backward(const SampledRows& a, int64_t b) {
    const Warp warp;
    const OneRow row(a, b);
    const float lse = a.lse_B[b], pos_logit = a.pos_logit_B[b];
    const float d_lse = a.d_lse_B[b], d_pos = a.d_pos_B[b];
    const bool live = std::isfinite(lse) && std::isfinite(pos_logit) && (d_lse != 0 || d_pos != 0);
    const float g_pos = live ? d_lse * std::exp(pos_logit - lse) + d_pos : 0.0f;
    const bool first_of_group = b % a.group_size == 0;
    const bool wants_query = a.d_query_BD != nullptr;
    const Candidate pos = positive(a, row);

    Query q, d_query;
    Per<double> d_scale;
    load_query(warp, a, b, q);
    warp.each([&](int lane) {
      d_scale[lane] = 0;
      FASTPOP_UNROLL
      for (int i = 0; i < E; ++i) d_query[lane].x[i] = 0;
    });

    Per<int32_t> id;
    Per<float> bias, g_of_lane;
    FASTPOP_NO_UNROLL
    for (int64_t k = 0; k < a.K; k += 32) {
      fetch(warp, a, row, k, id, bias);
      warp.each([&](int lane) { g_of_lane[lane] = 0; });
      if (live) {
        walk(warp, a, id, a.K - k, q, [&](int s, const Item& item, const Per<float>& dot) {
          const Per<float> bias_s = warp.from(bias, [s](int lane) { return lane / T * T + s; });
          warp.each([&](int lane) {
            const float z = logit(row.scale, dot[lane], bias_s[lane]);
            const float g = d_lse * std::exp(z - lse);
            // A removed item's row may hold anything.
            if (wants_query && g != 0) Layout::axpy(g, item[lane], d_query[lane]);
            if (lane % T == s) {
              g_of_lane[lane] = g;
              if (g != 0) d_scale[lane] += static_cast<double>(g) * dot[lane];
            }
          });
        });
      }
      warp.each([&](int lane) {
        if (k + lane >= a.K) return;
        if (a.coef_BK != nullptr) a.coef_BK[b * a.K + k + lane] = g_of_lane[lane];
        if (a.entry_id != nullptr && first_of_group) a.entry_id[a.B + row.group * a.K + k + lane] = id[lane];
      });
    }
    warp.each([&](int lane) {
      if (lane != 0) return;
      if (a.coef_pos_B != nullptr) a.coef_pos_B[b] = g_pos;
      if (a.entry_id != nullptr) a.entry_id[b] = pos.id;
    });

    if (!wants_query && a.d_scale_B == nullptr) return;
    Item pos_item;
    const Per<float> pos_dot = dot_with(warp, a, pos.id, q, pos_item);
    warp.template sum<32>(d_scale);
    warp.template reduce<T, 32>(d_query, [](Numbers<E>& mine, const Numbers<E>& other) {
      FASTPOP_UNROLL
      for (int i = 0; i < E; ++i) mine.x[i] += other.x[i];
    });
    warp.each([&](int lane) {
      if (lane == 0 && a.d_scale_B != nullptr)
        a.d_scale_B[b] =
            g_pos == 0 ? d_scale[lane] : d_scale[lane] + static_cast<double>(g_pos) * pos_dot[lane];
      if (lane >= T || !wants_query) return;
      if (g_pos != 0) Layout::axpy(g_pos, pos_item[lane], d_query[lane]);
      FASTPOP_UNROLL
      for (int i = 0; i < E; ++i) d_query[lane].x[i] *= row.scale;
      Layout::store_floats(a.d_query_BD + b * a.D, a.D, lane, d_query[lane]);
    });
  }
};

// Every row of a, one after the other, as a GPU's warps would: for tests.
void sampled_rows_host(const SampledRows& a, bool backward);

// Of a build with CUDA. Runs on `stream` without a synchronisation. Null, or what went wrong.
const char* sampled_rows_cuda(const SampledRows& a, bool backward, uintptr_t stream);

}  // namespace fastpop
