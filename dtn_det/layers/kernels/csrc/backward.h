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

// Sums that a thread collects in short vectors. flush() adds them to a slot.
template <class T, int Fields, int Lanes = kLanes<T>>
struct LaneSums {
  T lane[Fields][Lanes] = {};

  template <int N>
  void add(int field, Pack<T, N> value) {
    if constexpr (N > Lanes) {
      add<N / 2>(field, halves_added<N>(value));
    } else {
      store<N>(lane[field], load<N>(lane[field]) + value);
    }
  }
  T total(int field) const {
    T result = 0;
    for (int i = 0; i < Lanes; ++i) result += lane[field][i];
    return result;
  }
  void flush(double* slot, int64_t step) {
    for (int field = 0; field < Fields; ++field) {
      for (int i = 0; i < Lanes; ++i) {
        slot[field * step] += lane[field][i];
        lane[field][i] = 0;
      }
    }
  }
};

// Fields of a slot, each (G,): the gradients of the coefficients, from the filters over the width and over the height,
// and the gradients of the gates. The slot of a tile also holds the gradients of weight and bias, each (C,).
enum Field { kColLinear, kColQuadratic, kRowFields, kRowLinear = kRowFields, kRowQuadratic, kMeanGate, kVarGate, kFields };

// A filter computes m = sum w x and v = sum w (x - m)^2. Let dm and dv be the gradients of m and v, P any constant, and
// u = dm - 2 dv (m - P). Then a source s gets the gradient sum w (dm + 2 dv (x_s - m)) = sum w u + 2 (x_s - P) sum w
// dv. The parameters of the weights get sum w' ((x - P) u + (x - P)^2 dv), because the derivatives w' of the weights
// sum to 0. So a filter only needs to pass on u and dv.
template <class T>
class Backward {
 public:
  Backward(const Problem<T>& p, const T* grad_y, Gradients<T> out) : p(p), grad_y(grad_y), out(out), tokens(p) {}

  void run() {
    const auto prefix = prefix_gradients(p, grad_y, out.x);
    const int tile = p.tile_width(4);
    Slots tile_slots(p.shape.batch * ((p.W + tile - 1) / tile), kFields * p.G + 2 * p.C);
    Slots row_slots(p.by_image() ? 0 : p.num_rows(), kRowFields * p.G);
    p.by_image() ? run_images(tile_slots) : run_tiles(tile, tile_slots, row_slots);
    collect(prefix, tile_slots.total(), row_slots.total());
  }

 private:
  const Problem<T>& p;
  const T* grad_y;
  Gradients<T> out;
  TokenStatistics<T> tokens;

  // Gradients of a token's own mean and variance. These sums have fewer lanes, because each token of a tile needs them.
  using OwnSums = LaneSums<T, 2, (kLanes<T> + 3) / 4>;

  // Some columns of one group of a tile: so few that all values a filter over the height reads fit in the first-level
  // cache.
  struct Strip {
    int64_t moments_stride;  // step from a row to the next in mean1 and var1
    T *mean1, *var1;         // (H, ., D) moments within the rows
    int64_t stride;          // step from a row to the next in u and to_var
    T *u, *to_var;           // (H, width, D) u and dv of the filters over the height; P is mean1 at mid-height
    const T* constant;       // (width, D) values of P
  };

  // The maps u and dv that the filters over the width receive for one group. P is the middle token of the row, and
  // tokens lie `stride` apart.
  struct RowMaps {
    T *u, *to_var;
    int64_t stride;

    RowMaps at(int64_t offset) const { return {u + offset, to_var + offset, stride}; }
  };

  // The buffers that a thread needs for a tile of at most `width` columns and for `groups` groups.
  struct Workspace {
    Moments<T> moments;
    Map<T> gradients, channels;
    std::vector<OwnSums> own;
    std::vector<LaneSums<T, kFields>> sums;

