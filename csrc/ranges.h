// How n things are shared out among threads.
#pragma once

#include <algorithm>
#include <cstdint>

namespace fastpop {

inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

struct Range {
  int64_t first, last;
};

// [first, last) of part `i` of n things, in whole units.
inline Range part(int64_t n, int64_t unit, int i, int parts) {
  const int64_t units = (n + unit - 1) / unit;
  return {std::min(n, units * i / parts * unit), std::min(n, units * (i + 1) / parts * unit)};
}

}  // namespace fastpop
