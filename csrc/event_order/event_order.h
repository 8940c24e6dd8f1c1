// Events of a range of users, sorted by user, time and row. See kernels/event_order.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace fastpop {

// Rows of the source as they come; null columns are absent.
struct EventRows {
  int64_t size = 0;
  int64_t first_row = 0;  // number of the first row, rejected rows not counted
  const int32_t* user = nullptr;
  const int32_t* item = nullptr;
  const int64_t* tick = nullptr;
  const double* weight = nullptr;
  const uint8_t* fate = nullptr;  // kKept, kDropped, kRejected; null: all are kept
};

enum EventFate : uint8_t { kKept = 0, kDropped = 1, kRejected = 2 };

// Replaces codes by `map[code]`, -1 by itself.
void map_codes(const int32_t* map, int64_t size, int32_t* codes);

// Adds the kept rows of each user to `count_U`.
void count_events(const EventRows& rows, int64_t* count_U);

// Where sorted events go; null columns are not written.
struct EventColumns {
  int64_t* user = nullptr;
  int64_t* item = nullptr;
  int64_t* time = nullptr;
  double* weight = nullptr;
  int64_t* row = nullptr;
};

class EventRange {
 public:
  // Users [first, last); `offset_U` has one more entry than the log has users.
  EventRange(const int64_t* offset_U, int64_t first, int64_t last, bool weighted);

  // Blocks are added in the order of the source.
  void add(const EventRows& rows);
  // Sorts and writes users [first, last) of the range. `real`: ticks are doubles as `ordered_bits`
  // made them. Seconds are floor(tick / per_second), or floor(tick * unit) of a real tick.
  void finish(int64_t first, int64_t last, int64_t per_second, bool real, double unit,
              const EventColumns& out);

 private:
  struct Event {
    int64_t tick;
    uint32_t row, item;
  };
  const int64_t* offset_U_;
  int64_t first_, last_;
  std::vector<int64_t> cursor_;  // of each user of the range: where the next event goes
  int64_t size_;
  std::unique_ptr<Event[]> events_;  // not filled with zeros first
  std::vector<double> weight_;
};

}  // namespace fastpop