    Workspace(const Problem<T>& p, int groups, int width)
        : moments(p, groups, width), gradients(int64_t(2) * groups * p.H * width * p.D), channels(2 * p.C),
          own(size_t(p.H) * width), sums(groups) {}

    // Returns the part of the buffers for the columns from `first` to `end` of a tile.
    Strip strip(const Problem<T>& p, int index, int first, int end) {
      const int64_t stride = int64_t(end - first) * p.D, offset = int64_t(first) * p.D;
      T *mean1 = moments.mean(index, 0) + offset, *var1 = moments.var(index, 0) + offset;
      T* u = &gradients[2 * index * p.H * stride];
      return {moments.stride(), mean1, var1, stride, u, u + p.H * stride, mean1 + p.H / 2 * moments.stride()};
    }
  };

  // Number of columns of a strip: all columns of a tile, or if the tile is a whole image, as many as fit in 32 KiB.
  int strip_width(int g, int width) const {
    if (!p.by_image()) return width;
    const int64_t column = int64_t(2) * p.rows[g].taps * p.D * sizeof(T);
    return int(std::max<int64_t>(1, (int64_t(32) << 10) / column));
  }

  // Computes the gradients of each image as one task.
  void run_images(Slots& slots) {
    for_each_tile(p, p.W, [&] {
      const int64_t size = int64_t(p.H) * p.W * p.D;
      return [&, size, space = Workspace(p, 1, p.W), maps = Map<T>(2 * size), deviation = Map<T>(p.W * p.D)](
                 int64_t b, int, int, int64_t task) mutable {
        p.template fetch_image<0>(grad_y, b);
        tokens.measure_image(p, b);
        p.template fetch_image<1>(out.x, b);
        const RowMaps rows{&maps[0], &maps[size], p.D};
        tile_task(b, 0, p.W, space, slots[task], [&](int) { return rows; }, [&](int g) {
          for (int64_t i = 0; i < p.H; ++i) {
            filter_row(b, b * p.H + i, g, rows.at(i * p.W * p.D), &deviation[0], slots[task] + g);
          }
        });
        if (p.shape.head_rms) undo_group_rms(b, b * p.H * p.W, (b + 1) * p.H * p.W);
      };
    });
  }

  // First goes back through the output and the filters over the height, tile by tile, to the gradients of the moments
  // within rows. Meanwhile out.x holds the direct part of the input's gradient. Then goes back through the filters over
  // the width and the group normalisation, row by row.
  void run_tiles(int tile, Slots& tile_slots, Slots& row_slots) {
    Map<T> row_u(p.num_tokens() * p.C), row_to_var(p.num_tokens() * p.C);  // (B, H, W, C)
    const RowMaps rows{&row_u[0], &row_to_var[0], p.C};
    const int64_t row_size = int64_t(p.W) * p.C;
    for_each_tile(p, tile, [&] {
      return [&, space = Workspace(p, p.G, tile)](int64_t b, int j0, int j1, int64_t task) mutable {
        tile_task(b, j0, j1, space, tile_slots[task], [&](int g) { return rows.at(b * p.H * row_size + g * p.D); }, [](int) {});
      };
    });
    parallel_for(p.num_rows(), p.shape.threads, [&] {
      return [&, deviation = Map<T>(p.W * p.D)](int64_t row) mutable {
        const int64_t b = row / p.H;
        for (int g = 0; g < p.G; ++g) {
          filter_row(b, row, g, rows.at(row * row_size + g * p.D), &deviation[0], row_slots[row] + g);
        }
        if (p.shape.head_rms) undo_group_rms(b, row * p.W, (row + 1) * p.W);
      };
    });
  }

  int64_t middle_of_row(int64_t row) const { return row * p.W + p.W / 2; }

