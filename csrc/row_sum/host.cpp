// The GPU's algorithm on the CPU, lanes in a loop: slow, and what tests run where no GPU is.
#include "row_sum/row_sum.h"

namespace fastpop {

void row_sum_host(const RowSum& a) {
  if (a.num_entries == 0) return;
  with_layout(a.rows.dtype, takes_vectors(a.rows, a.D), a.D, [&](auto layout) {
    using Pass = RowSumPass<decltype(layout)>;
    const int64_t chunks = num_chunks(a);
    // Backwards: no chunk may lean on one before it.
    for (int64_t c = chunks - 1; c >= 0; --c) Pass::sum_chunk(a, c);
    const int64_t teams = chunks > a.num_rows ? chunks : a.num_rows;
    for (int64_t t = teams - 1; t >= 0; --t) Pass::finish(a, t);
  });
}

}  // namespace fastpop
