// Texts → small whole numbers, in the order in which they are first seen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
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
  void prefetch(const Key& key) const { fastpop::prefetch(&table_[key.hash & mask_], sizeof(Slot)); }
  // The text's number, kMissing or kNotUtf8. `place` is kept for a text that is new.
  int32_t code(const Key& key, Text text, int64_t place);

  int64_t size() const { return size_; }
  // What is resident: 32 bytes a slot, of which three fifths at most are taken, and texts of more than 16.
  int64_t bytes() const { return static_cast<int64_t>((mask_ + 1) * sizeof(Slot)) + arena_size_; }
  // fn(code, text, place, slot) of every text that has a number, in no order that means anything.
  template <typename Fn>
  void each(const Fn& fn) const {
    for (uint64_t n = 0; n <= mask_; ++n)
      if (table_[n].mark >= kFirst) fn(code_of(n), text(n), table_[n].place, n);
  }
  // Of a slot. The text is valid until the next `code` or `clear`.
  std::string_view text(uint64_t slot) const;
  int32_t code_of(uint64_t slot) const { return table_[slot].mark - kFirst; }
  // Forgets all texts and gives their memory back.
  void clear();

 private:
  static constexpr int32_t kFirst = 3;  // mark of code 0; 0: free, as fresh pages are
  struct Slot {                         // never astride two lines of the cache
    uint64_t lo, hi;
    int64_t place;
    uint32_t size;
    int32_t mark;
  };
  static_assert(sizeof(Slot) == 32);
  // Zeros that are in memory only once they were written to.
  class Table {
   public:
    Table() = default;
    explicit Table(uint64_t slots);
    Table(Table&& other) noexcept { swap(other); }
    Table& operator=(Table&& other) noexcept {
      swap(other);
      return *this;
    }
    ~Table();
    Slot& operator[](uint64_t n) { return data_[n]; }
    const Slot& operator[](uint64_t n) const { return data_[n]; }
    // Slots before `n` are not read again: their pages may go, some megabytes at a time.
    void done_before(uint64_t n);

   private:
    void swap(Table& other) {
      std::swap(data_, other.data_);
      std::swap(bytes_, other.bytes_);
    }
    Slot* data_ = nullptr;
    size_t bytes_ = 0;
  };
  struct Free {
    void operator()(char* data) const { std::free(data); }
  };

  bool same(const Slot& slot, const Key& key, Text text) const;
  void resize(uint64_t slots);
  int64_t keep(Text text);

  std::vector<std::string> null_values_;
  Table table_;
  uint64_t mask_ = 0;
  int64_t filled_ = 0, size_ = 0;
  std::unique_ptr<char[], Free> arena_;  // grown by realloc, which moves pages instead of copying them
  int64_t arena_size_ = 0, arena_room_ = 0;
};

bool is_utf8(std::string_view text);

}  // namespace fastpop
