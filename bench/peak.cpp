// What one core's multiply-adds can do at most, in loops of nothing else:
//   g++ -O3 -march=native bench/peak.cpp -o peak && ./peak
#include <immintrin.h>

#include <cstdio>
#include <ctime>

#if !defined(__AVX512F__)
#error "measures AVX-512: this processor has none"
#endif

namespace {

constexpr int kSums = 24;
constexpr long kRounds = 20'000'000;

double seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec + now.tv_nsec * 1e-9;
}

template <typename Step>
void report(const char* name, int operations, Step step) {
  __m512 sum[kSums];
  for (auto& one : sum) one = _mm512_setzero_ps();
  const double start = seconds();
  for (long n = 0; n < kRounds; ++n) {
#pragma GCC unroll 24
    for (int i = 0; i < kSums; ++i) sum[i] = step(sum[i]);
    asm volatile("" ::"x"(sum[0]));
  }
  const double took = seconds() - start;
  float all = 0;
  for (auto& one : sum) all += _mm512_reduce_add_ps(one);
  std::printf("%-16s %6.0f GFLOP/s a core (%g)\n", name, kRounds * double(kSums) * operations / took / 1e9,
              all);
}

}  // namespace

int main() {
  const __m512 x = _mm512_set1_ps(1.0f), y = _mm512_set1_ps(1e-3f);
  report("float32", 32, [&](__m512 sum) { return _mm512_fmadd_ps(x, y, sum); });
#if defined(__AVX512BF16__)
  const auto pair = (__m512bh)_mm512_set1_epi32(0x3f803f80);
  report("bfloat16 pairs", 64, [&](__m512 sum) { return _mm512_dpbf16_ps(sum, pair, pair); });
#endif
}