  // Computes the columns from j0 to j1 of an image. `rows_of` returns the maps of a group, and `finish` is called when
  // these are complete.
  template <class RowsOf, class Finish>
  void tile_task(int64_t b, int j0, int j1, Workspace& space, double* slot, RowsOf rows_of, Finish finish) {
    const int width = j1 - j0, groups = p.groups_at_once();
    std::fill_n(&space.channels[0], 2 * p.C, T(0));
    std::fill(space.own.begin(), space.own.end(), OwnSums());
    for (int g0 = 0; g0 < p.G; g0 += groups) {
      space.moments.fill(tokens, b, g0, j0, j1);
      const int step = strip_width(g0, width);
      for (int first = 0; first < width; first += step) {
        const int end = std::min(width, first + step);
        for (int i = 0; i < p.H; ++i) {
          for (int index = 0; index < groups; ++index) {
            const int g = g0 + index;
            const Strip strip = space.strip(p, index, first, end);
            for (int j = first; j < end; ++j) {
              OwnSums& own = space.own[i * width + j];
              output_task(b, g, i, j0 + j, strip, (j - first) * p.D, &space.channels[g * p.D], own, space.sums[index]);
            }
          }
          if (groups == p.G) own_tasks(b, i, j0 + first, j0 + end, &space.own[i * width + first]);
        }
        for (int i = 0; i < p.H; ++i) {
          for (int index = 0; index < groups; ++index) {
            const Strip strip = space.strip(p, index, first, end);
            const RowMaps rows = rows_of(g0 + index);
            for (int j = first; j < end; ++j) column_task(b, g0 + index, i, j0 + j, strip, (j - first) * p.D, rows);
          }
        }
      }
      for (int index = 0; index < groups; ++index) space.sums[index].flush(slot + g0 + index, p.G);
      finish(g0);
    }
    if (groups != p.G) {
      for (int i = 0; i < p.H; ++i) own_tasks(b, i, j0, j1, &space.own[i * width]);
    }
    for (int c = 0; c < 2 * p.C; ++c) slot[kFields * p.G + c] += space.channels[c];
  }

