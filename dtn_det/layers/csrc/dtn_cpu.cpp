// Dynamic Token Normalization on a CPU: forward and backward with banded axis filters.
//
// The variance over the neighbours is computed along the width first and along the height then, by the law of total
// variance: v = sum_l Y_l (v1_l + (m1_l - m)^2), with m1 and v1 the mean and variance within row l. No large numbers are
// subtracted from each other, so no accuracy is lost when means are large, and v is never negative.
//
// Memory: two maps of the size of the input going forward, three going back; nothing is kept between the two.
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "band.h"
#include "parallel.h"
#include "simd.h"

namespace dtn {

extern "C" struct DtnShape {
  int64_t batch, height, width, channels, groups;
  double eps;
  int32_t head_rms, unbiased, only_var, threads;
};

template <class T>
struct Problem {
  DtnShape shape;
  const T *x, *coefficients, *mean_gate, *var_gate, *weight, *bias;

  int H, W, C, G, D;
  std::vector<T> mean_share, var_share;  // (G,) LayerNorm's share of mean and variance
  std::vector<Band<T>> rows, cols;       // (G,) over the height, over the width

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
  int64_t num_elements() const { return num_rows() * W * C; }

  // Columns of a tile, so that `arrays` buffers of its whole height fit into a second-level cache.
  int tile_width(int arrays) const {
    const int64_t column = int64_t(H) * C * sizeof(T) * arrays;
    return int(std::clamp<int64_t>((768 << 10) / std::max<int64_t>(column, 1), 1, W));
  }

 private:
  static T sigmoid(T logit) { return T(1) / (T(1) + std::exp(-logit)); }
};

// What both directions need of every token: its LayerNorm statistics and the moments within its row.
template <class T>
struct RowMoments {
  std::unique_ptr<T[]> mean, var;            // (B, H, W, C) moments along the width
  std::unique_ptr<T[]> own_mean, own_var;    // (B, H, W) LayerNorm's statistics
  std::unique_ptr<T[]> scale;                // (B, H, W, G) reciprocal root mean squares

