// Parts of a transformer block that treat the rows of a matrix in tiles: whatever lies between the
// norm and the sum stays in a core's own cache. Compiled once for a machine, called through ctypes.
//
// Matrices are dense and row-major, float32. Widths are multiples of 32. Weights are [out, in].

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <omp.h>

#if defined(__AVX512F__)
constexpr int LANES = 16, BATCH = 8;  // measured: 12 rows, as many as registers hold, take 12 % longer
#elif defined(__AVX2__)
constexpr int LANES = 8, BATCH = 6;
#else
constexpr int LANES = 4, BATCH = 6;
#endif
constexpr int PANEL = 2 * LANES;  // columns of a product that are summed at once
constexpr long TILE = 96;         // rows whose intermediate values share a cache
typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef int Whole __attribute__((vector_size(4 * LANES)));
#define ALWAYS static inline __attribute__((always_inline))

ALWAYS Lanes load(const float* from) { Lanes x; std::memcpy(&x, from, sizeof x); return x; }
ALWAYS void store(float* to, Lanes x) { std::memcpy(to, &x, sizeof x); }
ALWAYS Lanes all(float x) { return Lanes{} + x; }

template <int COUNT> struct Part { typedef float Of __attribute__((vector_size(4 * COUNT))); };

// The sum of all lanes, by halves: one after the other each would wait for the last.
template <int COUNT> ALWAYS float sum(typename Part<COUNT>::Of x) {
  if constexpr (COUNT == 2) {
    return x[0] + x[1];
  } else {
    typename Part<COUNT / 2>::Of low, high;
    std::memcpy(&low, &x, sizeof low);
    std::memcpy(&high, reinterpret_cast<const char*>(&x) + sizeof low, sizeof high);
    return sum<COUNT / 2>(low + high);
  }
}

// e to the x, for x <= 0: Cody and Waite's reduction and the polynomial of Cephes, 1 ulp or so.
ALWAYS Lanes exponential(Lanes x) {
  x = x < -87.0f ? all(-87.0f) : x;
  Lanes n = __builtin_convertvector(__builtin_convertvector(x * 1.44269504f - 0.5f, Whole), Lanes);
  Lanes r = x - n * 0.693359375f - n * -2.12194440e-4f;
  Lanes p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  Whole power = (__builtin_convertvector(n, Whole) + 127) << 23;
  Lanes scale;
  std::memcpy(&scale, &power, sizeof scale);
  return p * scale;
}

// x times the normal distribution's integral; erf is a quotient of polynomials, off by 4.5e-7.
// The coefficients are those of Eigen's and XLA's float erf.
ALWAYS Lanes gelu(Lanes x) {
  Lanes z = x * 0.70710678f;
  z = z < -4.0f ? all(-4.0f) : z;
  z = z > 4.0f ? all(4.0f) : z;
  Lanes s = z * z;
  Lanes p = s * -2.72614225801306e-10f + 2.77068142495902e-08f;
  p = p * s - 2.10102402082508e-06f;
  p = p * s - 5.69250639462346e-05f;
  p = p * s - 7.34990630326855e-04f;
  p = p * s - 2.95459980854025e-03f;
  p = p * s - 1.60960333262415e-02f;
  Lanes q = s * -1.45660718464996e-05f - 2.13374055278905e-04f;
  q = q * s - 1.68282697438203e-03f;
  q = q * s - 7.37332916720468e-03f;
  q = q * s - 1.42647390514189e-02f;
  return x * 0.5f * (1.0f + z * p / q);
}

ALWAYS Lanes silu(Lanes x) {
  Lanes e = exponential(x < 0.0f ? x : -x);
  return x * (x < 0.0f ? e : all(1.0f)) / (1.0f + e);
}

// sums[ROWS][PANEL] += rows[ROWS][depth] times panel[depth][PANEL]
template <int ROWS>
ALWAYS void more(const float* rows, long width, const float* panel, long depth,
                 Lanes (&sums)[ROWS][2]) {
  for (long k = 0; k < depth; ++k) {
    Lanes low = load(panel + k * PANEL), high = load(panel + k * PANEL + LANES);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      Lanes x = all(rows[r * width + k]);
      sums[r][0] += x * low;
      sums[r][1] += x * high;
    }
  }
}

template <int ROWS>
ALWAYS void product(const float* rows, long width, const float* panel, long depth,
                    Lanes (&sums)[ROWS][2]) {
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r) sums[r][0] = sums[r][1] = Lanes{};
  more<ROWS>(rows, width, panel, depth, sums);
}

struct Product {  // of `depth` columns; `bias` and `add` may be null
  const float *rows;
  long width, depth;
  const float *panel, *bias;
  const float *add;
  float* out;
  long out_width;
  long taps = 1;      // of a convolution: as many products, of rows that lie `apart`
  long apart = 0;
};