  // Computes for one group of an output token: its share of the gradients of the parameters, the direct part of the
  // gradient of the input, and u and dv of the filter over the height.
  void output_task(int64_t b, int g, int i, int j, const Strip& strip, int64_t column, T* channels, OwnSums& own,
                   LaneSums<T, kFields>& sums) {
    const int64_t token = (b * p.H + i) * p.W + j, place = p.place(b, token) + g * p.D;
    const T own_mean = tokens.own_mean[token], own_var = tokens.own_var[token];
    const Band<T>& band = p.rows[g];
    const size_t tap = size_t(i) * band.taps;
    const T *weight = &band.weight[tap], *by_linear = &band.weight_linear[tap];
    const T* by_quadratic = &band.weight_quadratic[tap];
    const int64_t here = i * strip.stride + column, stride = strip.moments_stride;
    const int64_t source = band.start[i] * stride + column, pilot_source = source + band.pilot[i] * stride;
    const int count = band.count[i];
    const T mean_share = p.mean_share[g], var_share = p.var_share[g], scale = tokens.scale[token * p.G + g];
    for_each_block<T, kManySums<T>>(0, p.D, [&](int c, auto width) {
      constexpr int N = decltype(width)::value;
      using V = Pack<T, N>;
      const T *mean1 = strip.mean1 + source + c, *var1 = strip.var1 + source + c;
      const V pilot = load<N>(strip.mean1 + pilot_source + c);
      V first{}, second{}, linear1{}, linear2{}, quadratic1{}, quadratic2{}, mean, var;
      for (int k = 0; k < count; ++k) {
        const V deviation = load<N>(mean1 + k * stride) - pilot;
        const V square = deviation * deviation + load<N>(var1 + k * stride);
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
      const V to_centred = to_y * load<N>(p.weight + g * p.D + c) * inverse;
      const V to_blend = T(-0.5) * to_centred * z * inverse;  // gradient of the blended variance
      store<N>(out.x + place + c, to_centred);
      own.template add<N>(0, -mean_share * to_centred);
      own.template add<N>(1, var_share * to_blend);
      const V to_mean = (mean_share - 1) * to_centred, to_var = (1 - var_share) * to_blend;
      store<N>(strip.u + here + c, to_mean - T(2) * to_var * (mean - load<N>(strip.constant + column + c)));
      store<N>(strip.to_var + here + c, to_var);
      const V from_pilot = to_mean - T(2) * to_var * first;
      sums.template add<N>(kMeanGate, to_centred * (mean - own_mean));
      sums.template add<N>(kVarGate, to_blend * (own_var - var));
      sums.template add<N>(kRowLinear, from_pilot * linear1 + to_var * linear2);
      sums.template add<N>(kRowQuadratic, from_pilot * quadratic1 + to_var * quadratic2);
    });
  }

  // Computes the gradients of the moments within rows, for one group of one source of the filters over the height.
  void column_task(int64_t b, int g, int i, int j, const Strip& strip, int64_t column, const RowMaps& rows) {
    const int64_t middle = middle_of_row(b * p.H + i), target = (int64_t(i) * p.W + j) * rows.stride;
    const Band<T>& band = p.rows[g];
    const T* weight = &band.adjoint_weight[size_t(i) * band.adjoint_taps];
    const int64_t first = band.adjoint_start[i] * strip.stride + column;
    const int count = band.adjoint_count[i];
    const T* middle_token = p.x + p.place(b, middle) + g * p.D;
    const T middle_scale = tokens.scale[middle * p.G + g];
    for_each_block<T, kFewSums<T>>(0, p.D, [&](int c, auto width) {
      constexpr int N = decltype(width)::value;
      using V = Pack<T, N>;
      V from_u{}, to_var{};
      for (int k = 0; k < count; ++k) {
        from_u += weight[k] * load<N>(strip.u + first + k * strip.stride + c);
        to_var += weight[k] * load<N>(strip.to_var + first + k * strip.stride + c);
      }
      const V own = load<N>(strip.mean1 + i * strip.moments_stride + column + c);
      const V to_mean = from_u + T(2) * to_var * (own - load<N>(strip.constant + column + c));
      const V constant = middle_scale * load<N>(middle_token + c);
      store<N>(rows.u + target + c, to_mean - T(2) * to_var * (own - constant));
      store<N>(rows.to_var + target + c, to_var);
    });
  }

  void own_tasks(int64_t b, int i, int begin, int end, const OwnSums* own) {
    for (int j = begin; j < end; ++j) own_task(b, i, j, *own++);
  }

  // Adds the gradient of the input through the token's own mean and variance.
  void own_task(int64_t b, int i, int j, const OwnSums& own) {
    const int64_t token = (b * p.H + i) * p.W + j, place = p.place(b, token);
    const T own_mean = tokens.own_mean[token];
    const T to_mean = own.total(0) / p.C, to_var = own.total(1) * T(2) / (p.shape.unbiased ? p.C - 1 : p.C);
    for (int g = 0; g < p.G; ++g) {
      const T scale = tokens.scale[token * p.G + g];
      for_each_block<T>(g * p.D, (g + 1) * p.D, [&](int c, auto width) {
        constexpr int N = decltype(width)::value;
        const auto centred = load<N>(p.x + place + c) * scale - own_mean;
        store<N>(out.x + place + c, load<N>(out.x + place + c) + to_mean + to_var * centred);
      });
    }
  }

  void undo_group_rms(int64_t b, int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      const int64_t place = p.place(b, token);
      dtn::undo_group_rms(p, p.x + place, &tokens.scale[token * p.G], out.x + place);
    }
  }

