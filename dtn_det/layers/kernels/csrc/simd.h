// Short vectors of the compiler (GCC and Clang), and a loop that covers a channel range with them.
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>

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

// Size of two registers: loops over the taps of a filter have few independent sums, and two packs double their number.
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

// A register of N values, or a part of one, or a pair of them.
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

// A pack's lower half plus its upper one.
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

template <int N, class V>
inline Pair<V> inverse_sqrt(Pair<V> value) {
  return {inverse_sqrt<N / 2>(value.low), inverse_sqrt<N / 2>(value.high)};
}

// The product in a single register: of a pair, the sum of both products.
template <class V>
inline auto folded_product(V a, V b) {
  return a * b;
}

template <class V>
inline auto folded_product(Pair<V> a, Pair<V> b) {
  return folded_product(a.low, b.low) + folded_product(a.high, b.high);
}

// Widths at which loops with few or with many sums begin: 16 registers are too few for pairs of many sums.
template <class T>
constexpr int kFewSums = (kPackBytes == 64 ? 4 : 2) * kLanes<T>;
template <class T>
constexpr int kManySums = kPackBytes == 64 ? 4 * kLanes<T> : kLanes<T>;

// Calls f(channel, Width<N>) for consecutive blocks of [begin, end): the widest packs first, single channels last.
template <class T, int N = kLanes<T>, class F>
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
