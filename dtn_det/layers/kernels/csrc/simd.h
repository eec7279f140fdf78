// Short vectors, an extension of GCC and Clang, and a loop that covers a range of channels with them.
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace dtn {

// Bytes of the widest pack, which is one register. The compiler would move wider packs through memory.
#if defined(__AVX512F__)
constexpr int kPackBytes = 64;
#elif defined(__AVX2__)
constexpr int kPackBytes = 32;
#else
constexpr int kPackBytes = 16;
#endif

// Two registers. Loops over the taps of a filter have few independent sums, and a pair doubles their number.
template <class V>
struct Pair {
  V low, high;

  Pair& operator+=(const Pair& other) {
    low += other.low;
    high += other.high;
    return *this;
  }
  friend Pair operator+(const Pair& a, const Pair& b) { return {a.low + b.low, a.high + b.high}; }
  friend Pair operator-(const Pair& a, const Pair& b) { return {a.low - b.low, a.high - b.high}; }
  friend Pair operator*(const Pair& a, const Pair& b) { return {a.low * b.low, a.high * b.high}; }
  template <class S>
  friend Pair operator+(S scalar, const Pair& b) { return {scalar + b.low, scalar + b.high}; }
  template <class S>
  friend Pair operator-(const Pair& a, S scalar) { return {a.low - scalar, a.high - scalar}; }
  template <class S>
  friend Pair operator-(S scalar, const Pair& b) { return {scalar - b.low, scalar - b.high}; }
  template <class S>
  friend Pair operator*(S scalar, const Pair& b) { return {scalar * b.low, scalar * b.high}; }
  template <class S>
  friend Pair operator*(const Pair& a, S scalar) { return {a.low * scalar, a.high * scalar}; }
};

// The type of a pack of N values: a register, part of a register, or a pair of registers.
template <class T, int N, bool Wide = (N * sizeof(T) > kPackBytes)>
struct PackOf {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};

template <class T, int N>
struct PackOf<T, N, true> {
  using type = Pair<typename PackOf<T, N / 2>::type>;
};

template <class T, int N>
using Pack = typename PackOf<T, N>::type;

template <class T>
constexpr int kLanes = kPackBytes / sizeof(T);

template <int N>
struct Width {
  static constexpr int value = N;
};

template <int N, class T>
inline Pack<T, N> load(const T* source) {
  if constexpr (N > kLanes<T>) {
    return {load<N / 2>(source), load<N / 2>(source + N / 2)};
  } else {
    Pack<T, N> pack;
    std::memcpy(&pack, source, sizeof(pack));
    return pack;
  }
}

template <int N, class T>
inline void store(T* target, Pack<T, N> pack) {
  if constexpr (N > kLanes<T>) {
    store<N / 2>(target, pack.low);
    store<N / 2>(target + N / 2, pack.high);
  } else {
    std::memcpy(target, &pack, sizeof(pack));
  }
}

// Adds the upper half of a pack to its lower half.
template <int N, class V>
inline auto halves_added(V value) {
  using T = std::remove_reference_t<decltype(value[0])>;
  Pack<T, N / 2> low, high;
  std::memcpy(&low, &value, sizeof(low));
  std::memcpy(&high, reinterpret_cast<const char*>(&value) + sizeof(low), sizeof(high));
  return low + high;
}

template <int N, class V>
inline V halves_added(Pair<V> value) {
  return value.low + value.high;
}

template <class V>
inline V positive_part(V value) {
  return value < 0 ? V{} : value;
}

template <class V>
inline Pair<V> positive_part(Pair<V> value) {
  return {positive_part(value.low), positive_part(value.high)};
}

// 1 / sqrt(value), lane by lane, to the last bit or two.
template <int N, class V>
inline V inverse_sqrt(V value) {
#if defined(__AVX512F__)
  // An estimate and one step of Newton's method, because division and square root take several times as long.
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

template <int N, class V>
inline Pair<V> inverse_sqrt(Pair<V> value) {
  return {inverse_sqrt<N / 2>(value.low), inverse_sqrt<N / 2>(value.high)};
}

// The product of two packs, as a single register. For pairs, the products of both halves are added.
template <class V>
inline auto folded_product(V a, V b) {
  return a * b;
}

template <class V>
inline auto folded_product(Pair<V> a, Pair<V> b) {
  return folded_product(a.low, b.low) + folded_product(a.high, b.high);
}

// Width of the packs with which a loop starts, for few or many sums. 16 registers are not enough for pairs in a loop
// with many sums.
template <class T>
constexpr int kFewSums = (kPackBytes == 64 ? 4 : 2) * kLanes<T>;
template <class T>
constexpr int kManySums = kPackBytes == 64 ? 4 * kLanes<T> : kLanes<T>;

// Calls f(channel, Width<N>) for consecutive blocks of channels in [begin, end): widest packs first, single channels
// last.
template <class T, int N = kLanes<T>, class F>
inline void for_each_block(int begin, int end, F&& f) {
  int c = begin;
  for (; c + N <= end; c += N) f(c, Width<N>{});
  if constexpr (N > 1) {
    if (c < end) for_each_block<T, (N > 4 ? N / 2 : 1)>(c, end, f);
  }
}

// A sum in the lanes of one register. In a plain loop the compiler may not reorder additions, so it would add one value
// at a time.
template <class T>
class LaneSum {
 public:
  template <int N>
  void add(Pack<T, N> value) {
    if constexpr (N > kLanes<T>) {
      add<N / 2>(halves_added<N>(value));
    } else if constexpr (N == kLanes<T>) {
      lanes_ += value;
    } else {
      Pack<T, kLanes<T>> padded{};
      std::memcpy(&padded, &value, sizeof(value));
      lanes_ += padded;
    }
  }
  T total() const {
    T halves[kLanes<T>];
    store<kLanes<T>>(halves, lanes_);
    for (int step = kLanes<T> / 2; step > 0; step /= 2) {
      for (int i = 0; i < step; ++i) halves[i] += halves[i + step];
    }
    return halves[0];
  }

 private:
  Pack<T, kLanes<T>> lanes_{};
};

}  // namespace dtn