struct Linear {
  template <int ROWS> static void run(const Product& of) {
    Lanes sums[ROWS][2];
    product<ROWS>(of.rows, of.width, of.panel, of.depth, sums);
    for (long tap = 1; tap < of.taps; ++tap)
      more<ROWS>(of.rows + tap * of.apart, of.width, of.panel + tap * of.depth * PANEL, of.depth,
                 sums);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
      for (int half = 0; half < 2; ++half) {
        Lanes x = sums[r][half];
        if (of.bias) x += load(of.bias + half * LANES);
        if (of.add) x += load(of.add + r * of.out_width + half * LANES);
        store(of.out + r * of.out_width + half * LANES, x);
      }
  }
};

struct Gelu {
  template <int ROWS> static void run(const Product& of) {
    Lanes sums[ROWS][2];
    product<ROWS>(of.rows, of.width, of.panel, of.depth, sums);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
      for (int half = 0; half < 2; ++half) {
        Lanes x = sums[r][half];
        if (of.bias) x += load(of.bias + half * LANES);
        store(of.out + r * of.out_width + half * LANES, gelu(x));
      }
  }
};

struct Gated {  // what `out` holds, times the product
  template <int ROWS> static void run(const Product& of) {
    Lanes sums[ROWS][2];
    product<ROWS>(of.rows, of.width, of.panel, of.depth, sums);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
      for (int half = 0; half < 2; ++half) {
        float* to = of.out + r * of.out_width + half * LANES;
        Lanes x = sums[r][half];
        if (of.bias) x += load(of.bias + half * LANES);
        store(to, x * load(to));
      }
  }
};

template <class Kind, int ROWS = BATCH> ALWAYS void some(long count, const Product& of) {
  if constexpr (ROWS > 1)
    if (count < ROWS) return some<Kind, ROWS - 1>(count, of);
  Kind::template run<ROWS>(of);
}

// One panel of a product, for all rows of a tile.
template <class Kind> ALWAYS void panel_of(long count, Product of) {
  for (long r = 0; r < count; r += BATCH) {
    some<Kind>(count - r, of);
    of.rows += BATCH * of.width;
    of.out += BATCH * of.out_width;
    if (of.add) of.add += BATCH * of.out_width;
  }
}

// weight [out, in] to [out / PANEL][in][PANEL]
static void pack(const float* weight, long out, long in, float* panels) {
  for (long o = 0; o < out; o += PANEL)
    for (long i = 0; i < in; ++i)
      for (int p = 0; p < PANEL; ++p) panels[o * in + i * PANEL + p] = weight[(o + p) * in + i];
}

// weight [out, in, taps] to [out / PANEL][taps][in][PANEL]
static void pack_taps(const float* weight, long out, long in, long taps, float* panels) {
  for (long o = 0; o < out; ++o)
    for (long i = 0; i < in; ++i)
      for (long tap = 0; tap < taps; ++tap)
        panels[((o / PANEL * taps + tap) * in + i) * PANEL + o % PANEL] =
            weight[(o * in + i) * taps + tap];
}

static void normed(const float* x, long width, const float* weight, const float* bias, float eps,
                   float* out) {
  Lanes total{}, squares{};
  for (long c = 0; c < width; c += LANES) total += load(x + c);
  float mean = sum<LANES>(total) / width;
  for (long c = 0; c < width; c += LANES) {
    Lanes d = load(x + c) - mean;
    squares += d * d;
  }
  float scale = 1.0f / std::sqrt(sum<LANES>(squares) / width + eps);
  for (long c = 0; c < width; c += LANES) {
    Lanes y = (load(x + c) - mean) * scale;
    if (weight) y *= load(weight + c);
    if (bias) y += load(bias + c);
    store(out + c, y);
  }
}

// A thread keeps what it works in.
struct Room {
  float* at = nullptr;
  long size = 0;
  float* of(long floats) {
    if (floats > size) {
      std::free(at);
      size = (floats + 15) / 16 * 16;
      at = static_cast<float*>(std::aligned_alloc(64, size * sizeof(float)));
    }
    return at;
  }
  ~Room() { std::free(at); }
};
static thread_local Room packed, scratch;

struct Norm {
  const float *weight, *bias;
  float eps;
  long present;
};

// The tile's rows, normed into `to` where there is a norm.
static const float* entry(const float* x, long count, long width, const Norm& norm, float* to) {
  if (!norm.present) return x;
  for (long r = 0; r < count; ++r)
    normed(x + r * width, width, norm.weight, norm.bias, norm.eps, to + r * width);
  return to;
}