  // Goes back through the filter over the width of a row, for one group. `deviation` is a buffer (W, D).
  void filter_row(int64_t b, int64_t row, int g, const RowMaps& rows, T* deviation, double* slot) {
    const int64_t first_token = row * p.W, place = p.place(b, first_token) + g * p.D;
    const T* constant = p.x + place + int64_t(p.W / 2) * p.C;
    const T middle_scale = tokens.scale[middle_of_row(row) * p.G + g];
    for (int j = 0; j < p.W; ++j) {
      const T scale = tokens.scale[(first_token + j) * p.G + g];
      const T* x = p.x + place + int64_t(j) * p.C;
      for_each_block<T>(0, p.D, [&](int c, auto width) {
        constexpr int N = decltype(width)::value;
        store<N>(deviation + j * p.D + c, load<N>(x + c) * scale - load<N>(constant + c) * middle_scale);
      });
    }
    const Band<T>& band = p.cols[g];
    LaneSums<T, kRowFields> sums;
    for (int j = 0; j < p.W; ++j) {
      const T* by_linear = &band.weight_linear[size_t(j) * band.taps];
      const T* by_quadratic = &band.weight_quadratic[size_t(j) * band.taps];
      const T* weight = &band.adjoint_weight[size_t(j) * band.adjoint_taps];
      const T* sources = deviation + band.start[j] * p.D;
      const int64_t here = j * rows.stride, outputs = band.adjoint_start[j] * rows.stride;
      const int count = band.count[j], adjoint_count = band.adjoint_count[j];
      for_each_block<T, kFewSums<T>>(0, p.D, [&](int c, auto width) {
        constexpr int N = decltype(width)::value;
        using V = Pack<T, N>;
        const V own_u = load<N>(rows.u + here + c), own_to_var = load<N>(rows.to_var + here + c);
        constexpr int Folded = N < kLanes<T> ? N : kLanes<T>;
        Pack<T, Folded> linear{}, quadratic{};
        for (int k = 0; k < count; ++k) {
          const V source = load<N>(sources + k * p.D + c);
          const Pack<T, Folded> effect = folded_product(source, own_u + own_to_var * source);
          linear += by_linear[k] * effect;
          quadratic += by_quadratic[k] * effect;
        }
        sums.template add<Folded>(kColLinear, linear);
        sums.template add<Folded>(kColQuadratic, quadratic);

        V from_u{}, from_var{};
        for (int k = 0; k < adjoint_count; ++k) {
          from_u += weight[k] * load<N>(rows.u + outputs + k * rows.stride + c);
          from_var += weight[k] * load<N>(rows.to_var + outputs + k * rows.stride + c);
        }
        T* target = out.x + place + int64_t(j) * p.C + c;
        store<N>(target, load<N>(target) + from_u + T(2) * from_var * load<N>(deviation + j * p.D + c));
      });
    }
    sums.flush(slot, p.G);
  }

  void collect(const std::vector<double>& prefix, const std::vector<double>& tiles,
               const std::vector<double>& rows_total) {
    for (int g = 0; g < p.G; ++g) {
      const double mean_share = p.mean_share[g], var_share = p.var_share[g];
      if (!p.shape.only_var) out.mean_gate[g] = T(tiles[kMeanGate * p.G + g] * mean_share * (1 - mean_share));
      out.var_gate[g] = T(tiles[kVarGate * p.G + g] * var_share * (1 - var_share));
      out.coefficients[3 * g] = T(tiles[kColLinear * p.G + g] + rows_total[kColLinear * p.G + g]);
      out.coefficients[3 * g + 1] = T(tiles[kRowLinear * p.G + g]);
      out.coefficients[3 * g + 2] =
          T(tiles[kRowQuadratic * p.G + g] + tiles[kColQuadratic * p.G + g] + rows_total[kColQuadratic * p.G + g]);
    }
    for (int c = 0; c < p.C; ++c) {
      out.weight[c] = T(prefix[c] + tiles[kFields * p.G + c]);
      out.bias[c] = T(prefix[p.C + c] + tiles[kFields * p.G + p.C + c]);
    }
  }
};

}  // namespace dtn
