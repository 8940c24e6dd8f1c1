// Texts → small whole numbers, in the order in which they are first seen.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "prefetch.h"

namespace fastpop {

// Bytes past its end are readable up to kPadding: a block is followed by so many.
struct Text {
  const char* data;
  uint32_t size;
};

constexpr int64_t kPadding = 64;
constexpr int32_t kMissing = -1;  // empty, or one of the null values
constexpr int32_t kNotUtf8 = -2;

// A text of up to 16 bytes is its own key; a longer one is its hash and a place in the arena.
struct Key {
  uint64_t lo, hi;
  uint32_t size;
  uint64_t hash;
};

class Intern {
 public:
  explicit Intern(std::vector<std::string> null_values);

  static Key key(Text text);
  void prefetch(const Key& key) const { fastpop::prefetch(&slots_[key.hash & mask_], sizeof(slots_[0])); }
  // The text's number, kMissing or kNotUtf8. `place` is kept for a text that is new.
  int32_t code(const Key& key, Text text, int64_t place);

  int64_t size() const { return static_cast<int64_t>(entries_.size()); }
  int64_t bytes() const;
  int64_t place(int64_t code) const { return entries_[code].place; }
  // Valid until the next call of either.
  std::string_view text(int64_t code) const;

 private:
  struct alignas(32) Slot {  // never astride two lines of the cache
    uint64_t lo, hi;
    uint32_t size;
    int32_t code;
  };
  struct Free {
    std::align_val_t alignment;
    void operator()(void* slots) const { ::operator delete(slots, alignment); }
  };
  struct Entry {
    uint64_t lo, hi;
    int64_t place;
    uint32_t size;
  };

  bool same(const Slot& slot, const Key& key, Text text) const;
  void resize(uint64_t slots);

  std::vector<std::string> null_values_;
  std::unique_ptr<Slot[], Free> slots_{nullptr, Free{std::align_val_t{64}}};
  uint64_t mask_ = 0;
  int64_t filled_ = 0;
  std::vector<Entry> entries_;
  std::vector<char> arena_;
};

bool is_utf8(std::string_view text);

}  // namespace fastpop