  explicit RowMoments(const Problem<T>& p)
      : mean(new T[p.num_elements()]), var(new T[p.num_elements()]), own_mean(new T[p.num_rows() * p.W]),
        own_var(new T[p.num_rows() * p.W]), scale(new T[p.num_rows() * p.W * p.G]) {}
};

// Writes the group-normalised token to `out` and its statistics.
template <class T>
void prepare_token(const Problem<T>& p, const T* x, T* out, T* scale, T* own_mean, T* own_var) {
  T total = 0;
  for (int g = 0; g < p.G; ++g) {
    const T* in = x + g * p.D;
    T factor = 1;
    if (p.shape.head_rms) {
      T squares = 0;
      for (int c = 0; c < p.D; ++c) squares += in[c] * in[c];
      factor = T(1) / std::sqrt(squares / p.D + T(p.shape.eps));
    }
    scale[g] = factor;
    T part = 0;
    for (int c = 0; c < p.D; ++c) part += out[g * p.D + c] = in[c] * factor;
    total += part;
  }
  const T mean = total / p.C;
  T squares = 0;
  for (int c = 0; c < p.C; ++c) squares += (out[c] - mean) * (out[c] - mean);
  *own_mean = mean;
  *own_var = squares / (p.shape.unbiased ? p.C - 1 : p.C);
}

template <class T>
void prepare_row(const Problem<T>& p, int64_t row, T* normalized, RowMoments<T>& moments) {
  for (int j = 0; j < p.W; ++j) {
    const int64_t token = row * p.W + j;
    prepare_token(p, p.x + token * p.C, normalized + int64_t(j) * p.C, &moments.scale[token * p.G],
                  &moments.own_mean[token], &moments.own_var[token]);
  }
}

template <class T>
RowMoments<T> row_moments(const Problem<T>& p) {
  RowMoments<T> moments(p);
  parallel_for(p.num_rows(), p.shape.threads, [&] {
    return [&, row_buffer = std::vector<T>(size_t(p.W) * p.C)](int64_t row) mutable {
      T* normalized = row_buffer.data();
      prepare_row(p, row, normalized, moments);
      for (int g = 0; g < p.G; ++g) {
        const Band<T>& band = p.cols[g];
        for (int j = 0; j < p.W; ++j) {
          const T* weight = &band.weight[size_t(j) * band.taps];
          const int64_t target = (row * p.W + j) * p.C;
          for_each_block<T>(g * p.D, (g + 1) * p.D, [&](int c, auto width) {
            constexpr int N = decltype(width)::value;
            const T* source = normalized + int64_t(band.start[j]) * p.C + c;
            Pack<T, N> mean{}, var{};
            for (int k = 0; k < band.taps; ++k) mean += weight[k] * load<N>(source + int64_t(k) * p.C);
            for (int k = 0; k < band.taps; ++k) {
              const Pack<T, N> deviation = load<N>(source + int64_t(k) * p.C) - mean;
              var += weight[k] * (deviation * deviation);
            }
            store<N>(&moments.mean[target + c], mean);
            store<N>(&moments.var[target + c], var);
          });
        }
      }
    };
  });
  return moments;
}

// Moments over the whole neighbourhood from those within rows; `mean1` and `var1` point at the first source row.
template <int N, class T>
inline void column_moments(const T* weight, int taps, int64_t stride, const T* mean1, const T* var1, Pack<T, N>& mean,
                           Pack<T, N>& var) {
  mean = Pack<T, N>{};
  var = Pack<T, N>{};
  for (int k = 0; k < taps; ++k) mean += weight[k] * load<N>(mean1 + k * stride);
  for (int k = 0; k < taps; ++k) {
    const Pack<T, N> deviation = load<N>(mean1 + k * stride) - mean;
    var += weight[k] * (load<N>(var1 + k * stride) + deviation * deviation);
  }
}

template <int N, class T>
inline Pack<T, N> inverse_sqrt(Pack<T, N> value) {
  Pack<T, N> result;
  for (int lane = 0; lane < N; ++lane) result[lane] = T(1) / std::sqrt(value[lane]);
  return result;
}

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

template <class T>
void forward(const Problem<T>& p, T* y) {
  const RowMoments<T> rows = row_moments(p);
  const int64_t stride = int64_t(p.W) * p.C;
  for_each_tile(p, p.tile_width(3), [&] {
    return [&](int64_t b, int j0, int j1, int64_t) {
      for (int i = 0; i < p.H; ++i) {
        for (int j = j0; j < j1; ++j) {
          const int64_t token = (b * p.H + i) * p.W + j;
          for (int g = 0; g < p.G; ++g) {
            const Band<T>& band = p.rows[g];
            const T* weight = &band.weight[size_t(i) * band.taps];
            const int64_t source = ((b * p.H + band.start[i]) * p.W + j) * p.C;
            const T mean_share = p.mean_share[g], var_share = p.var_share[g], scale = rows.scale[token * p.G + g];
            const T mean_own = mean_share * rows.own_mean[token];
            const T var_own = var_share * rows.own_var[token] + T(p.shape.eps);
            for_each_block<T>(g * p.D, (g + 1) * p.D, [&](int c, auto width) {
              constexpr int N = decltype(width)::value;
              Pack<T, N> mean, var;
              column_moments<N>(weight, band.taps, stride, &rows.mean[source + c], &rows.var[source + c], mean, var);
              const Pack<T, N> inverse = inverse_sqrt<N, T>(var_own + (1 - var_share) * var);
              const Pack<T, N> centred = load<N>(p.x + token * p.C + c) * scale - (mean_own + (1 - mean_share) * mean);
              store<N>(y + token * p.C + c, centred * inverse * load<N>(p.weight + c) + load<N>(p.bias + c));
            });
          }
        }
      }
    };
  });
}

template <class T>
struct Gradients {
  T *x, *coefficients, *mean_gate, *var_gate, *weight, *bias;
};

// Sums over tasks: one slot per task, added up in order, so the result does not depend on the threads.
struct Slots {
  int64_t size;
  std::vector<double> values;
  Slots(int64_t tasks, int64_t size) : size(size), values(size_t(tasks * size), 0.0) {}
  double* operator[](int64_t task) { return values.data() + task * size; }
  std::vector<double> total() const {
    std::vector<double> sums(size, 0.0);
    for (size_t i = 0; i < values.size(); ++i) sums[i % size] += values[i];
    return sums;
  }
};

// Sums of one group in short vectors, emptied into a slot now and then.
template <class T, int Fields>
struct LaneSums {
  static constexpr int lanes = 64 / sizeof(T);
  T lane[Fields][lanes] = {};