// add + out(value(norm(x)) * gelu(gate(norm(x)))), value and gate being the halves of `up`
extern "C" void gated_feed_forward(const float* x, long rows, long width, long inner, long out_width,
                                   long has_norm, const float* norm_weight, const float* norm_bias,
                                   float eps, const float* up, const float* up_bias,
                                   const float* down, const float* down_bias, const float* add,
                                   float* out, int threads) {
  const Norm norm{norm_weight, norm_bias, eps, has_norm};
  float* ups = packed.of((2 * width + out_width) * inner);
  float* downs = ups + 2 * inner * width;
  pack(up, 2 * inner, width, ups);
  pack(down, out_width, inner, downs);
  const long tiles = (rows + TILE - 1) / TILE;
#pragma omp parallel for schedule(static) num_threads(std::min<long>(threads, tiles))
  for (long tile = 0; tile < tiles; ++tile) {
    const long first = tile * TILE, count = std::min(TILE, rows - first);
    float* room = scratch.of(TILE * (width + inner));
    float* hidden = room + TILE * width;
    const float* from = entry(x + first * width, count, width, norm, room);
    for (long i = 0; i < inner; i += PANEL) {
      Product gate{from, width, width, ups + (inner + i) * width, up_bias ? up_bias + inner + i : 0,
                   nullptr, hidden + i, inner};
      panel_of<Gelu>(count, gate);
      Product value{from, width, width, ups + i * width, up_bias ? up_bias + i : 0,
                    nullptr, hidden + i, inner};
      panel_of<Gated>(count, value);
    }
    for (long c = 0; c < out_width; c += PANEL) {
      const long at = first * out_width + c;
      Product last{hidden, inner, inner, downs + c * inner, down_bias ? down_bias + c : 0,
                   add ? add + at : nullptr, out + at, out_width};
      panel_of<Linear>(count, last);
    }
  }
}

// Softmax attention of one group's rows over themselves, in place of its queries.
static void attend(float* q, const float* k, const float* v, long length, long width, long depth,
                   float scale, float* room) {
  const long padded = (length + LANES - 1) / LANES * LANES;
  float* mixed = room + padded;
  for (long h = 0; h < width; h += depth) {
    for (long i = 0; i < length; ++i) {
      float top = -INFINITY;
      for (long j = 0; j < length; ++j) {
        Lanes dot{};
        for (long d = 0; d < depth; d += LANES)
          dot += load(q + i * width + h + d) * load(k + j * width + h + d);
        room[j] = sum<LANES>(dot) * scale;
        top = std::max(top, room[j]);
      }
      for (long j = length; j < padded; ++j) room[j] = top;
      for (long j = 0; j < padded; j += LANES) store(room + j, exponential(load(room + j) - top));
      float total = 0;
      for (long j = 0; j < length; ++j) total += room[j];
      const float share = 1.0f / total;
      for (long d = 0; d < depth; d += LANES) {
        Lanes x{};
        for (long j = 0; j < length; ++j) x += load(v + j * width + h + d) * room[j];
        store(mixed + i * depth + d, x * share);
      }
    }
    for (long i = 0; i < length; ++i)
      std::memcpy(q + i * width + h, mixed + i * depth, depth * sizeof(float));
  }
}

// add + out(attention(query(norm(x)), key(norm(x)), value(norm(x)))) within groups of `length` rows
extern "C" void short_attention(const float* x, long groups, long length, long width, long depth,
                                float scale, long has_norm, const float* norm_weight,
                                const float* norm_bias, float eps, const float* query,
                                const float* key, const float* value, const float* out_weight,
                                const float* out_bias, const float* add, float* out, int threads) {
  const Norm norm{norm_weight, norm_bias, eps, has_norm};
  const long square = width * width;
  float* panels = packed.of(4 * square);
  const float* weights[] = {query, key, value, out_weight};
  for (int which = 0; which < 4; ++which) pack(weights[which], width, width, panels + which * square);
  const long per_tile = std::max(1L, TILE / length), tiles = (groups + per_tile - 1) / per_tile;
  const long padded = (length + LANES - 1) / LANES * LANES;
#pragma omp parallel for schedule(static) num_threads(std::min<long>(threads, tiles))
  for (long tile = 0; tile < tiles; ++tile) {
    const long first = tile * per_tile, here = std::min(per_tile, groups - first);
    const long count = here * length, block = per_tile * length * width;
    float* room = scratch.of(4 * block + padded + length * depth);
    const float* from = entry(x + first * length * width, count, width, norm, room);
    for (int which = 0; which < 3; ++which)
      for (long c = 0; c < width; c += PANEL) {
        Product one{from, width, width, panels + which * square + c * width, nullptr, nullptr,
                    room + (which + 1) * block + c, width};
        panel_of<Linear>(count, one);
      }
    float *q = room + block, *k = q + block, *v = k + block;
    for (long g = 0; g < here; ++g) {
      const long at = g * length * width;
      attend(q + at, k + at, v + at, length, width, depth, scale, room + 4 * block);
    }
    for (long c = 0; c < width; c += PANEL) {
      const long at = first * length * width + c;
      Product last{q, width, width, panels + 3 * square + c * width, out_bias ? out_bias + c : 0,
                   add ? add + at : nullptr, out + at, width};
      panel_of<Linear>(count, last);
    }
  }
}

