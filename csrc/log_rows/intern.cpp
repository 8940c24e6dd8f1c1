// An open-addressing table whose slots hold short texts themselves: one cache miss per lookup.
#include "log_rows/intern.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace fastpop {
namespace {

constexpr uint32_t kShort = 16;
constexpr size_t kHugePage = size_t{1} << 21;
constexpr uint64_t kFewest = uint64_t{1} << 12;  // slots

uint64_t load(const char* data) {
  uint64_t word;
  std::memcpy(&word, data, 8);
  return word;
}

uint64_t first_bytes(uint64_t word, uint32_t count) {
  return count == 0 ? 0 : word & (~uint64_t{0} >> (64 - 8 * count));
}

uint64_t mix(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

constexpr uint64_t kSeed = 0xa0761d6478bd642full;
constexpr uint64_t kStep = 0xe7037ed1a0b428dbull;

uint64_t long_hash(Text text) {
  uint64_t hash = kSeed ^ text.size;
  uint32_t at = 0;
  for (; at + 16 <= text.size; at += 16)
    hash = mix(load(text.data + at) ^ kStep, load(text.data + at + 8) ^ hash);
  const char* tail = text.data + text.size - 16;  // overlaps what was read: as good
  return mix(load(tail) ^ kStep, load(tail + 8) ^ hash);
}

}  // namespace

bool is_utf8(std::string_view text) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  const auto* const end = p + text.size();
  while (p < end) {
    if (*p < 0x80) {
      ++p;
      continue;
    }
    const int more = *p >= 0xf0 ? 3 : *p >= 0xe0 ? 2 : 1;
    if (*p < 0xc2 || *p > 0xf4 || end - p <= more) return false;
    // overlong forms, surrogates and what lies beyond U+10FFFF
    if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90) ||
        (*p == 0xf4 && p[1] > 0x8f))
      return false;
    for (int k = 1; k <= more; ++k)
      if ((p[k] & 0xc0) != 0x80) return false;
    p += more + 1;
  }
  return true;
}

#if defined(__linux__)
Intern::Table::Table(uint64_t slots) : bytes_(slots * sizeof(Slot)) {
  const size_t spare = bytes_ < kHugePage ? 0 : kHugePage;
  void* const got = mmap(nullptr, bytes_ + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (got == MAP_FAILED) throw std::bad_alloc();
  auto* first = static_cast<char*>(got);
  if (spare > 0) {  // cut to where huge pages begin: lookups jump about, which spares the TLB
    const size_t before = (kHugePage - reinterpret_cast<uintptr_t>(first) % kHugePage) % kHugePage;
    if (before > 0) munmap(first, before);
    first += before;
    munmap(first + bytes_, spare - before);
    madvise(first, bytes_, MADV_HUGEPAGE);
  }
  data_ = reinterpret_cast<Slot*>(first);
}

Intern::Table::~Table() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

void Intern::Table::done_before(uint64_t n) {
  const size_t bytes = n * sizeof(Slot);
  if (bytes > 0 && bytes % kHugePage == 0)
    madvise(reinterpret_cast<char*>(data_) + bytes - kHugePage, kHugePage, MADV_DONTNEED);
}
#else  // both tables are in memory whole while one grows
constexpr auto kOnLines = std::align_val_t{kLine};

Intern::Table::Table(uint64_t slots) : bytes_(slots * sizeof(Slot)) {
  data_ = static_cast<Slot*>(::operator new(bytes_, kOnLines));
  std::memset(static_cast<void*>(data_), 0, bytes_);
}

Intern::Table::~Table() { ::operator delete(data_, kOnLines); }

void Intern::Table::done_before(uint64_t) {}
#endif

Intern::Intern(std::vector<std::string> null_values) : null_values_(std::move(null_values)) {
  resize(kFewest);
}

Key Intern::key(Text text) {
  if (text.size > kShort) {
    const uint64_t hash = long_hash(text);
    return {hash, 0, text.size, hash};
  }
  const uint64_t lo = first_bytes(load(text.data), std::min(text.size, 8u));
  const uint64_t hi = text.size > 8 ? first_bytes(load(text.data + 8), text.size - 8) : 0;
  return {lo, hi, text.size, mix(lo ^ kSeed, hi ^ kStep ^ text.size)};
}

bool Intern::same(const Slot& slot, const Key& key, Text text) const {
  if (slot.size != key.size || slot.lo != key.lo) return false;
  if (key.size <= kShort) return slot.hi == key.hi;
  return std::memcmp(arena_.get() + slot.hi, text.data, text.size) == 0;
}

int32_t Intern::code(const Key& key, Text text, int64_t place) {
  uint64_t at = key.hash & mask_;
  for (; table_[at].mark != 0; at = (at + 1) & mask_)
    if (same(table_[at], key, text)) return table_[at].mark - kFirst;
  const std::string_view view(text.data, text.size);
  Slot slot{key.lo, key.hi, place, key.size, 0};
  if (key.size > kShort) slot.hi = static_cast<uint64_t>(keep(text));
  int32_t code = kMissing;
  if (std::find(null_values_.begin(), null_values_.end(), view) == null_values_.end())
    code = is_utf8(view) ? static_cast<int32_t>(size_++) : kNotUtf8;
  slot.mark = code + kFirst;
  table_[at] = slot;
  if (5 * static_cast<uint64_t>(++filled_) > 3 * (mask_ + 1)) resize(2 * (mask_ + 1));
  return code;
}

int64_t Intern::keep(Text text) {
  if (arena_size_ + text.size > arena_room_) {
    const int64_t room = std::max(2 * arena_room_, arena_size_ + int64_t{text.size} + (int64_t{1} << 12));
    char* const grown = static_cast<char*>(std::realloc(arena_.get(), static_cast<size_t>(room)));
    if (grown == nullptr) throw std::bad_alloc();
    (void)arena_.release();
    arena_.reset(grown);
    arena_room_ = room;
  }
  std::memcpy(arena_.get() + arena_size_, text.data, text.size);
  arena_size_ += text.size;
  return arena_size_ - text.size;
}

// Slots of the old table go to two places that move on through the new one, so both are in memory together
// no further than their parts that are in use: never more than the new one takes.
void Intern::resize(uint64_t slots) {
  const uint64_t old_slots = mask_ == 0 ? 0 : mask_ + 1;
  Table fresh(slots);
  Table old = std::move(table_);
  table_ = std::move(fresh);
  mask_ = slots - 1;
  for (uint64_t n = 0; n < old_slots; ++n) {
    old.done_before(n);
    const Slot& slot = old[n];
    if (slot.mark == 0) continue;
    const uint64_t hash = slot.size > kShort ? slot.lo : mix(slot.lo ^ kSeed, slot.hi ^ kStep ^ slot.size);
    uint64_t at = hash & mask_;
    while (table_[at].mark != 0) at = (at + 1) & mask_;
    table_[at] = slot;
  }
}

void Intern::clear() {
  mask_ = 0;
  filled_ = size_ = arena_size_ = arena_room_ = 0;
  arena_.reset();
  resize(kFewest);
}

std::string_view Intern::text(uint64_t slot) const {
  const Slot& held = table_[slot];
  if (held.size > kShort) return {arena_.get() + held.hi, held.size};
  // lo and hi lie side by side, in the order of the text's bytes
  static_assert(offsetof(Slot, hi) == offsetof(Slot, lo) + 8);
  return {reinterpret_cast<const char*>(&held.lo), held.size};
}

}  // namespace fastpop
