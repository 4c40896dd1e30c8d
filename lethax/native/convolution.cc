// Convolutions of stride 1 with zero padding, and the two derivatives of one, in float32 on CPUs.
//
//     y[n, r, s, o] = sum_{a, b, c} x[n, r + a - kh/2, s + b - kw/2, c] k[a, b, c, o]        pictures [n, h, w, c], kernels [kh, kw, c, o]
//
// Each inner loop adds products to a block of sums that the processor holds in registers: a few positions (or inputs) by a few
// vectors of outputs. The padding is not stored: where a kernel reaches over the edge, it meets a row of zeros.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// WIDTH: numbers in a vector; VECTORS: vectors of outputs in a block; ROWS: positions or inputs in a block.
#if defined(__AVX512F__)
constexpr int WIDTH = 16, VECTORS = 4, ROWS = 6;
#elif defined(__AVX__)
constexpr int WIDTH = 8, VECTORS = 2, ROWS = 6;
#else
constexpr int WIDTH = 4, VECTORS = 2, ROWS = 4;
#endif
constexpr int64_t INPUTS = 64;      // inputs that a convolution goes through before the next ones
constexpr int64_t POSITIONS = 256;  // positions of a band of rows; what is read of a band stays in a cache
typedef float Vector __attribute__((vector_size(WIDTH * sizeof(float)), aligned(sizeof(float)), may_alias));

inline Vector load(const float* at) { return *reinterpret_cast<const Vector*>(at); }
inline void store(float* at, Vector v) { *reinterpret_cast<Vector*>(at) = v; }

struct Shape {
  int64_t n, h, w, inputs, outputs, kh, kw;
};

// The two inner loops are calls. Written into their callers, they had too few registers left for the pointers of their positions,
// and with three vectors of outputs they were a fifth slower.
#define INNER __attribute__((noinline))

// y[p] (+)= sum over t < taps and c < inputs of x[p][t inputs + c] k[t step + c]: P positions, V vectors of outputs.
template <int P, int V>
INNER void multiply(float* const* y, const float* const* x, int64_t taps, int64_t inputs, const float* k, int64_t step, int64_t outputs,
              bool fresh) {
  Vector sum[P][V];
  const float* at[P];
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) {
    at[p] = x[p];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[p][v] = fresh ? Vector{} : load(y[p] + v * WIDTH);
  }
  int64_t from = 0;
  for (int64_t t = 0; t < taps; ++t, k += step * outputs) {
    const float* of = k;
    for (int64_t c = 0; c < inputs; ++c, ++from, of += outputs) {
      Vector row[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) row[v] = load(of + v * WIDTH);
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) {
        const Vector one = at[p][from] - Vector{};
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[p][v] += one * row[v];
      }
    }
  }
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(y[p] + v * WIDTH, sum[p][v]);
}