// add + the convolution over the second axis of x [batch, length, each, width], zeros beyond its ends
extern "C" void sequence_convolution(const float* x, long batch, long length, long each, long width,
                                     long taps, long out_width, const float* weight,
                                     const float* bias, const float* add, float* out, int threads) {
  float* panels = packed.of(out_width * width * taps);
  pack_taps(weight, out_width, width, taps, panels);
  const long parts = (each + TILE - 1) / TILE, tiles = batch * length * parts;
#pragma omp parallel for schedule(static) num_threads(std::min<long>(threads, tiles))
  for (long tile = 0; tile < tiles; ++tile) {
    const long image = tile / parts, at = image % length, first = tile % parts * TILE;
    const long row = image * each + first, before = taps / 2;
    const long skipped = std::max(0L, before - at);
    const long used = std::min(taps, length - at + before) - skipped;
    for (long c = 0; c < out_width; c += PANEL) {
      Product one{x + (row + (skipped - before) * each) * width, width, width,
                  panels + (c / PANEL * taps + skipped) * width * PANEL, bias ? bias + c : 0,
                  add ? add + row * out_width + c : nullptr, out + row * out_width + c, out_width,
                  used, each * width};
      panel_of<Linear>(std::min(TILE, each - first), one);
    }
  }
}

// Sums of a channel's values over some rows, apart from the value in the first of them.
struct Moments {
  double count, mean, squares;
  void join(double more, double other, double spread) {
    const double all = count + more, apart = other - mean;
    mean += apart * more / all;
    squares += spread + apart * apart * count * more / all;
    count = all;
  }
};

// silu(norm(x + shift)) of x [batch, length, each, width] over groups of channels and all rows of a
// batch; shift [batch, length, width] may be null
extern "C" void group_norm(const float* x, long batch, long length, long each, long width,
                           long groups, const float* shift, const float* weight, const float* bias,
                           float eps, long with_silu, float* out, int threads) {
  const long images = batch * length;
  float* room = packed.of(2 * images * width + 2 * batch * width);
  float *means = room, *spreads = room + images * width;
  float *scales = spreads + images * width, *middles = scales + batch * width;
#pragma omp parallel for schedule(static) num_threads(std::min<long>(threads, images))
  for (long image = 0; image < images; ++image) {
    const float* from = x + image * each * width;
    for (long c = 0; c < width; c += LANES) {
      const Lanes first = load(from + c);
      Lanes sums{}, squares{};
      for (long r = 0; r < each; ++r) {
        Lanes d = load(from + r * width + c) - first;
        sums += d;
        squares += d * d;
      }
      const float share = 1.0f / each;
      Lanes mean = sums * share;
      store(spreads + image * width + c, squares - sums * mean);
      store(means + image * width + c,
            mean + first + (shift ? load(shift + image * width + c) : Lanes{}));
    }
  }
  const long wide = width / groups;
  for (long b = 0; b < batch; ++b)
    for (long g = 0; g < groups; ++g) {
      Moments of{0, 0, 0};
      for (long t = b * length; t < (b + 1) * length; ++t)
        for (long c = g * wide; c < (g + 1) * wide; ++c)
          of.join(each, means[t * width + c], std::max(0.0f, spreads[t * width + c]));
      const double scale = 1.0 / std::sqrt(of.squares / of.count + eps);
      for (long c = g * wide; c < (g + 1) * wide; ++c) {
        scales[b * width + c] = scale * (weight ? weight[c] : 1.0f);
        middles[b * width + c] = of.mean;
      }
    }
#pragma omp parallel for schedule(static) num_threads(std::min<long>(threads, images))
  for (long image = 0; image < images; ++image) {
    const long at = image * each * width, b = image / length * width;
    float* middle = scratch.of(width);  // subtracted first: a mean may be far beyond deviations
    for (long c = 0; c < width; c += LANES) {
      Lanes mean = load(middles + b + c);
      store(middle + c, shift ? mean - load(shift + image * width + c) : mean);
    }
    for (long r = 0; r < each; ++r)
      for (long c = 0; c < width; c += LANES) {
        Lanes y = (load(x + at + r * width + c) - load(middle + c)) * load(scales + b + c);
        if (bias) y += load(bias + c);
        store(out + at + r * width + c, with_silu ? silu(y) : y);
      }
  }
}
