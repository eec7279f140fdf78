// One call of the layer, and the computations of both passes: statistics of tokens, and moments along the two axes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "band.h"
#include "map.h"
#include "parallel.h"
#include "simd.h"

namespace dtn {

extern "C" struct DtnShape {
  int64_t batch, prefix, height, width, channels, groups;
  double eps;
  int32_t head_rms, unbiased, only_var, threads;
};

// Tensors are (B, prefix + H W, C): in each image the prefix tokens stand before the grid. Buffers for the grid alone
// are (B, H W, ...).
template <class T>
struct Problem {
  DtnShape shape;
  const T *x, *coefficients, *mean_gate, *var_gate, *weight, *bias;

  int H, W, C, G, D;
  std::vector<T> mean_share, var_share;  // (G,) share of LayerNorm's mean and variance
  std::vector<Band<T>> rows, cols;       // (G,) filters over the height and over the width

  Problem(const DtnShape& s, const T* x, const T* coefficients, const T* mean_gate, const T* var_gate, const T* weight,
          const T* bias, bool with_gradients)
      : shape(s), x(x), coefficients(coefficients), mean_gate(mean_gate), var_gate(var_gate), weight(weight), bias(bias),
        H(int(s.height)), W(int(s.width)), C(int(s.channels)), G(int(s.groups)), D(C / G) {
    for (int g = 0; g < G; ++g) {
      const double a_x = coefficients[3 * g], a_y = coefficients[3 * g + 1], a_d = coefficients[3 * g + 2];
      rows.emplace_back(a_y, a_d, H, with_gradients);
      cols.emplace_back(a_x, a_d, W, with_gradients);
      mean_share.push_back(shape.only_var ? T(1) : sigmoid(mean_gate[g]));
      var_share.push_back(sigmoid(var_gate[g]));
    }
  }

  int64_t num_rows() const { return shape.batch * H; }
  int64_t num_tokens() const { return num_rows() * W; }

  // Offset in a tensor of the first channel of a token of the grid.
  int64_t place(int64_t b, int64_t token) const { return (token + (b + 1) * shape.prefix) * C; }
  int64_t prefix_place(int64_t b, int64_t index) const { return (b * (shape.prefix + int64_t(H) * W) + index) * C; }

  // Whether each image is one task, so that intermediate results stay in a core's own cache. The decision must not
  // depend on the number of threads, because it changes the order of sums. The same holds for the width of tiles.
  bool by_image() const {
    const int64_t touched = int64_t(H) * W * (3 * int64_t(C) + 6 * int64_t(D)) * sizeof(T);
    return shape.batch >= 8 && touched <= (int64_t(4) << 20);
  }

  // Prefetches an image of a tensor, because the processor cannot predict access group by group.
  template <int ForWriting>
  void fetch_image(const T* tensor, int64_t b) const {
    const char* first = reinterpret_cast<const char*>(tensor + place(b, b * H * W));
    const int64_t bytes = int64_t(H) * W * C * sizeof(T);
    for (int64_t offset = 0; offset < bytes; offset += 64) __builtin_prefetch(first + offset, ForWriting, 2);
  }

  // Number of groups to compute together: one if each image is a task, otherwise all, because the channels of all
  // groups are adjacent in memory.
  int groups_at_once() const { return by_image() ? 1 : G; }

  // Number of columns of a tile: so few that `arrays` buffers of the tile's full height fit in a second-level cache,
  // and that there are tiles for all threads.
  int tile_width(int arrays) const {
    if (by_image()) return W;
    const int64_t column = int64_t(H) * C * sizeof(T) * arrays;
    const int64_t fits = (int64_t(1) << 20) / std::max<int64_t>(column, 1);
    const int64_t shared_out = (shape.batch * W + 15) / 16;
    return int(std::clamp<int64_t>(std::min(fits, shared_out), 1, W));
  }

 private:
  static T sigmoid(T logit) { return T(1) / (T(1) + std::exp(-logit)); }
};

// Computes LayerNorm's statistics of the token at `x`, and the reciprocal root mean squares of its groups (1 without
// head_rms).
template <class T>
void measure_token(const Problem<T>& p, const T* x, T* scales, T& own_mean, T& own_var) {
  T total = 0;
  for (int g = 0; g < p.G; ++g) {
    LaneSum<T> sum, squares;
    for_each_block<T>(g * p.D, (g + 1) * p.D, [&](int c, auto width) {
      constexpr int N = decltype(width)::value;
      const auto value = load<N>(x + c);
      sum.template add<N>(value);
      squares.template add<N>(value * value);
    });
    scales[g] = p.shape.head_rms ? T(1) / std::sqrt(squares.total() / p.D + T(p.shape.eps)) : T(1);
    total += sum.total() * scales[g];
  }
  own_mean = total / p.C;
  LaneSum<T> squares;
  for (int g = 0; g < p.G; ++g) {
    for_each_block<T>(g * p.D, (g + 1) * p.D, [&](int c, auto width) {
      constexpr int N = decltype(width)::value;
      const auto deviation = load<N>(x + c) * scales[g] - own_mean;
      squares.template add<N>(deviation * deviation);
    });
  }
  own_var = squares.total() / (p.shape.unbiased ? p.C - 1 : p.C);
}

// Statistics of each token of the grid, for both passes.
template <class T>
struct TokenStatistics {
  std::unique_ptr<T[]> scale;              // (B, H, W, G)
  std::unique_ptr<T[]> own_mean, own_var;  // (B, H, W) of the tokens multiplied by scale

