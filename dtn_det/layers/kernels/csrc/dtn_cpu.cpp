// Dynamic Token Normalization on a CPU: forward and backward pass with banded filters along each axis.
//
// The variance over the neighbours is computed first along the width and then along the height, by the law of total
// variance: v = sum_l Y_l (v1_l + (m1_l - m)^2), where m1_l and v1_l are the mean and variance within row l.
//
// Tiles of a few whole columns stay in a core's own cache, so the forward pass needs no map of intermediate results.
// The backward pass needs two maps of the size of the input, or none if images are small. Nothing is kept between the
// passes.
#include "backward.h"
#include "prefix.h"
#include "problem.h"

namespace dtn {

// Computes one group of an output token, from the moments within rows at the token's column. The moments of successive
// rows are `stride` apart.
template <class T>
void normalize_token(const Problem<T>& p, const TokenStatistics<T>& tokens, int64_t b, int g, int i, int j,
                     const T* mean1, const T* var1, int64_t stride, T* y) {
  const int64_t token = (b * p.H + i) * p.W + j, place = p.place(b, token) + g * p.D;
  const Band<T>& band = p.rows[g];
  const T* weight = &band.weight[size_t(i) * band.taps];
  const int64_t source = band.start[i] * stride, pilot_source = source + band.pilot[i] * stride;
  const int count = band.count[i];
  const T mean_share = p.mean_share[g], var_share = p.var_share[g], scale = tokens.scale[token * p.G + g];
  const T mean_own = mean_share * tokens.own_mean[token];
  const T var_own = var_share * tokens.own_var[token] + T(p.shape.eps);
  for_each_block<T, kFewSums<T>>(0, p.D, [&](int c, auto width) {
    constexpr int N = decltype(width)::value;
    const Pack<T, N> pilot = load<N>(mean1 + pilot_source + c);
    Pack<T, N> first{}, second{}, mean, var;
    for (int k = 0; k < count; ++k) {
      const Pack<T, N> deviation = load<N>(mean1 + source + k * stride + c) - pilot;
      first += weight[k] * deviation;
      second += weight[k] * (deviation * deviation + load<N>(var1 + source + k * stride + c));
    }
    settle(pilot, first, second, mean, var);
    const Pack<T, N> inverse = inverse_sqrt<N>(var_own + (1 - var_share) * var);
    const Pack<T, N> centred = load<N>(p.x + place + c) * scale - (mean_own + (1 - mean_share) * mean);
    store<N>(y + place + c, centred * inverse * load<N>(p.weight + g * p.D + c) + load<N>(p.bias + g * p.D + c));
  });
}

template <class T>
void forward(const Problem<T>& p, T* y) {
  normalize_prefix(p, y);
  TokenStatistics<T> tokens(p);
  const int tile = p.tile_width(2), groups = p.groups_at_once();
  for_each_tile(p, tile, [&] {
    return [&, moments = Moments<T>(p, groups, tile)](int64_t b, int j0, int j1, int64_t) mutable {
      if (p.by_image()) {
        tokens.measure_image(p, b);
        p.template fetch_image<1>(y, b);
      }
      for (int g0 = 0; g0 < p.G; g0 += groups) {
        moments.fill(tokens, b, g0, j0, j1);
        for (int i = 0; i < p.H; ++i) {
          for (int index = 0; index < groups; ++index) {
            const T *mean1 = moments.mean(index, 0), *var1 = moments.var(index, 0);
            for (int j = j0; j < j1; ++j, mean1 += p.D, var1 += p.D) {
              normalize_token(p, tokens, b, g0 + index, i, j, mean1, var1, moments.stride(), y);
            }
          }
        }
      }
    };
  });
}

// Runs f; returns 0, or 1 if memory ran out.
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

// Makes parallel loops run on the threads of an OpenMP runtime; null makes them run on threads of this library.
extern "C" void dtn_use_openmp(dtn::OpenMPParallel parallel) { dtn::openmp_parallel = parallel; }

// Returns the instruction sets of the processor: 2 for AVX-512, AVX2 and FMA, 1 for AVX2 and FMA, 0 for neither.
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
