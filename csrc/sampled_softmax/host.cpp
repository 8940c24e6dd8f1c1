// The GPU's algorithm on the CPU, lanes in a loop: slow, and what tests run where no GPU is.
#include "sampled_softmax/rows.h"

namespace fastpop {

void sampled_rows_host(const SampledRows& a, bool backward) {
  with_layout(a.item_VD.dtype, takes_vectors(a.item_VD, a.D), a.D, [&](auto layout) {
    using Pass = RowPass<decltype(layout)>;
    for (int64_t b = 0; b < a.B; ++b) {
      if (backward) {
        Pass::backward(a, b);
      } else {
        Pass::forward(a, b);
      }
    }
  });
}

}  // namespace fastpop