  template <int N>
  void add(int field, Pack<T, N> value) {
    store<N>(lane[field], load<N>(lane[field]) + value);
  }
  void flush(double* slot, int64_t step) {
    for (int field = 0; field < Fields; ++field) {
      for (int i = 0; i < lanes; ++i) {
        slot[field * step] += lane[field][i];
        lane[field][i] = 0;
      }
    }
  }
};

// Fields of a tile's slot, each (G,), followed by weight and bias, each (C,).
enum TileField { kMeanGate, kVarGate, kRowLinear, kRowQuadratic, kTileFields };
enum RowField { kColLinear, kColQuadratic, kRowFields };

template <class T>
class Backward {
 public:
  Backward(const Problem<T>& p, const T* grad_y, Gradients<T> out)
      : p(p), grad_y(grad_y), out(out), rows(row_moments(p)), grad_mean1(new T[p.num_elements()]),
        stride(int64_t(p.W) * p.C) {}

  void run() {
    // First the output and the filters over the height, tile by tile, down to the gradients of the row moments: that of
    // the mean in grad_mean1, that of the variance in place of the variance; out.x holds the direct part meanwhile.
    const int tile = p.tile_width(3);
    Slots tile_slots(p.shape.batch * ((p.W + tile - 1) / tile), kTileFields * p.G + 2 * p.C);
    for_each_tile(p, tile, [&] {
      return [&, buffer = std::vector<T>(size_t(3) * p.H * tile * p.C), channels = std::vector<T>(2 * p.C)](
                 int64_t b, int j0, int j1, int64_t task) mutable {
        tile_task(b, j0, j1, buffer.data(), channels.data(), tile_slots[task]);
      };
    });
    // Then the filters over the width and the group normalisation, row by row.
    Slots row_slots(p.num_rows(), kRowFields * p.G);
    parallel_for(p.num_rows(), p.shape.threads, [&] {
      return [&, buffer = std::vector<T>(size_t(p.W) * p.C)](int64_t row) mutable {
        row_task(row, buffer.data(), row_slots[row]);
      };
    });
    collect(tile_slots.total(), row_slots.total());
  }

 private:
  const Problem<T>& p;
  const T* grad_y;
  Gradients<T> out;
  RowMoments<T> rows;
  std::unique_ptr<T[]> grad_mean1;
  int64_t stride;