  // Computes the statistics of all tokens. If each image is a task, the task calls measure_image() instead.
  explicit TokenStatistics(const Problem<T>& p)
      : scale(new T[p.num_tokens() * p.G]), own_mean(new T[p.num_tokens()]), own_var(new T[p.num_tokens()]) {
    if (p.by_image()) return;
    parallel_for(p.num_rows(), p.shape.threads, [&] {
      return [&](int64_t row) { measure(p, row / p.H, row * p.W, (row + 1) * p.W); };
    });
  }

  void measure_image(const Problem<T>& p, int64_t b) { measure(p, b, b * p.H * p.W, (b + 1) * p.H * p.W); }

 private:
  void measure(const Problem<T>& p, int64_t b, int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      measure_token(p, p.x + p.place(b, token), &scale[token * p.G], own_mean[token], own_var[token]);
    }
  }
};

// Computes mean and variance from the first and second moments around a pilot value. The pilot is the source with the
// largest weight w, so cancellation costs at most 1 + 1 / w roundings, however large the values are.
template <class V>
inline void settle(V pilot, V first, V second, V& mean, V& var) {
  mean = pilot + first;
  var = second - first * first;
  var = positive_part(var);
}

// Computes mean and variance along the width for one group of a row, at the columns from j0 to j1, into buffers (j1 -
// j0, D).
template <class T>
void row_moments(const Problem<T>& p, const TokenStatistics<T>& tokens, int64_t b, int g, int i, int j0, int j1, T* mean1,
                 T* var1, T* scale) {
  const Band<T>& band = p.cols[g];
  const int64_t row = (b * p.H + i) * p.W;
  for (int j = j0; j < j1; ++j, mean1 += p.D, var1 += p.D) {
    const T* weight = &band.weight[size_t(j) * band.taps];
    const int64_t first_source = row + band.start[j];
    const int count = band.count[j], pilot_tap = band.pilot[j];
    for (int k = 0; k < count; ++k) scale[k] = tokens.scale[(first_source + k) * p.G + g];
    const T* sources = p.x + p.place(b, first_source) + g * p.D;
    for_each_block<T, kFewSums<T>>(0, p.D, [&](int c, auto width) {
      constexpr int N = decltype(width)::value;
      using V = Pack<T, N>;
      const T* source = sources + c;
      const V pilot = scale[pilot_tap] * load<N>(source + int64_t(pilot_tap) * p.C);
      V first{}, second{}, mean, var;
      for (int k = 0; k < count; ++k) {
        const V deviation = scale[k] * load<N>(source + int64_t(k) * p.C) - pilot;
        first += weight[k] * deviation;
        second += weight[k] * (deviation * deviation);
      }
      settle(pilot, first, second, mean, var);
      store<N>(mean1 + c, mean);
      store<N>(var1 + c, var);
    });
  }
}

// The moments within rows of some groups and columns, (2, groups, H, columns, D).
template <class T>
class Moments {
 public:
  Moments(const Problem<T>& p, int groups, int columns)
      : p(p), scale(p.W), groups(groups), columns(columns), values(int64_t(2) * groups * p.H * columns * p.D) {}

  int64_t stride() const { return int64_t(columns) * p.D; }
  T* mean(int index, int i) { return &values[(int64_t(index) * p.H + i) * stride()]; }
  T* var(int index, int i) { return mean(groups + index, i); }

  // Computes the moments of the groups from g0 on, for the columns from j0 to j1.
  void fill(const TokenStatistics<T>& tokens, int64_t b, int g0, int j0, int j1) {
    columns = j1 - j0;
    for (int i = 0; i < p.H; ++i) {
      for (int index = 0; index < groups; ++index) {
        row_moments(p, tokens, b, g0 + index, i, j0, j1, mean(index, i), var(index, i), scale.data());
      }
    }
  }

 private:
  const Problem<T>& p;
  std::vector<T> scale;
  int groups, columns;
  Map<T> values;
};

// Calls f(b, j0, j1, task) for tiles of whole columns.
template <class T, class MakeWorker>
int64_t for_each_tile(const Problem<T>& p, int tile, MakeWorker make_worker) {
  const int64_t per_image = (p.W + tile - 1) / tile;
  const int64_t tasks = p.shape.batch * per_image;
  parallel_for(tasks, p.shape.threads, [&] {
    return [&, worker = make_worker()](int64_t task) mutable {
      const int j0 = int(task % per_image) * tile;
      worker(task / per_image, j0, std::min(p.W, j0 + tile), task);
    };
  });
  return tasks;
}

}  // namespace dtn
