// Short vectors of the compiler (GCC and Clang), and a loop that covers a channel range with them.
#pragma once

#include <cmath>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace dtn {

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

// Calls f(channel, Width<N>) for consecutive blocks of [begin, end): 64 bytes wide first, single channels last.
template <class T, class F>
inline void for_each_block(int begin, int end, F&& f) {
  constexpr int wide = 64 / sizeof(T);
  int c = begin;
  for (; c + wide <= end; c += wide) f(c, Width<wide>{});
  for (; c + wide / 2 <= end; c += wide / 2) f(c, Width<wide / 2>{});
  for (; c + wide / 4 <= end; c += wide / 4) f(c, Width<wide / 4>{});
  for (; c < end; ++c) f(c, Width<1>{});
}

}  // namespace dtn
