// Prefix tokens, which stand before the grid and have no neighbours. Their normalisation is LayerNorm, after division
// by group RMS with head_rms.
#pragma once

#include <vector>

#include "problem.h"

namespace dtn {

template <class T>
void normalize_prefix(const Problem<T>& p, T* y) {
  parallel_for(p.shape.prefix ? p.shape.batch : 0, p.shape.threads, [&] {
    return [&, scales = std::vector<T>(p.G)](int64_t b) mutable {
      for (int64_t index = 0; index < p.shape.prefix; ++index) {
        const int64_t place = p.prefix_place(b, index);
        T mean, var;
        measure_token(p, p.x + place, scales.data(), mean, var);
        const T inverse = T(1) / std::sqrt(var + T(p.shape.eps));
        for (int c = 0; c < p.C; ++c) {
          const T centred = p.x[place + c] * scales[c / p.D] - mean;
          y[place + c] = centred * inverse * p.weight[c] + p.bias[c];
        }
      }
    };
  });
}

// Converts, in place, the gradient of the normalised groups into the gradient of the token `x`.
template <class T>
void undo_group_rms(const Problem<T>& p, const T* x, const T* scales, T* gradient) {
  for (int g = 0; g < p.G; ++g) {
    const int first = g * p.D, end = first + p.D;
    LaneSum<T> product;
    for_each_block<T>(first, end, [&](int c, auto width) {
      constexpr int N = decltype(width)::value;
      product.template add<N>(load<N>(gradient + c) * load<N>(x + c));
    });
    const T along = product.total() * scales[g] * scales[g] / p.D;
    for (int c = first; c < end; ++c) gradient[c] = scales[g] * (gradient[c] - x[c] * along);
  }
}

// Computes the gradient of one prefix token, and adds its share of the gradients of weight and bias to `affine` (2, C).
template <class T>
void prefix_token_gradient(const Problem<T>& p, const T* x, const T* to_y, T* to_x, T* scales, double* affine) {
  T mean, var;
  measure_token(p, x, scales, mean, var);
  const T inverse = T(1) / std::sqrt(var + T(p.shape.eps));
  T to_mean = 0, to_var = 0;
  for (int c = 0; c < p.C; ++c) {
    const T z = (x[c] * scales[c / p.D] - mean) * inverse;
    affine[c] += to_y[c] * z;
    affine[p.C + c] += to_y[c];
    to_x[c] = to_y[c] * p.weight[c] * inverse;
    to_mean -= to_x[c];
    to_var -= T(0.5) * to_x[c] * z * inverse;
  }
  to_mean /= p.C;
  to_var *= T(2) / (p.shape.unbiased ? p.C - 1 : p.C);
  for (int c = 0; c < p.C; ++c) to_x[c] += to_mean + to_var * (x[c] * scales[c / p.D] - mean);
  if (p.shape.head_rms) undo_group_rms(p, x, scales, to_x);
}

// Writes the gradients of the prefix tokens, and returns their contribution to the gradients of weight and bias, (2,
// C).
template <class T>
std::vector<double> prefix_gradients(const Problem<T>& p, const T* grad_y, T* grad_x) {
  Slots slots(p.shape.prefix ? p.shape.batch : 0, 2 * p.C);
  parallel_for(p.shape.prefix ? p.shape.batch : 0, p.shape.threads, [&] {
    return [&, scales = std::vector<T>(p.G)](int64_t b) mutable {
      for (int64_t index = 0; index < p.shape.prefix; ++index) {
        const int64_t place = p.prefix_place(b, index);
        prefix_token_gradient(p, p.x + place, grad_y + place, grad_x + place, scales.data(), slots[b]);
      }
    };
  });
  return slots.total();
}

}  // namespace dtn