// k[c] += sum over rows and columns of x[row, s, c] g[row, s]: C inputs, V vectors of outputs.
template <int C, int V>
INNER void correlate(float* k, const float* const* x, const float* const* g, int64_t rows, int64_t columns, int64_t inputs, int64_t outputs) {
  Vector sum[C][V];
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[c][v] = load(k + c * outputs + v * WIDTH);
  for (int64_t r = 0; r < rows; ++r) {
    const float *at = x[r], *of = g[r];
    for (int64_t s = 0; s < columns; ++s, at += inputs, of += outputs) {
      Vector row[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) row[v] = load(of + v * WIDTH);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) {
        const Vector one = at[c] - Vector{};
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[c][v] += one * row[v];
      }
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(k + c * outputs + v * WIDTH, sum[c][v]);
}

// Calls f<m, V>, where m <= ROWS and V <= VECTORS are known only now.
template <int V, typename F>
void sized(int64_t m, const F& f) {
  switch (m) {
    case 1: return f.template operator()<1, V>();
    case 2: return f.template operator()<2, V>();
    case 3: return f.template operator()<3, V>();
    case 4: return f.template operator()<4, V>();
#if defined(__AVX__)
    case 5: return f.template operator()<5, V>();
    case 6: return f.template operator()<6, V>();
#endif
  }
}

// Calls f(start, size) for nearly equal parts of `count`, of at most `most` each.
template <typename F>
void parts(int64_t count, int64_t most, const F& f) {
  const int64_t number = (count + most - 1) / most;
  for (int64_t i = 0, start = 0; i < number; ++i) {
    const int64_t end = count * (i + 1) / number;
    f(start, end - start);
    start = end;
  }
}

// Calls f<V>(first output) for the outputs, VECTORS vectors at a time.
template <typename F>
void by_outputs(int64_t outputs, const F& f) {
  for (int64_t o = 0; o < outputs; o += VECTORS * WIDTH) {
    switch (std::min<int64_t>(VECTORS, (outputs - o) / WIDTH)) {
      case 1: f.template operator()<1>(o); break;
      case 2: f.template operator()<2>(o); break;
#if defined(__AVX512F__)
      case 3: f.template operator()<3>(o); break;
      case 4: f.template operator()<4>(o); break;
#endif
    }
  }
}

// The convolution, for rows low to high of all pictures, counted through.
void convolve(const Shape& s, const float* x, const float* k, float* y, int64_t low, int64_t high) {
  const int64_t begin = std::max<int64_t>(0, low - s.kh / 2), end = std::min(s.n * s.h, high + s.kh / 2);
  thread_local std::vector<float> padded;
  for (int64_t c = 0; c < s.inputs; c += INPUTS) {
    const int64_t inputs = std::min(INPUTS, s.inputs - c), line = (s.w + s.kw - 1) * inputs;
    // Some inputs of the rows that are needed lie together, with zeros on both sides, and a row of zeros at the end.
    padded.assign((end - begin + 1) * line, 0.0f);
    const int64_t pieces = inputs == s.inputs ? 1 : s.w, piece = s.w * inputs / pieces;  // a row is one piece if all inputs fit
    for (int64_t row = begin; row < end; ++row)
      for (int64_t i = 0; i < pieces; ++i) {
        const float* from = x + (row * s.w + i) * s.inputs + c;
        std::copy(from, from + piece, padded.data() + (row - begin) * line + (i + s.kw / 2) * inputs);
      }
    by_outputs(s.outputs, [&]<int V>(int64_t o) {
      for (int64_t a = 0; a < s.kh; ++a) {
        const float* kernel = k + (a * s.kw * s.inputs + c) * s.outputs + o;
        const float* of[ROWS];
        float* to[ROWS];
        int64_t row = low, column = 0, r = low % s.h;
        const auto padded_row = [&] {
          const bool inside = r + a >= s.kh / 2 && r + a < s.h + s.kh / 2;
          return padded.data() + (inside ? row + a - s.kh / 2 - begin : end - begin) * line;
        };
        const float* from = padded_row();
        float* into = y + low * s.w * s.outputs + o;
        parts((high - low) * s.w, ROWS, [&](int64_t, int64_t size) {
          for (int64_t p = 0; p < size; ++p, from += inputs, into += s.outputs) {
            of[p] = from;
            to[p] = into;
            if (++column == s.w) {
              column = 0, ++row;
              if (++r == s.h) r = 0;
              from = padded_row() - inputs;
            }
          }
          sized<V>(size, [&]<int P, int W>() {
            multiply<P, W>(to, of, s.kw, inputs, kernel, s.inputs, s.outputs, c + a == 0);
          });
        });
      }
    });
  }
}

// The derivative with respect to rows a to b of the kernel, and inputs c to d. A band is read once for all of their entries.
void differentiate(const Shape& s, const float* x, const float* g, float* k, int64_t a, int64_t b, int64_t c, int64_t d) {
  const int64_t band = std::max<int64_t>(1, POSITIONS / s.w);
  std::vector<const float*> pictures(band), grads(band);
  for (int64_t tap = a * s.kw; tap < b * s.kw; ++tap)
    std::fill(k + (tap * s.inputs + c) * s.outputs, k + (tap * s.inputs + d) * s.outputs, 0.0f);
  for (int64_t low = 0; low < s.n * s.h; low += band)
    by_outputs(s.outputs, [&]<int V>(int64_t o) {
      for (int64_t tap = a * s.kw; tap < b * s.kw; ++tap) {
        const int64_t up = tap / s.kw - s.kh / 2, left = tap % s.kw - s.kw / 2;
        const int64_t first = std::max<int64_t>(0, -left), last = std::min(s.w, s.w - left);
        if (first >= last) continue;
        int64_t rows = 0;
        for (int64_t row = low, r = low % s.h; row < std::min(s.n * s.h, low + band); ++row, r = r + 1 == s.h ? 0 : r + 1) {
          if (r + up < 0 || r + up >= s.h) continue;
          pictures[rows] = x + ((row + up) * s.w + first + left) * s.inputs + c;
          grads[rows++] = g + (row * s.w + first) * s.outputs + o;
        }
        float* to = k + (tap * s.inputs + c) * s.outputs + o;
        parts(d - c, ROWS, [&](int64_t, int64_t size) {
          sized<V>(size, [&]<int C, int W>() {
            correlate<C, W>(to, pictures.data(), grads.data(), rows, last - first, s.inputs, s.outputs);
          });
          for (int64_t i = 0; i < rows; ++i) pictures[i] += size;
          to += size * s.outputs;
        });
      }
    });
}

// One entry of the kernel turned around, with inputs and outputs exchanged: the derivative to the pictures is a convolution with it.
void turn(const Shape& s, const float* k, float* turned, int64_t tap) {
  constexpr int64_t BLOCK = 16;
  const float* from = k + tap * s.inputs * s.outputs;
  float* to = turned + (s.kh * s.kw - 1 - tap) * s.inputs * s.outputs;
  for (int64_t c = 0; c < s.inputs; c += BLOCK)
    for (int64_t o = 0; o < s.outputs; o += BLOCK)
      for (int64_t i = o; i < std::min(s.outputs, o + BLOCK); ++i)
        for (int64_t j = c; j < std::min(s.inputs, c + BLOCK); ++j) to[i * s.inputs + j] = from[j * s.outputs + i];
}

// Calls work(i) for all i < count, with the help of idle threads of the pool, which is shared by so many devices.
template <typename F>
void share(ffi::ThreadPool& pool, int64_t devices, int64_t count, const F& work) {
  const int64_t helpers = std::min<int64_t>(pool.num_threads() / devices, count) - 1;
  if (helpers < 1) {
    for (int64_t i = 0; i < count; ++i) work(i);
    return;
  }
  struct Progress {
    std::atomic<int64_t> next{0}, done{0};
  };
  auto progress = std::make_shared<Progress>();
  // A helper that comes late finds nothing left to do, and does not touch `work`, which may be gone by then.
  auto help = [progress, count, &work] {
    for (int64_t i; (i = progress->next++) < count; ++progress->done) work(i);
  };
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule([help] { help(); });
  help();
  while (progress->done < count) std::this_thread::yield();
}

using Numbers = ffi::Buffer<ffi::F32, 4>;
using Result = ffi::Result<Numbers>;

// Pictures [n, h, w, c] by a kernel [kh, kw, c, o]; turned: pictures [n, h, w, o] by the kernel turned around.
ffi::Error conv(ffi::ThreadPool pool, Numbers x, Numbers k, Result y, int64_t devices, bool turned) {
  const auto of = x.dimensions(), by = k.dimensions();
  Shape s{of[0], of[1], of[2], by[2], by[3], by[0], by[1]};
  thread_local std::vector<float> kept;  // the memory is kept for the next call: a thread makes one at a time
  std::vector<float>& kernel = kept;
  if (turned) {
    kernel.resize(std::max(kernel.size(), k.element_count()));
    share(pool, devices, s.kh * s.kw, [&](int64_t tap) { turn(s, k.typed_data(), kernel.data(), tap); });
    std::swap(s.inputs, s.outputs);
  }
  const float* used = turned ? kernel.data() : k.typed_data();
  const int64_t band = std::max<int64_t>(1, POSITIONS / s.w);
  share(pool, devices, (s.n * s.h + band - 1) / band, [&](int64_t item) {
    convolve(s, x.typed_data(), used, y->typed_data(), item * band, std::min(s.n * s.h, item * band + band));
  });
  return ffi::Error::Success();
}

// Pictures [n, h, w, c] and gradients [n, h, w, o] to a kernel [kh, kw, c, o].
ffi::Error correlation(ffi::ThreadPool pool, Numbers x, Numbers g, Result k, int64_t devices) {
  const auto of = x.dimensions(), to = k->dimensions();
  const Shape s{of[0], of[1], of[2], to[2], to[3], to[0], to[1]};
  // One item for each thread, of some inputs; where those are too few, of one row of the kernel.
  const int64_t threads = std::max<int64_t>(1, pool.num_threads() / devices);
  const int64_t groups = std::max<int64_t>(1, std::min(threads, s.inputs / 16)), rows = groups < threads ? s.kh : 1;
  share(pool, devices, groups * rows, [&](int64_t item) {
    const int64_t group = item / rows, row = item % rows, each = rows == 1 ? s.kh : 1;
    differentiate(s, x.typed_data(), g.typed_data(), k->typed_data(), row, row + each, s.inputs * group / groups,
                  s.inputs * (group + 1) / groups);
  });
  return ffi::Error::Success();
}
}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(lethax_conv, conv,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Numbers>().Arg<Numbers>().Ret<Numbers>()
                                  .Attr<int64_t>("devices").Attr<bool>("turned"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(lethax_correlation, correlation,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Numbers>().Arg<Numbers>().Ret<Numbers>()
                                  .Attr<int64_t>("devices"));
