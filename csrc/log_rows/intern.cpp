// An open-addressing table whose slots hold short texts themselves: one cache miss per lookup.
#include "log_rows/intern.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstddef>
#include <new>

namespace fastpop {
namespace {

constexpr uint32_t kShort = 16;
constexpr int32_t kFree = -3;

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

Intern::Intern(std::vector<std::string> null_values) : null_values_(std::move(null_values)) {
  resize(uint64_t{1} << 12);
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
  return std::memcmp(arena_.data() + slot.hi, text.data, text.size) == 0;
}

int32_t Intern::code(const Key& key, Text text, int64_t place) {
  uint64_t at = key.hash & mask_;
  for (; slots_[at].code != kFree; at = (at + 1) & mask_)
    if (same(slots_[at], key, text)) return slots_[at].code;
  const std::string_view view(text.data, text.size);
  Slot slot{key.lo, key.hi, key.size, 0};
  if (key.size > kShort) {
    slot.hi = arena_.size();
    arena_.insert(arena_.end(), text.data, text.data + text.size);
  }
  if (std::find(null_values_.begin(), null_values_.end(), view) != null_values_.end()) {
    slot.code = kMissing;
  } else if (!is_utf8(view)) {
    slot.code = kNotUtf8;
  } else {
    slot.code = static_cast<int32_t>(entries_.size());
    entries_.push_back({slot.lo, slot.hi, place, slot.size});
  }
  slots_[at] = slot;
  if (5 * static_cast<uint64_t>(++filled_) > 3 * (mask_ + 1)) resize(2 * (mask_ + 1));
  return slot.code;
}

void Intern::resize(uint64_t slots) {
  const std::unique_ptr<Slot[], Free> old = std::move(slots_);
  const uint64_t old_slots = mask_ == 0 ? 0 : mask_ + 1;
  constexpr size_t kHugePage = size_t{1} << 21;
  const size_t bytes = slots * sizeof(Slot);
  const std::align_val_t alignment{bytes < kHugePage ? 64 : kHugePage};
  void* const fresh = ::operator new(bytes, alignment);
#if defined(__linux__)
  if (bytes >= kHugePage) madvise(fresh, bytes, MADV_HUGEPAGE);  // lookups jump about: spare the TLB
#endif
  slots_ = {static_cast<Slot*>(fresh), Free{alignment}};
  std::fill_n(slots_.get(), slots, Slot{0, 0, 0, kFree});
  mask_ = slots - 1;
  for (uint64_t n = 0; n < old_slots; ++n) {
    const Slot& slot = old[n];
    if (slot.code == kFree) continue;
    const uint64_t hash = slot.size > kShort ? slot.lo : mix(slot.lo ^ kSeed, slot.hi ^ kStep ^ slot.size);
    uint64_t at = hash & mask_;
    while (slots_[at].code != kFree) at = (at + 1) & mask_;
    slots_[at] = slot;
  }
}

int64_t Intern::bytes() const {
  return static_cast<int64_t>((mask_ + 1) * sizeof(Slot) + entries_.capacity() * sizeof(Entry) +
                              arena_.capacity());
}

std::string_view Intern::text(int64_t code) const {
  const Entry& entry = entries_[code];
  if (entry.size > kShort) return {arena_.data() + entry.hi, entry.size};
  // lo and hi lie side by side, in the order of the text's bytes
  static_assert(offsetof(Entry, hi) == offsetof(Entry, lo) + 8);
  return {reinterpret_cast<const char*>(&entry.lo), entry.size};
}

}  // namespace fastpop
