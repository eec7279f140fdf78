// The backward pass.
#pragma once

#include <vector>

#include "map.h"
#include "problem.h"

namespace dtn {

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
  static constexpr int lanes = kPackBytes / sizeof(T);
  T lane[Fields][lanes] = {};

  template <int N>
  void add(int field, Pack<T, N> value) {
    store<N>(lane[field], load<N>(lane[field]) + value);
  }
  T total(int field) const {
    T result = 0;
    for (int i = 0; i < lanes; ++i) result += lane[field][i];
    return result;
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
      : p(p), grad_y(grad_y), out(out), tokens(p), mean1(p.num_tokens() * p.C), to_mean1(p.num_tokens() * p.C),
        to_var1(p.num_tokens() * p.C) {}

  void run() {
    // First the output and the filters over the height, tile by tile, down to the gradients of the moments within rows;
    // out.x holds the direct part of the input's gradient meanwhile.
    const int tile = p.tile_width(5);
    Slots tile_slots(p.shape.batch * ((p.W + tile - 1) / tile), kTileFields * p.G + 2 * p.C);
    for_each_tile(p, tile, [&] {
      return [&, buffer = std::vector<T>(size_t(5) * p.H * tile * p.C), channels = std::vector<T>(2 * p.C),
              sums = std::vector<LaneSums<T, kTileFields>>(p.G)](int64_t b, int j0, int j1, int64_t task) mutable {
        tile_task(b, j0, j1, Tile(p, buffer.data(), j1 - j0), channels.data(), sums.data(), tile_slots[task]);
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
  const TokenStatistics<T> tokens;
  Map<T> mean1, to_mean1, to_var1;  // (B, H, W, C) mean within the row, gradients of mean and variance within the row

  // Buffers (H, tile, C) of one tile.
  struct Tile {
    int64_t stride;                // of a row
    T *mean1, *var1;               // moments within the row
    T *mean, *to_mean, *to_var;    // mean over the neighbourhood, gradients of its mean and variance

    Tile(const Problem<T>& p, T* buffer, int width) : stride(int64_t(width) * p.C) {
      T** arrays[] = {&mean1, &var1, &mean, &to_mean, &to_var};
      for (T** array : arrays) {
        *array = buffer;
        buffer += p.H * stride;
      }
    }
  };

  void tile_task(int64_t b, int j0, int j1, const Tile& tile, T* channels, LaneSums<T, kTileFields>* sums,
                 double* slot) {
    row_moments(p, tokens, b, j0, j1, tile.mean1, tile.var1);
    std::fill(channels, channels + 2 * p.C, T(0));
    for (int i = 0; i < p.H; ++i) {
      for (int j = j0; j < j1; ++j) token_task(b, i, j, j - j0, tile, channels, sums);
      for (int g = 0; g < p.G; ++g) sums[g].flush(slot + g, p.G);
    }
    for (int c = 0; c < 2 * p.C; ++c) slot[kTileFields * p.G + c] += channels[c];

    for (int l = 0; l < p.H; ++l) {
      for (int j = j0; j < j1; ++j) {
        const int64_t here = l * tile.stride + int64_t(j - j0) * p.C;
        const int64_t target = ((b * p.H + l) * p.W + j) * p.C;
        for (int g = 0; g < p.G; ++g) {
          const Band<T>& band = p.rows[g];
          const T* weight = &band.adjoint_weight[size_t(l) * band.adjoint_taps];
          const int64_t first = band.adjoint_start[l] * tile.stride + int64_t(j - j0) * p.C;
          const int count = band.adjoint_count[l];
          for_each_block<T>(g * p.D, (g + 1) * p.D, [&](int c, auto width) {
            constexpr int N = decltype(width)::value;
            const Pack<T, N> own = load<N>(tile.mean1 + here + c);
            Pack<T, N> mean{}, var{};
            for (int k = 0; k < count; ++k) {
              const int64_t at = first + k * tile.stride + c;
              const Pack<T, N> part = weight[k] * load<N>(tile.to_var + at);
              var += part;
              mean += weight[k] * load<N>(tile.to_mean + at) + 2 * part * (own - load<N>(tile.mean + at));
            }
            store<N>(&mean1[target + c], own);
            store<N>(&to_mean1[target + c], mean);
            store<N>(&to_var1[target + c], var);
          });
        }
      }
    }
  }

  // One output token: its share of the parameters' gradients, the direct part of the input's, and the gradients of the
  // moments over its neighbourhood.
  void token_task(int64_t b, int i, int j, int column, const Tile& tile, T* channels, LaneSums<T, kTileFields>* sums) {
    const int64_t token = (b * p.H + i) * p.W + j;
    const T own_mean = tokens.own_mean[token], own_var = tokens.own_var[token];
    const int64_t here = i * tile.stride + int64_t(column) * p.C;
    LaneSums<T, 2> own;  // gradients of LayerNorm's mean and variance
    for (int g = 0; g < p.G; ++g) {
      const Band<T>& band = p.rows[g];
      const size_t tap = size_t(i) * band.taps;
      const int64_t source = band.start[i] * tile.stride + int64_t(column) * p.C;
      const T mean_share = p.mean_share[g], var_share = p.var_share[g], scale = tokens.scale[token * p.G + g];
      for_each_block<T>(g * p.D, (g + 1) * p.D, [&](int c, auto width) {
        constexpr int N = decltype(width)::value;
        using V = Pack<T, N>;
        const T *mean1 = tile.mean1 + source + c, *var1 = tile.var1 + source + c;
        V mean, var;
        column_moments<N>(&band.weight[tap], band.taps, tile.stride, mean1, var1, mean, var);
        const V inverse = inverse_sqrt<N>(var_share * own_var + T(p.shape.eps) + (1 - var_share) * var);
        const V centre = mean_share * own_mean + (1 - mean_share) * mean;
        const V z = (load<N>(p.x + token * p.C + c) * scale - centre) * inverse;
        const V to_y = load<N>(grad_y + token * p.C + c);
        store<N>(channels + c, load<N>(channels + c) + to_y * z);
        store<N>(channels + p.C + c, load<N>(channels + p.C + c) + to_y);
        const V to_centred = to_y * load<N>(p.weight + c) * inverse;
        const V to_blend = T(-0.5) * to_centred * z * inverse;  // gradient of the blended variance
        store<N>(out.x + token * p.C + c, to_centred);
        own.template add<N>(0, -mean_share * to_centred);
        own.template add<N>(1, var_share * to_blend);
        const V to_mean = -(1 - mean_share) * to_centred, to_var = (1 - var_share) * to_blend;
        store<N>(tile.mean + here + c, mean);
        store<N>(tile.to_mean + here + c, to_mean);
        store<N>(tile.to_var + here + c, to_var);
        V linear{}, quadratic{};
        for (int k = 0; k < band.taps; ++k) {
          const V deviation = load<N>(mean1 + k * tile.stride) - mean;
          const V effect = deviation * (to_mean + to_var * deviation) + to_var * load<N>(var1 + k * tile.stride);
          linear += band.weight_linear[tap + k] * effect;
          quadratic += band.weight_quadratic[tap + k] * effect;
        }
        sums[g].template add<N>(kMeanGate, to_centred * (mean - own_mean));
        sums[g].template add<N>(kVarGate, to_blend * (own_var - var));
        sums[g].template add<N>(kRowLinear, linear);
        sums[g].template add<N>(kRowQuadratic, quadratic);
      });
    }
    const T to_own_mean = own.total(0) / p.C, to_own_var = own.total(1) * T(2) / (p.shape.unbiased ? p.C - 1 : p.C);
    for (int g = 0; g < p.G; ++g) {
      const T scale = tokens.scale[token * p.G + g];
      const T* x = p.x + token * p.C;
      T* to_x = out.x + token * p.C;
      for (int c = g * p.D; c < (g + 1) * p.D; ++c) to_x[c] += to_own_mean + to_own_var * (x[c] * scale - own_mean);
    }
  }

  void row_task(int64_t row, T* normalized, double* slot) {
    const int64_t first_token = row * p.W;
    for (int j = 0; j < p.W; ++j) {
      for (int g = 0; g < p.G; ++g) {
        const T scale = tokens.scale[(first_token + j) * p.G + g];
        const T* x = p.x + (first_token + j) * p.C;
        for (int c = g * p.D; c < (g + 1) * p.D; ++c) normalized[int64_t(j) * p.C + c] = x[c] * scale;
      }
    }
    const T *row_mean = &mean1[first_token * p.C], *row_to_mean = &to_mean1[first_token * p.C];
    const T* row_to_var = &to_var1[first_token * p.C];
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
          const V mean = load<N>(row_mean + here + c), to_mean = load<N>(row_to_mean + here + c);
          const V to_var = load<N>(row_to_var + here + c);
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
            const V deviation = own - load<N>(row_mean + at);
            total += adjoint[k] * (load<N>(row_to_mean + at) + 2 * load<N>(row_to_var + at) * deviation);
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
        const T scale = tokens.scale[(first_token + j) * p.G + g];
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

}  // namespace dtn
