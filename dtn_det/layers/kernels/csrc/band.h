// The matrix of one axis, stored as a band: for each output position, only the source positions with significant
// weights.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace dtn {

struct Interval {
  int first;
  int last;
};

// Returns the interval of distances d = t - s within [low, high] at which quadratic d^2 + linear d is at most `depth`
// below its maximum. If there is such an interval at each end, returns [low, high].
inline Interval significant_distances(double linear, double quadratic, int low, int high, double depth) {
  if (!std::isfinite(linear) || !std::isfinite(quadratic)) return {low, high};  // all weights become NaN
  auto exponent = [&](double d) { return (quadratic * d + linear) * d; };
  if (quadratic < 0) {
    const double vertex = -linear / (2 * quadratic);
    const double below = std::clamp(std::floor(vertex), double(low), double(high));
    const double above = std::clamp(std::ceil(vertex), double(low), double(high));
    const double best = exponent(below) >= exponent(above) ? below : above;
    const double excess = exponent(vertex) - exponent(best) + depth;
    const double radius = std::sqrt(excess / -quadratic);
    const double first = std::clamp(std::ceil(vertex - radius), double(low), best);
    const double last = std::clamp(std::floor(vertex + radius), best, double(high));
    return {int(first), int(last)};
  }
  const double threshold = std::max(exponent(low), exponent(high)) - depth;
  const bool low_counts = exponent(low) >= threshold, high_counts = exponent(high) >= threshold;
  if (low_counts && high_counts) return {low, high};
  // The exponent is convex: counted from the significant end, it falls below the threshold once and stays below.
  int inside = low_counts ? low : high, outside = low_counts ? high : low;
  while (std::abs(outside - inside) > 1) {
    const int middle = inside + (outside - inside) / 2;
    (exponent(middle) >= threshold ? inside : outside) = middle;
  }
  return low_counts ? Interval{low, inside} : Interval{inside, high};
}

// The weights of one group along one axis of length L.
template <class T>
struct Band {
  int length = 0;
  int taps = 0;            // largest number of sources of an output
  int adjoint_taps = 0;    // largest number of outputs of a source
  std::vector<int> start;  // (L,) first source of each output
  std::vector<int> count;  // (L,) number of sources of each output
  std::vector<int> pilot;  // (L,) source with the largest weight, as an index from `start`
  std::vector<T> weight;   // (L, taps) softmax of the exponents
  // d weight / d linear and d weight / d quadratic
  std::vector<T> weight_linear, weight_quadratic;
  std::vector<int> adjoint_start, adjoint_count;  // (L,) first output and number of outputs of each source
  std::vector<T> adjoint_weight;                  // (L, adjoint_taps)

  Band(double linear, double quadratic, int axis_length, bool with_gradients)
      : length(axis_length), start(axis_length), count(axis_length), pilot(axis_length) {
    // Weights far below the rounding error do not change the result.
    const double depth = -std::log(std::numeric_limits<T>::epsilon() / 32);
    for (int t = 0; t < length; ++t) {
      const Interval d = significant_distances(linear, quadratic, t - (length - 1), t, depth);
      start[t] = t - d.last;
      count[t] = d.last - d.first + 1;
      taps = std::max(taps, count[t]);
    }
    weight.resize(size_t(length) * taps);
    if (with_gradients) {
      weight_linear.resize(weight.size());
      weight_quadratic.resize(weight.size());
    }
    std::vector<double> p(taps);
    for (int t = 0; t < length; ++t) {
      double top = -std::numeric_limits<double>::infinity(), total = 0, mean = 0, square = 0;
      for (int k = 0; k < count[t]; ++k) {
        const double d = t - (start[t] + k);
        p[k] = (quadratic * d + linear) * d;
        if (p[k] > top) {
          top = p[k];
          pilot[t] = k;
        }
      }
      for (int k = 0; k < count[t]; ++k) total += p[k] = std::exp(p[k] - top);
      for (int k = 0; k < count[t]; ++k) {
        const double d = t - (start[t] + k);
        p[k] /= total;
        mean += p[k] * d;
        square += p[k] * d * d;
      }
      for (int k = 0; k < count[t]; ++k) {
        const double d = t - (start[t] + k);
        const size_t at = size_t(t) * taps + k;
        weight[at] = T(p[k]);
        if (!with_gradients) continue;
        weight_linear[at] = T(p[k] * (d - mean));
        weight_quadratic[at] = T(p[k] * (d * d - square));
      }
    }
    if (with_gradients) transpose();
  }

 private:
  void transpose() {
    adjoint_start.assign(length, length);
    adjoint_count.assign(length, 0);
    for (int t = 0; t < length; ++t) {
      for (int s = start[t]; s < start[t] + count[t]; ++s) {
        adjoint_start[s] = std::min(adjoint_start[s], t);
        adjoint_count[s] = std::max(adjoint_count[s], t + 1);  // the end of the outputs until the next loop
      }
    }
    for (int s = 0; s < length; ++s) {
      adjoint_count[s] = std::max(0, adjoint_count[s] - adjoint_start[s]);
      adjoint_taps = std::max(adjoint_taps, adjoint_count[s]);
    }
    adjoint_weight.assign(size_t(length) * adjoint_taps, T(0));
    for (int t = 0; t < length; ++t) {
      for (int k = 0; k < count[t]; ++k) {
        const int s = start[t] + k;
        adjoint_weight[size_t(s) * adjoint_taps + (t - adjoint_start[s])] = weight[size_t(t) * taps + k];
      }
    }
  }
};

}  // namespace dtn
