// A counting sort by user, then each user's few events by time where they are not in order.
#include "event_order/event_order.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "prefetch.h"

namespace fastpop {
namespace {

constexpr int64_t kAhead = 16;  // rows whose destinations are prefetched

int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b < 0); }

double real_of(int64_t bits) {
  bits ^= (bits >> 63) & INT64_MAX;
  double value;
  std::memcpy(&value, &bits, 8);
  return value;
}

}  // namespace

void map_codes(const int32_t* map, int64_t size, int32_t* codes) {
  for (int64_t n = 0; n < size; ++n) {
    if (n + kAhead < size) prefetch(&map[std::max(codes[n + kAhead], 0)], sizeof(*map));
    codes[n] = codes[n] < 0 ? -1 : map[codes[n]];
  }
}

void count_events(const EventRows& rows, int64_t* count_U) {
  for (int64_t n = 0; n < rows.size; ++n)
    if (rows.fate == nullptr || rows.fate[n] == kKept) ++count_U[rows.user[n]];
}

EventRange::EventRange(const int64_t* offset_U, int64_t first, int64_t last, bool weighted)
    : offset_U_(offset_U),
      first_(first),
      last_(last),
      cursor_(static_cast<size_t>(last - first)),
      size_(offset_U[last] - offset_U[first]),
      events_(new Event[static_cast<size_t>(size_)]) {
  for (int64_t u = first; u < last; ++u) cursor_[u - first] = offset_U[u] - offset_U[first];
  if (weighted) weight_.resize(static_cast<size_t>(size_));
}

void EventRange::add(const EventRows& rows) {
  constexpr int kGroup = 64;
  int64_t row = rows.first_row;
  int64_t place[kGroup];
  int64_t source[kGroup];
  uint32_t number[kGroup];
  int held = 0;
  const auto write = [&] {
    for (int k = 0; k < held; ++k) {
      const int64_t n = source[k];
      events_[place[k]] = {rows.tick == nullptr ? 0 : rows.tick[n], number[k],
                           static_cast<uint32_t>(rows.item[n])};
      if (rows.weight != nullptr) weight_[place[k]] = rows.weight[n];
    }
    held = 0;
  };
  for (int64_t n = 0; n < rows.size; ++n) {
    const uint8_t fate = rows.fate == nullptr ? uint8_t{kKept} : rows.fate[n];
    if (fate == kRejected) continue;
    const int64_t at = row++;
    const int64_t user = rows.user[n];
    if (fate != kKept || user < first_ || user >= last_) continue;
    place[held] = cursor_[user - first_]++;
    prefetch<true>(&events_[place[held]], sizeof(Event));
    source[held] = n;
    number[held] = static_cast<uint32_t>(at);
    if (++held == kGroup) write();
  }
  write();
}

void EventRange::finish(int64_t first, int64_t last, int64_t per_second, bool real, double unit,
                        const EventColumns& out) {
  const auto earlier = [](const Event& a, const Event& b) {
    return a.tick != b.tick ? a.tick < b.tick : a.row < b.row;
  };
  std::vector<int64_t> order;
  std::vector<Event> sorted;
  std::vector<double> weight;
  const int64_t start = offset_U_[first] - offset_U_[first_];
  for (int64_t u = first; u < last; ++u) {
    const int64_t at = offset_U_[u] - offset_U_[first_];
    const int64_t size = offset_U_[u + 1] - offset_U_[u];
    Event* const events = events_.get() + at;
    std::fill_n(out.user + (at - start), size, u);
    if (std::is_sorted(events, events + size, earlier)) continue;
    if (weight_.empty()) {
      std::sort(events, events + size, earlier);
      continue;
    }
    double* const weights = weight_.data() + at;
    order.resize(static_cast<size_t>(size));
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(),
              [&](int64_t a, int64_t b) { return earlier(events[a], events[b]); });
    sorted.assign(events, events + size);
    weight.assign(weights, weights + size);
    for (int64_t k = 0; k < size; ++k) {
      events[k] = sorted[order[k]];
      weights[k] = weight[order[k]];
    }
  }
  const int64_t total = offset_U_[last] - offset_U_[first];
  const Event* const events = events_.get() + start;
  for (int64_t n = 0; n < total; ++n) {
    out.item[n] = events[n].item;
    out.row[n] = events[n].row;
  }
  for (int64_t n = 0; out.time != nullptr && n < total; ++n) {
    const int64_t tick = events[n].tick;
    out.time[n] = real              ? static_cast<int64_t>(std::floor(real_of(tick) * unit))
                  : per_second == 1 ? tick
                                    : floor_divide(tick, per_second);
  }
  if (out.weight != nullptr) std::copy_n(weight_.data() + start, total, out.weight);
}

}  // namespace fastpop