  void tile_task(int64_t b, int j0, int j1, T* buffer, T* channels, double* slot) {
    const int64_t row_size = int64_t(j1 - j0) * p.C;
    T* grad_mean = buffer;                       // (H, tile, C) gradient of the neighbourhood's mean
    T* grad_var = grad_mean + p.H * row_size;    // (H, tile, C) gradient of its variance
    T* mean = grad_var + p.H * row_size;         // (H, tile, C)
    std::fill(channels, channels + 2 * p.C, T(0));
    for (int i = 0; i < p.H; ++i) {
      for (int j = j0; j < j1; ++j) {
        const int64_t local = i * row_size + int64_t(j - j0) * p.C;
        token(b, i, j, grad_mean + local, grad_var + local, mean + local, channels, slot);
      }
    }
    for (int c = 0; c < 2 * p.C; ++c) slot[kTileFields * p.G + c] += channels[c];

    for (int l = 0; l < p.H; ++l) {
      for (int j = j0; j < j1; ++j) {
        for (int g = 0; g < p.G; ++g) {
          const Band<T>& band = p.rows[g];
          const T* weight = &band.adjoint_weight[size_t(l) * band.adjoint_taps];
          const int64_t first = band.adjoint_start[l] * row_size + int64_t(j - j0) * p.C;
          const int count = band.adjoint_count[l];
          const int64_t target = ((b * p.H + l) * p.W + j) * p.C;
          for_each_block<T>(g * p.D, (g + 1) * p.D, [&](int c, auto width) {
            constexpr int N = decltype(width)::value;
            const Pack<T, N> mean1 = load<N>(&rows.mean[target + c]);
            Pack<T, N> to_mean{}, to_var{};
            for (int k = 0; k < count; ++k) {
              const int64_t at = first + k * row_size + c;
              const Pack<T, N> var_part = weight[k] * load<N>(grad_var + at);
              to_var += var_part;
              to_mean += weight[k] * load<N>(grad_mean + at) + 2 * var_part * (mean1 - load<N>(mean + at));
            }
            store<N>(&grad_mean1[target + c], to_mean);
            store<N>(&rows.var[target + c], to_var);
          });
        }
      }
    }
  }

  // One output token: its share of the parameters' gradients, the direct part of the input's, and the gradients of the
  // moments over its neighbourhood.
  void token(int64_t b, int i, int j, T* grad_mean, T* grad_var, T* mean_out, T* channels, double* slot) {
    const int64_t token = (b * p.H + i) * p.W + j;
    const T own_mean = rows.own_mean[token], own_var = rows.own_var[token];
    T to_own_mean = 0, to_own_var = 0;
    for (int g = 0; g < p.G; ++g) {
      const Band<T>& band = p.rows[g];
      const size_t tap = size_t(i) * band.taps;
      const int64_t source = ((b * p.H + band.start[i]) * p.W + j) * p.C;
      const T mean_share = p.mean_share[g], var_share = p.var_share[g], scale = rows.scale[token * p.G + g];
      LaneSums<T, kTileFields> sums;
      T group_mean = 0, group_var = 0;
      for_each_block<T>(g * p.D, (g + 1) * p.D, [&](int c, auto width) {
        constexpr int N = decltype(width)::value;
        using V = Pack<T, N>;
        V mean, var;
        column_moments<N>(&band.weight[tap], band.taps, stride, &rows.mean[source + c], &rows.var[source + c], mean, var);
        const V inverse = inverse_sqrt<N, T>(var_share * own_var + T(p.shape.eps) + (1 - var_share) * var);
        const V centre = mean_share * own_mean + (1 - mean_share) * mean;
        const V z = (load<N>(p.x + token * p.C + c) * scale - centre) * inverse;
        const V to_y = load<N>(grad_y + token * p.C + c);
        store<N>(channels + c, load<N>(channels + c) + to_y * z);
        store<N>(channels + p.C + c, load<N>(channels + p.C + c) + to_y);
        const V to_centred = to_y * load<N>(p.weight + c) * inverse;
        const V to_var = T(-0.5) * to_centred * z * inverse;  // gradient of the blended variance
        store<N>(out.x + token * p.C + c, to_centred);
        sums.template add<N>(kMeanGate, to_centred * (mean - own_mean));
        sums.template add<N>(kVarGate, to_var * (own_var - var));
        group_mean -= sum<T, N>(to_centred);
        group_var += sum<T, N>(to_var);
        const V to_mean = -(1 - mean_share) * to_centred, to_inter_var = (1 - var_share) * to_var;
        store<N>(grad_mean + c, to_mean);
        store<N>(grad_var + c, to_inter_var);
        store<N>(mean_out + c, mean);
        V linear{}, quadratic{};
        for (int k = 0; k < band.taps; ++k) {
          const V deviation = load<N>(&rows.mean[source + k * stride + c]) - mean;
          const V effect = deviation * (to_mean + to_inter_var * deviation) +
                           to_inter_var * load<N>(&rows.var[source + k * stride + c]);
          linear += band.weight_linear[tap + k] * effect;
          quadratic += band.weight_quadratic[tap + k] * effect;
        }
        sums.template add<N>(kRowLinear, linear);
        sums.template add<N>(kRowQuadratic, quadratic);
      });
      to_own_mean += mean_share * group_mean;
      to_own_var += var_share * group_var;
      sums.flush(slot + g, p.G);
    }
    to_own_mean /= p.C;
    to_own_var *= T(2) / (p.shape.unbiased ? p.C - 1 : p.C);
    for (int g = 0; g < p.G; ++g) {
      const T scale = rows.scale[token * p.G + g];
      const T* x = p.x + token * p.C;
      T* to_x = out.x + token * p.C;
      for (int c = g * p.D; c < (g + 1) * p.D; ++c) to_x[c] += to_own_mean + to_own_var * (x[c] * scale - own_mean);
    }
  }

