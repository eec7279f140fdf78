// Short vectors of the compiler (GCC and Clang), and a loop that covers a channel range with them.
#pragma once

#include <cmath>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace dtn {

// Bytes of the widest pack: one register. The compiler would take wider ones through memory.
#if defined(__AVX512F__)
constexpr int kPackBytes = 64;
#elif defined(__AVX2__)
constexpr int kPackBytes = 32;
#else
constexpr int kPackBytes = 16;
#endif

template <class T, int N>
struct PackOf {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};

template <class T, int N>
using Pack = typename PackOf<T, N>::type;

template <int N>
struct Width {
  static constexpr int value = N;
};

template <int N, class T>
inline Pack<T, N> load(const T* source) {
  Pack<T, N> pack;
  std::memcpy(&pack, source, sizeof(pack));
  return pack;
}

template <int N, class T>
inline void store(T* target, Pack<T, N> pack) {
  std::memcpy(target, &pack, sizeof(pack));
}

// 1 / sqrt(value), lane by lane, to the last bit or two.
template <int N, class V>
inline V inverse_sqrt(V value) {
#if defined(__AVX512F__)
  // The estimate and one step of Newton's method: division and square root take several times as long.
  if constexpr (sizeof(V) == 64 && N == 16) {
    const V estimate = (V)_mm512_rsqrt14_ps((__m512)value);
    return estimate * (1.5f - 0.5f * value * estimate * estimate);
  }
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(V) == 32 && N == 8) {
    const V estimate = (V)_mm256_rsqrt_ps((__m256)value);
    return estimate * (1.5f - 0.5f * value * estimate * estimate);
  }
#endif
  V result;
  for (int lane = 0; lane < N; ++lane) result[lane] = 1 / std::sqrt(value[lane]);
  return result;
}

// Calls f(channel, Width<N>) for consecutive blocks of [begin, end): the widest packs first, single channels last.
template <class T, int N = kPackBytes / sizeof(T), class F>
inline void for_each_block(int begin, int end, F&& f) {
  int c = begin;
  for (; c + N <= end; c += N) f(c, Width<N>{});
  if constexpr (N > 1) {
    if (c < end) for_each_block<T, (N > 4 ? N / 2 : 1)>(c, end, f);
  }
}

// Sums in the lanes of one register: the compiler may not reorder a plain loop's additions, so it would add one by one.
template <class T>
class LaneSum {
 public:
  template <int N>
  void add(Pack<T, N> value) {
    if constexpr (N == kLanes) {
      lanes_ += value;
    } else {
      Pack<T, kLanes> padded{};
      std::memcpy(&padded, &value, sizeof(value));
      lanes_ += padded;
    }
  }
  T total() const {
    T halves[kLanes];
    store<kLanes>(halves, lanes_);
    for (int step = kLanes / 2; step > 0; step /= 2) {
      for (int i = 0; i < step; ++i) halves[i] += halves[i + step];
    }
    return halves[0];
  }

 private:
  static constexpr int kLanes = kPackBytes / sizeof(T);
  Pack<T, kLanes> lanes_{};
};

}  // namespace dtn
