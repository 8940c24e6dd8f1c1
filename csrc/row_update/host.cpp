// The GPU's algorithm on the CPU, lanes in a loop: slow, and what tests run where no GPU is.
#include "row_update/step.h"

namespace fastpop {

void row_update_host(const TableStep& a) {
  with_layout(a.table_VD.dtype, takes_vectors(a), a.D, [&](auto layout) {
    using Pass = TableStepPass<decltype(layout)>;
    for (int64_t i = 0; i < a.n; ++i) Pass::update(a, i);
  });
}

}  // namespace fastpop