  void row_task(int64_t row, T* normalized, double* slot) {
    const int64_t first_token = row * p.W;
    for (int j = 0; j < p.W; ++j) {
      for (int g = 0; g < p.G; ++g) {
        const T scale = rows.scale[(first_token + j) * p.G + g];
        const T* x = p.x + (first_token + j) * p.C;
        for (int c = g * p.D; c < (g + 1) * p.D; ++c) normalized[int64_t(j) * p.C + c] = x[c] * scale;
      }
    }
    const T* mean1 = &rows.mean[first_token * p.C];
    const T* to_var1 = &rows.var[first_token * p.C];  // the tiles have put the gradient there
    const T* to_mean1 = &grad_mean1[first_token * p.C];
    for (int g = 0; g < p.G; ++g) {
      const Band<T>& band = p.cols[g];
      LaneSums<T, kRowFields> sums;
      for (int j = 0; j < p.W; ++j) {
        const size_t tap = size_t(j) * band.taps;
        const T* adjoint = &band.adjoint_weight[size_t(j) * band.adjoint_taps];
        const int64_t here = int64_t(j) * p.C, sources = int64_t(band.start[j]) * p.C;
        const int64_t outputs = int64_t(band.adjoint_start[j]) * p.C;
        for_each_block<T>(g * p.D, (g + 1) * p.D, [&](int c, auto width) {
          constexpr int N = decltype(width)::value;
          using V = Pack<T, N>;
          const V mean = load<N>(mean1 + here + c), to_mean = load<N>(to_mean1 + here + c);
          const V to_var = load<N>(to_var1 + here + c);
          V linear{}, quadratic{};
          for (int k = 0; k < band.taps; ++k) {
            const V deviation = load<N>(normalized + sources + int64_t(k) * p.C + c) - mean;
            const V effect = deviation * (to_mean + to_var * deviation);
            linear += band.weight_linear[tap + k] * effect;
            quadratic += band.weight_quadratic[tap + k] * effect;
          }
          sums.template add<N>(kColLinear, linear);
          sums.template add<N>(kColQuadratic, quadratic);

          const V own = load<N>(normalized + here + c);
          T* target = out.x + first_token * p.C + here + c;
          V total = load<N>(target);
          for (int k = 0; k < band.adjoint_count[j]; ++k) {
            const int64_t at = outputs + int64_t(k) * p.C + c;
            total += adjoint[k] * (load<N>(to_mean1 + at) + 2 * load<N>(to_var1 + at) * (own - load<N>(mean1 + at)));
          }
          store<N>(target, total);
        });
      }
      sums.flush(slot + g, p.G);
    }
    if (p.shape.head_rms) undo_group_rms(first_token, normalized);
  }

