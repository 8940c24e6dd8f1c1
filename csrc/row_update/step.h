// One optimiser step on the touched rows of a table, in place: a team of lanes per row.
//
// Entries are sorted by id. An id makes one step, whatever number of entries it has: its gradient is
// that of its only entry, read where it lies, or the sum that row_sum made of several. Two steps would
// differ from one on the sum, and a second step of Adam on zeros (a device pads its gradients with
// repeats of the last id and zeros) would move the row.
//
// Who owns what: the team of an id's first sorted entry owns the table's row and its state; nobody else
// reads or writes them. In registers: the gradient's row, the table's, the first moment, E numbers a lane
// each. Bytes per row, ids that come once: D (r + 2 s) for SGD, r the size of the gradient's numbers, s of
// the table's; 8 more for Adagrad, 8 D + 24 for Adam; 2 to 10 FLOPs a number: memory binds. n = 1M rows, D =
// 128, fp32: 1.5 GB SGD and Adagrad, 2.6 GB Adam, predicted .5 and .9 ms at 3.0 TB/s.
#pragma once

#include <cmath>
#include <cstdint>

#include "lanes.h"
#include "row_layout.h"
#include "row_update/rule.h"

namespace fastpop {

struct TableStep {
  int64_t n, V, D;
  Matrix table_VD;           // changed
  const int64_t* id_n;       // in order, the first row of an id its whole gradient; or null, and then:
  const int32_t* key_n;      // sorted ids
  const int64_t* place_n;    // where each stood before the sort
  const int32_t* segment_n;  // how many different ids stand before
  Matrix rows_nD;            // contiguous; the table's dtype or fp32
  const float* sum_nD;       // of ids that come again: row segment_n. Contiguous
  float* mean_VD;            // columns side by side; Adam
  int64_t mean_stride;
  float* square_V;  // Adagrad and Adam
  int64_t* step_V;  // Adam
  RowRule rule;
  float lr, eps;
  float rest_mean, rest_square;  // 1 - beta
  double log_beta_mean, log_beta_square;
  const float* found_inf;  // no step where it is not 0; or null
};

FASTPOP_HD int64_t id_at(const TableStep& a, int64_t i) { return a.id_n == nullptr ? a.key_n[i] : a.id_n[i]; }

FASTPOP_HD int64_t place_of(const TableStep& a, int64_t i) { return a.id_n == nullptr ? a.place_n[i] : i; }

// Whether 16-byte loads fit everything that lies in rows.
inline bool takes_vectors(const TableStep& a) {
  const bool wide = a.rows_nD.dtype == Dtype::f32;
  return takes_vectors(a.table_VD, a.D) && takes_vectors(a.rows_nD, a.D) && a.mean_stride % 4 == 0 &&
         (wide || a.rows_nD.dtype == a.table_VD.dtype) &&
         (reinterpret_cast<uintptr_t>(a.mean_VD) | reinterpret_cast<uintptr_t>(a.sum_nD)) % 16 == 0;
}

// 1 - beta^t, without the cancellation of the plain form where beta is near 1.
FASTPOP_HD float one_minus_power(double log_beta, int64_t t) {
  return -std::expm1(static_cast<float>(log_beta * static_cast<double>(t)));
}

template <class Layout>
struct TableStepPass {
  static constexpr int T = Layout::kLanes, E = Layout::kNumbers;
  using Team = Lanes<T>;

  // The gradient of the id of sorted entry i.
  static FASTPOP_HD void load_gradient(const TableStep& a, int64_t i, bool again, int lane, Numbers<E>& g) {
    if (again) {
      Layout::load_floats(a.sum_nD + a.segment_n[i] * a.D, a.D, lane, g);
    } else if (a.rows_nD.dtype == Dtype::f32 && a.table_VD.dtype != Dtype::f32) {
      const float* rows = static_cast<const float*>(a.rows_nD.data);
      Layout::load_floats(rows + place_of(a, i) * a.D, a.D, lane, g);
    } else {
      typename Layout::Row row;
      Layout::load(a.rows_nD, place_of(a, i), a.D, lane, row);
      FASTPOP_UNROLL
      for (int n = 0; n < E; ++n) g.x[n] = 0;
      Layout::axpy(1.0f, row, g);
    }
  }

  // Sorted entry i.
  // 1. Its rows into registers, all loads at once.
  // 2. Adagrad, Adam: the mean square of the gradient over the team, the row's new state.
  // 3. The step, in fp32; the table's row rounded once and written.
  static FASTPOP_HD void update(const TableStep& a, int64_t i) {
    const Team team;
    const int64_t id = id_at(a, i);
    if (i > 0 && id_at(a, i - 1) == id) return;
    if (id < 0 || id >= a.V) return;
    if (a.found_inf != nullptr && *a.found_inf != 0) return;
    const bool again = a.id_n == nullptr && i + 1 < a.n && a.key_n[i + 1] == id;

    PerLane<Numbers<E>, T> g, mean;
    PerLane<typename Layout::Row, T> row;
    PerLane<float, T> square;
    team.each([&](int lane) {
      Layout::template load<true>(a.table_VD, id, a.D, lane, row[lane]);
      load_gradient(a, i, again, lane, g[lane]);
      if (a.rule == RowRule::adam) Layout::load_floats(a.mean_VD + id * a.mean_stride, a.D, lane, mean[lane]);
      square[lane] = 0;
      FASTPOP_UNROLL
      for (int n = 0; n < E; ++n) square[lane] += g[lane].x[n] * g[lane].x[n];
    });

    float factor = a.lr, mean_factor = 0;
    if (a.rule != RowRule::sgd) {
      team.template sum<T>(square);
      const float before = a.square_V[id];
      const int64_t step = a.rule == RowRule::adam ? a.step_V[id] + 1 : 0;
      team.each([&](int lane) {
        float after = square[lane] / static_cast<float>(a.D);
        if (a.rule == RowRule::adagrad) {
          after += before;
          factor = a.lr / (std::sqrt(after) + a.eps);
        } else {
          after = before + a.rest_square * (after - before);
          const float hat = after / one_minus_power(a.log_beta_square, step);
          mean_factor = a.rest_mean;
          factor = a.lr / one_minus_power(a.log_beta_mean, step) / (std::sqrt(hat) + a.eps);
        }
        if (lane != 0) return;
        a.square_V[id] = after;
        if (a.rule == RowRule::adam) a.step_V[id] = step;
      });
    }
    team.each([&](int lane) {
      Numbers<E>& step = g[lane];
      if (a.rule == RowRule::adam) {
        FASTPOP_UNROLL
        for (int n = 0; n < E; ++n) step.x[n] = mean[lane].x[n] + mean_factor * (step.x[n] - mean[lane].x[n]);
        Layout::store_floats(a.mean_VD + id * a.mean_stride, a.D, lane, step);
      }
      Layout::subtract(factor, step, row[lane]);
      Layout::store(a.table_VD, id, a.D, lane, row[lane]);
    });
  }
};

// One team after the other: for tests.
void row_update_host(const TableStep& a);

// Of a build with CUDA. Runs on `stream` without a synchronisation. Null, or what went wrong.
const char* row_update_cuda(const TableStep& a, uintptr_t stream);

}  // namespace fastpop
