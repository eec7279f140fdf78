// The backward pass.
#pragma once

#include <vector>

#include "map.h"
#include "prefix.h"
#include "problem.h"

namespace dtn {

template <class T>
struct Gradients {
  T *x, *coefficients, *mean_gate, *var_gate, *weight, *bias;
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

// With deviations from any constant P, the gradient that reaches a source s of the filter m = sum w x,
// v = sum w (x - m)^2 from gradients dm and dv is sum w (dm + 2 dv (x_s - m)) = sum w u + 2 (x_s - P) sum w dv with
// u = dm - 2 dv (m - P); and that of the weights' parameters is sum w' ((x - P) u + (x - P)^2 dv), for the derivatives w'
// of the weights sum to 0. So u and dv are all that a filter passes on.
template <class T>
class Backward {
 public:
  Backward(const Problem<T>& p, const T* grad_y, Gradients<T> out)
      : p(p), grad_y(grad_y), out(out), tokens(p), row_u(p.num_tokens() * p.C), row_to_var(p.num_tokens() * p.C) {}

  void run() {
    // First the output and the filters over the height, tile by tile, down to the gradients of the moments within rows;
    // out.x holds the direct part of the input's gradient meanwhile.
    const int tile = p.tile_width(4);
    Slots tile_slots(p.shape.batch * ((p.W + tile - 1) / tile), kTileFields * p.G + 2 * p.C);
    for_each_tile(p, tile, [&] {
      return [&, buffer = std::vector<T>(size_t(4) * p.H * tile * p.C), channels = std::vector<T>(2 * p.C),
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
    collect(prefix_gradients(p, grad_y, out.x), tile_slots.total(), row_slots.total());
  }

 private:
  const Problem<T>& p;
  const T* grad_y;
  Gradients<T> out;
  const TokenStatistics<T> tokens;
  Map<T> row_u, row_to_var;  // (B, H, W, C) for the filters over the width, with P the middle token of the row

  // Buffers (H, tile, C) of one tile.
  struct Tile {
    int64_t stride;     // of a row
    T *mean1, *var1;    // moments within the row
    T *u, *to_var;      // for the filters over the height, with P the mean1 in the middle of the column
    const T* constant;  // (tile, C) that P

    Tile(const Problem<T>& p, T* buffer, int width) : stride(int64_t(width) * p.C) {
      for (T** array : {&mean1, &var1, &u, &to_var}) {
        *array = buffer;
        buffer += p.H * stride;
      }
      constant = mean1 + p.H / 2 * stride;
    }
  };

  int64_t middle_of_row(int64_t row) const { return row * p.W + p.W / 2; }

  void tile_task(int64_t b, int j0, int j1, const Tile& tile, T* channels, LaneSums<T, kTileFields>* sums,
                 double* slot) {
    row_moments(p, tokens, b, j0, j1, tile.mean1, tile.var1);
    std::fill(channels, channels + 2 * p.C, T(0));
    for (int i = 0; i < p.H; ++i) {
      for (int j = j0; j < j1; ++j) token_task(b, i, j, j - j0, tile, channels, sums);
    }
    for (int g = 0; g < p.G; ++g) sums[g].flush(slot + g, p.G);
    for (int c = 0; c < 2 * p.C; ++c) slot[kTileFields * p.G + c] += channels[c];

    for (int l = 0; l < p.H; ++l) {
      const int64_t middle = middle_of_row(b * p.H + l);
      for (int j = j0; j < j1; ++j) {
        const int64_t column = int64_t(j - j0) * p.C, target = ((b * p.H + l) * p.W + j) * p.C;
        for (int g = 0; g < p.G; ++g) {
          const Band<T>& band = p.rows[g];
          const T* weight = &band.adjoint_weight[size_t(l) * band.adjoint_taps];
          const int64_t first = band.adjoint_start[l] * tile.stride + column;
          const int count = band.adjoint_count[l];
          const T middle_scale = tokens.scale[middle * p.G + g];
          for_each_block<T>(g * p.D, (g + 1) * p.D, [&](int c, auto width) {
            constexpr int N = decltype(width)::value;
            using V = Pack<T, N>;
            V from_u{}, to_var{};
            for (int k = 0; k < count; ++k) {
              from_u += weight[k] * load<N>(tile.u + first + k * tile.stride + c);
              to_var += weight[k] * load<N>(tile.to_var + first + k * tile.stride + c);
            }
            const V own = load<N>(tile.mean1 + l * tile.stride + column + c);
            const V to_mean = from_u + 2 * to_var * (own - load<N>(tile.constant + column + c));
            const V constant = middle_scale * load<N>(p.x + p.place(b, middle) + c);
            store<N>(&row_u[target + c], to_mean - 2 * to_var * (own - constant));
            store<N>(&row_to_var[target + c], to_var);
          });
        }
      }
    }
  }

  // One output token: its share of the parameters' gradients, the direct part of the input's, and what the filter over
  // the height passes on.
  void token_task(int64_t b, int i, int j, int column, const Tile& tile, T* channels, LaneSums<T, kTileFields>* sums) {
    const int64_t token = (b * p.H + i) * p.W + j, place = p.place(b, token);
    const T own_mean = tokens.own_mean[token], own_var = tokens.own_var[token];
    const int64_t here = i * tile.stride + int64_t(column) * p.C;
    LaneSums<T, 2> own;  // gradients of LayerNorm's mean and variance
    for (int g = 0; g < p.G; ++g) {
      const Band<T>& band = p.rows[g];
      const size_t tap = size_t(i) * band.taps;
      const T *weight = &band.weight[tap], *by_linear = &band.weight_linear[tap];
      const T* by_quadratic = &band.weight_quadratic[tap];
      const int64_t source = band.start[i] * tile.stride + int64_t(column) * p.C;
      const T mean_share = p.mean_share[g], var_share = p.var_share[g], scale = tokens.scale[token * p.G + g];
      for_each_block<T>(g * p.D, (g + 1) * p.D, [&](int c, auto width) {
        constexpr int N = decltype(width)::value;
        using V = Pack<T, N>;
        const T *mean1 = tile.mean1 + source + c, *var1 = tile.var1 + source + c;
        const V pilot = load<N>(mean1 + band.pilot[i] * tile.stride);
        V first{}, second{}, linear1{}, linear2{}, quadratic1{}, quadratic2{}, mean, var;
        for (int k = 0; k < band.count[i]; ++k) {
          const V deviation = load<N>(mean1 + k * tile.stride) - pilot;
          const V square = deviation * deviation + load<N>(var1 + k * tile.stride);
          first += weight[k] * deviation;
          second += weight[k] * square;
          linear1 += by_linear[k] * deviation;
          linear2 += by_linear[k] * square;
          quadratic1 += by_quadratic[k] * deviation;
          quadratic2 += by_quadratic[k] * square;
        }
        settle(pilot, first, second, mean, var);
        const V inverse = inverse_sqrt<N>(var_share * own_var + T(p.shape.eps) + (1 - var_share) * var);
        const V centre = mean_share * own_mean + (1 - mean_share) * mean;
        const V z = (load<N>(p.x + place + c) * scale - centre) * inverse;
        const V to_y = load<N>(grad_y + place + c);
        store<N>(channels + c, load<N>(channels + c) + to_y * z);
        store<N>(channels + p.C + c, load<N>(channels + p.C + c) + to_y);
        const V to_centred = to_y * load<N>(p.weight + c) * inverse;
        const V to_blend = T(-0.5) * to_centred * z * inverse;  // gradient of the blended variance
        store<N>(out.x + place + c, to_centred);
        own.template add<N>(0, -mean_share * to_centred);
        own.template add<N>(1, var_share * to_blend);
        const V to_mean = (mean_share - 1) * to_centred, to_var = (1 - var_share) * to_blend;
        store<N>(tile.u + here + c, to_mean - 2 * to_var * (mean - load<N>(tile.constant + column * p.C + c)));
        store<N>(tile.to_var + here + c, to_var);
        const V from_pilot = to_mean - 2 * to_var * first;
        sums[g].template add<N>(kMeanGate, to_centred * (mean - own_mean));
        sums[g].template add<N>(kVarGate, to_blend * (own_var - var));
        sums[g].template add<N>(kRowLinear, from_pilot * linear1 + to_var * linear2);
        sums[g].template add<N>(kRowQuadratic, from_pilot * quadratic1 + to_var * quadratic2);
      });
    }
    const T to_own_mean = own.total(0) / p.C, to_own_var = own.total(1) * T(2) / (p.shape.unbiased ? p.C - 1 : p.C);
    for (int g = 0; g < p.G; ++g) {
      const T scale = tokens.scale[token * p.G + g];
      const T* x = p.x + place;
      T* to_x = out.x + place;
      for (int c = g * p.D; c < (g + 1) * p.D; ++c) to_x[c] += to_own_mean + to_own_var * (x[c] * scale - own_mean);
    }
  }

  void row_task(int64_t row, T* deviation, double* slot) {
    const int64_t first_token = row * p.W, middle = middle_of_row(row), place = p.place(row / p.H, first_token);
    for (int j = 0; j < p.W; ++j) {
      for (int g = 0; g < p.G; ++g) {
        const T scale = tokens.scale[(first_token + j) * p.G + g], middle_scale = tokens.scale[middle * p.G + g];
        const T *x = p.x + place + int64_t(j) * p.C, *constant = p.x + place + int64_t(p.W / 2) * p.C;
        T* target = deviation + int64_t(j) * p.C;
        for (int c = g * p.D; c < (g + 1) * p.D; ++c) target[c] = x[c] * scale - constant[c] * middle_scale;
      }
    }
    const T *u = &row_u[first_token * p.C], *to_var = &row_to_var[first_token * p.C];
    for (int g = 0; g < p.G; ++g) {
      const Band<T>& band = p.cols[g];
      LaneSums<T, kRowFields> sums;
      for (int j = 0; j < p.W; ++j) {
        const T* by_linear = &band.weight_linear[size_t(j) * band.taps];
        const T* by_quadratic = &band.weight_quadratic[size_t(j) * band.taps];
        const T* weight = &band.adjoint_weight[size_t(j) * band.adjoint_taps];
        const int64_t here = int64_t(j) * p.C, sources = int64_t(band.start[j]) * p.C;
        const int64_t outputs = int64_t(band.adjoint_start[j]) * p.C;
        for_each_block<T>(g * p.D, (g + 1) * p.D, [&](int c, auto width) {
          constexpr int N = decltype(width)::value;
          using V = Pack<T, N>;
          const V own_u = load<N>(u + here + c), own_to_var = load<N>(to_var + here + c);
          V linear{}, quadratic{};
          for (int k = 0; k < band.count[j]; ++k) {
            const V source = load<N>(deviation + sources + int64_t(k) * p.C + c);
            const V effect = source * (own_u + own_to_var * source);
            linear += by_linear[k] * effect;
            quadratic += by_quadratic[k] * effect;
          }
          sums.template add<N>(kColLinear, linear);
          sums.template add<N>(kColQuadratic, quadratic);

          V from_u{}, from_var{};
          for (int k = 0; k < band.adjoint_count[j]; ++k) {
            from_u += weight[k] * load<N>(u + outputs + int64_t(k) * p.C + c);
            from_var += weight[k] * load<N>(to_var + outputs + int64_t(k) * p.C + c);
          }
          T* target = out.x + place + here + c;
          store<N>(target, load<N>(target) + from_u + 2 * from_var * load<N>(deviation + here + c));
        });
      }
      sums.flush(slot + g, p.G);
    }
    if (!p.shape.head_rms) return;
    for (int j = 0; j < p.W; ++j) {
      const int64_t here = place + int64_t(j) * p.C;
      undo_group_rms(p, p.x + here, &tokens.scale[(first_token + j) * p.G], out.x + here);
    }
  }

  void collect(const std::vector<double>& prefix, const std::vector<double>& tiles,
               const std::vector<double>& rows_total) {
    for (int g = 0; g < p.G; ++g) {
      const double mean_share = p.mean_share[g], var_share = p.var_share[g];
      if (!p.shape.only_var) out.mean_gate[g] = T(tiles[kMeanGate * p.G + g] * mean_share * (1 - mean_share));
      out.var_gate[g] = T(tiles[kVarGate * p.G + g] * var_share * (1 - var_share));
      out.coefficients[3 * g] = T(rows_total[kColLinear * p.G + g]);
      out.coefficients[3 * g + 1] = T(tiles[kRowLinear * p.G + g]);
      out.coefficients[3 * g + 2] = T(tiles[kRowQuadratic * p.G + g] + rows_total[kColQuadratic * p.G + g]);
    }
    for (int c = 0; c < p.C; ++c) {
      out.weight[c] = T(prefix[c] + tiles[kTileFields * p.G + c]);
      out.bias[c] = T(prefix[p.C + c] + tiles[kTileFields * p.G + p.C + c]);
    }
  }
};

}  // namespace dtn