  void undo_group_rms(int64_t first_token, const T* normalized) {
    for (int j = 0; j < p.W; ++j) {
      for (int g = 0; g < p.G; ++g) {
        const T scale = rows.scale[(first_token + j) * p.G + g];
        const T* own = normalized + int64_t(j) * p.C + g * p.D;
        T* target = out.x + (first_token + j) * p.C + g * p.D;
        T along = 0;
        for (int c = 0; c < p.D; ++c) along += target[c] * own[c];
        along /= p.D;
        for (int c = 0; c < p.D; ++c) target[c] = scale * (target[c] - own[c] * along);
      }
    }
  }

  void collect(const std::vector<double>& tiles, const std::vector<double>& rows_total) {
    for (int g = 0; g < p.G; ++g) {
      const double mean_share = p.mean_share[g], var_share = p.var_share[g];
      if (!p.shape.only_var) out.mean_gate[g] = T(tiles[kMeanGate * p.G + g] * mean_share * (1 - mean_share));
      out.var_gate[g] = T(tiles[kVarGate * p.G + g] * var_share * (1 - var_share));
      out.coefficients[3 * g] = T(rows_total[kColLinear * p.G + g]);
      out.coefficients[3 * g + 1] = T(tiles[kRowLinear * p.G + g]);
      out.coefficients[3 * g + 2] = T(tiles[kRowQuadratic * p.G + g] + rows_total[kColQuadratic * p.G + g]);
    }
    for (int c = 0; c < p.C; ++c) {
      out.weight[c] = T(tiles[kTileFields * p.G + c]);
      out.bias[c] = T(tiles[kTileFields * p.G + p.C + c]);
    }
  }
};

// 0, or 1 when memory ran out.
template <class F>
int guarded(F&& f) {
  try {
    f();
    return 0;
  } catch (...) {
    return 1;
  }
}

}  // namespace dtn

#define DTN_EXPORT(T, SUFFIX)                                                                                           \
  extern "C" int dtn_forward_##SUFFIX(const dtn::DtnShape* shape, const T* x, const T* coefficients,                    \
                                      const T* mean_gate, const T* var_gate, const T* weight, const T* bias, T* y) {    \
    return dtn::guarded([&] {                                                                                           \
      dtn::forward(dtn::Problem<T>(*shape, x, coefficients, mean_gate, var_gate, weight, bias, false), y);              \
    });                                                                                                                 \
  }                                                                                                                     \
  extern "C" int dtn_backward_##SUFFIX(const dtn::DtnShape* shape, const T* x, const T* coefficients,                   \
                                       const T* mean_gate, const T* var_gate, const T* weight, const T* bias,           \
                                       const T* grad_y, T* grad_x, T* grad_coefficients, T* grad_mean_gate,             \
                                       T* grad_var_gate, T* grad_weight, T* grad_bias) {                                \
    return dtn::guarded([&] {                                                                                           \
      const dtn::Problem<T> problem(*shape, x, coefficients, mean_gate, var_gate, weight, bias, true);                  \
      dtn::Backward<T>(problem, grad_y,                                                                                 \
                       {grad_x, grad_coefficients, grad_mean_gate, grad_var_gate, grad_weight, grad_bias})              \
          .run();                                                                                                       \
    });                                                                                                                 \
  }

DTN_EXPORT(float, f32)
DTN_EXPORT(double, f64)

// 0: any processor of the kind the baseline was built for, 1: also AVX2 and FMA, 2: also AVX-512.
extern "C" int dtn_processor_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw")) {
    return 2;
  }
  return 1;
#else
  return 0;
#endif
}
