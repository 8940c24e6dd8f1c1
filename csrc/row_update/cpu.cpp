// One optimiser step on the touched rows of a table, in place, duplicates summed first.
//
// 1. Are the ids in order? One pass; in order, the ends alone say whether all are in range.
// 2. If not: range check and a stable radix sort of (id, slot), 11 bits a pass.
// 3. The ids in order are cut at starts of runs of equal ids, and threads take the parts as they come: a
//    run's gradients are summed in the order they came, its row and state read once and written once.
//    No atomics, and the same sums in the same order on any number of threads.
// Cost: 4 D operations a touched row (Adam 7 D), D for each further gradient of it. Bytes, of a
// float32 table: 4 D (n + 2 touched) and the state, 8 per row (Adagrad) or 8 D + 24 (Adam). The sort:
// 32 bytes per id of workspace. Rows far apart cost a page walk each: from memory (a table out of
// cache, pages of 4 KiB) that is most of the time.
#include "row_update/row_update.h"

#include <algorithm>
#include <vector>

#include "mutant.h"
#include "team.h"
#include "workspace.h"

namespace fastpop {
namespace {

// Numbers below which waking a team costs more than it saves.
constexpr int64_t kFewNumbers = 1 << 15;

Powers powers_of(double base) {
  Powers p;
  p.base = base;
  double digit = base;  // base^(64^row)
  for (auto& row : p.of) {
    row[0] = 1;
    for (int i = 1; i < Powers::kBase; ++i) row[i] = row[i - 1] * digit;
    digit *= row[Powers::kBase - 1];
  }
  return p;
}

int64_t first_out_of_range(const int64_t* ids, int64_t n, int64_t V) {
  for (int64_t k = 0; k < n; ++k)
    if (ids[k] < 0 || ids[k] >= V) return k;
  return -1;
}

int64_t id_in_order(const RowUpdate& a, int64_t k) {
  return a.order_n == nullptr ? a.id_n[k] : static_cast<int64_t>(a.order_n[k].key);
}

// Where a part that should start at k does: never inside a run of equal ids.
int64_t start_of(const RowUpdate& a, int64_t k) {
  while (k > 0 && k < a.n && MUTANT(12, false, id_in_order(a, k) == id_in_order(a, k - 1))) ++k;
  return k;
}

}  // namespace

int64_t row_update_cpu(RowUpdate a, const Tile& tile) {
  if (a.n == 0) return -1;
  Workspace memory;
  a.order_n = nullptr;
  if (tile.ascends(a.id_n, a.n)) {
    if (a.id_n[0] < 0 || a.id_n[a.n - 1] >= a.V) return first_out_of_range(a.id_n, a.n, a.V);
  } else {
    const int64_t bad = first_out_of_range(a.id_n, a.n, a.V);
    if (bad >= 0) return bad;
    auto* items = memory.make<SortItem>(2 * a.n);
    for (int64_t k = 0; k < a.n; ++k) items[k] = {static_cast<uint64_t>(a.id_n[k]), static_cast<uint32_t>(k)};
    a.order_n = radix_sort(items, items + a.n, a.n, a.V);
  }
  Powers beta1_power, beta2_power;
  if (a.rule == RowRule::adam) {
    beta1_power = powers_of(a.beta1);
    beta2_power = powers_of(a.beta2);
    a.beta1_power = &beta1_power;
    a.beta2_power = &beta2_power;
  }
  const int threads = a.n * a.D < kFewNumbers ? 1 : a.threads;
  float* scratch = memory.make<float>(threads * 2 * a.D - MUTANT(17, 1, 0));
  const int64_t least = kFewNumbers / a.D + 1;
  in_parts(threads, a.n, 1, least, a.n, [&](int64_t first, int64_t last, int me) {
    tile.update_rows(a, start_of(a, first), start_of(a, last), scratch + me * 2 * a.D);
  });
  return -1;
}

}  // namespace fastpop
