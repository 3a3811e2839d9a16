/* The hot loops of netweight, called through ctypes. C11, no dependency, no global state; one file to compile: the decoder, in decode.h and
 * what it includes, is a part of this one, and so are side.h, section.h, trellis.h, lattice.h, counts.h and
 * listed.h.
 *
 * Each function has a twin in src/netweight/kernels_numpy.py that gives the same integers bit for bit: float arithmetic is
 * element-wise IEEE single precision without contraction, everything else is integer. Shapes and letters:
 *
 *   n   symbols of a segment (a run of one tensor's scan); symbol i belongs to lane i mod 32
 *   k   the integer a codec chose          r   its fine index: k, or 2k - c sign(k) behind codebook c of a trellis
 *   T   number of frequency tables         P   prediction levels (1 or 5)        Z   codebooks (1 or 2)
 *
 * The AVX2 paths use eight scalar loads where a gather would do: 1.4 times faster on Zen 4, and no worse elsewhere.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>
#define X86 1
#define AVX2 __attribute__((target("avx2")))
#endif
#if defined(__GNUC__)
#define ALWAYS inline __attribute__((always_inline))
#else
#define ALWAYS inline
#endif
#if defined(_WIN32)
#define API __declspec(dllexport)
#else
#define API __attribute__((visibility("default")))
#endif

enum { LANES = 32, PRECISION = 12, SLOTS = 1 << PRECISION, CENTRE = 128, PRED = 4 };
static const uint32_t LOW = 1u << 16;

typedef struct {
    int64_t n;          /* symbols */
    int64_t start;      /* index of the first one in the tensor's scan */
    int64_t plane;      /* symbols of one kernel position; 0: no neighbours are looked at */
    int64_t width;      /* kernel width */
    int64_t positions;  /* kernel positions: plane p of the scan is position p mod positions */
    const uint8_t *cls; /* class of each symbol; NULL: all 0, or by the levels */
    const int16_t *row, *column; /* decoder: levels, the class is clamp(row + column level, 0, top); NULL: as `cls` says */
    int64_t rows, columns, top;
    int64_t dealt;      /* decoder: lanes that a position is dealt to (nw_dealt_classes), 0: the scan is as stored */
    int16_t *out;       /* fine indices; a decoder that looks at no neighbours needs none */
    float *scaled;      /* decoder: fine index times factor, rounded once; NULL: not wanted */
    float factor;
    uint32_t plain, weighted; /* decoder: sum r_i and sum i r_i mod 2^32, i from 1 */
    int64_t beyond;     /* decoder: escapes */
    int64_t around;     /* decoder: `scaled` is more than caches hold, and is best written around them */
} segment;

typedef struct {
    int64_t codebooks; /* Z */
    int64_t levels;    /* P */
    int64_t tap0, tap1; /* trellis: next state = (s >> 1) ^ (s & 1 ? tap0 : 0) ^ (k & 1 ? tap1 : 0) */
    const int32_t *thresholds; /* [classes][PRED] of |2 left + 2 up - corner| */
} model;

static int has_avx2(void) {
#ifdef X86
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2");
#else
    return 0;
#endif
}

static uint32_t read32(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }

#ifdef X86
#define WIDE __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,bmi,bmi2,popcnt")))

static int has_wide(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
}
#endif

API int64_t nw_abi(void) { return 12; }
API int64_t nw_simd(void) { return has_avx2(); }

/* ---- contexts: what is known of symbol i before it is decoded ------------------------------------------------------- */

/* The signed prediction 2 left + 2 up - corner from fine indices one, w and w + 1 kernel positions back, 0 where there are none. */
static inline int32_t predict(const segment *s, const int16_t *r, int64_t i) {
    int64_t position = (s->start + i) / s->plane % s->positions, x = position % s->width, y = position / s->width, lag = s->plane * s->width;
    int32_t left = x > 0 && i >= s->plane ? r[i - s->plane] : 0;
    int32_t up = y > 0 && i >= lag ? r[i - lag] : 0;
    int32_t corner = x > 0 && y > 0 && i >= lag + s->plane ? r[i - lag - s->plane] : 0;
    return 2 * left + 2 * up - corner;
}

static inline int level_of(const int32_t *t, int32_t g) {
    int32_t a = g < 0 ? -g : g;
    return (a >= t[0]) + (a >= t[1]) + (a >= t[2]) + (a >= t[3]);
}

/* Table offset (without codebook) and sign flip of the 32 lanes from i on; `m` of them exist. `cls` are their classes, NULL: all 0. */
static inline void contexts(const segment *s, const model *q, const uint8_t *cls, const int16_t *r, int64_t i, int m, int32_t *table, int32_t *flip) {
    int32_t Z = (int32_t)q->codebooks, P = (int32_t)q->levels;
    for (int l = 0; l < m; l++) {
        table[l] = cls ? cls[l] * P * Z : 0;
        flip[l] = 0;
    }
    if (P == 1 || s->plane == 0) return;
    int64_t first = (s->start + i) / s->plane, last = (s->start + i + m - 1) / s->plane;
    if (first == last) { /* one kernel position: plain vector loops */
        int64_t position = first % s->positions, x = position % s->width, y = position / s->width, lag = s->plane * s->width;
        int32_t g[LANES] = {0};
        if (x > 0 && i >= s->plane) for (int l = 0; l < m; l++) g[l] += 2 * r[i + l - s->plane];
        if (y > 0 && i >= lag) for (int l = 0; l < m; l++) g[l] += 2 * r[i + l - lag];
        if (x > 0 && y > 0 && i >= lag + s->plane) for (int l = 0; l < m; l++) g[l] -= r[i + l - lag - s->plane];
        int straddles = (i < s->plane && i + m > s->plane) || (i < lag && i + m > lag) || (i < lag + s->plane && i + m > lag + s->plane);
        if (!straddles) {
            for (int l = 0; l < m; l++) {
                table[l] += level_of(q->thresholds + PRED * (cls ? cls[l] : 0), g[l]) * Z;
                flip[l] = -(g[l] < 0);
            }
            return;
        }
    }
    for (int l = 0; l < m; l++) {
        int32_t g = predict(s, r, i + l);
        table[l] += level_of(q->thresholds + PRED * (cls ? cls[l] : 0), g) * Z;
        flip[l] = -(g < 0);
    }
}

/* Fine index and next state from symbol value v (already unflipped) in state. */
static inline int32_t advance(const model *q, int32_t v, uint8_t *state) {
    if (q->codebooks == 1) return v;
    int32_t c = *state & 1;
    *state = (uint8_t)((*state >> 1) ^ (c ? q->tap0 : 0) ^ (v & 1 ? q->tap1 : 0));
    return 2 * v - c * ((v > 0) - (v < 0));
}

#include "decode.h"
#include "side.h"
#include "section.h"

/* ---- encoder -------------------------------------------------------------------------------------------------------- */

/* Symbols and table indices of a segment whose integers are known; s->out receives the fine indices. */
API void nw_contexts(segment *s, const model *q, const int16_t *k, uint8_t *symbol, uint16_t *index) {
    int16_t state[LANES] = {0}, v[LANES], tap0 = (int16_t)q->tap0, tap1 = (int16_t)q->tap1;
    int32_t table[LANES], flip[LANES];
    for (int64_t i = 0; i < s->n; i += LANES) {
        int m = s->n - i < LANES ? (int)(s->n - i) : LANES;
        contexts(s, q, s->cls ? s->cls + i : NULL, s->out, i, m, table, flip);
        for (int l = 0; l < m; l++) {
            int16_t x = k[i + l], escape = x & 1 ? CENTRE - 1 : -CENTRE;
            v[l] = x < 1 - CENTRE || x > CENTRE - 2 ? escape : x;
        }
        for (int l = 0; l < m; l++) {
            int16_t f = v[l] < 2 - CENTRE || v[l] == CENTRE - 1 ? 0 : (int16_t)flip[l];
            symbol[i + l] = (uint8_t)((v[l] ^ f) - f + CENTRE);
        }
        if (q->codebooks == 1) {
            for (int l = 0; l < m; l++) index[i + l] = (uint16_t)table[l], s->out[i + l] = v[l];
            continue;
        }
        for (int l = 0; l < m; l++) {
            int16_t c = state[l] & 1, p = v[l] & 1, sign = (int16_t)((v[l] > 0) - (v[l] < 0));
            index[i + l] = (uint16_t)(table[l] + c);
            s->out[i + l] = (int16_t)(2 * v[l] - (sign & -c));
            state[l] = (int16_t)((state[l] >> 1) ^ (tap0 & -c) ^ (tap1 & -p));
        }
    }
}

/* What contexts() says of a segment if its fine indices were those in s->out: table / Z and flip (0 or 1) of each symbol. */
API void nw_predict(const segment *s, const model *q, uint16_t *index, uint8_t *flip) {
    int32_t table[LANES], flips[LANES];
    for (int64_t i = 0; i < s->n; i += LANES) {
        int m = s->n - i < LANES ? (int)(s->n - i) : LANES;
        contexts(s, q, s->cls ? s->cls + i : NULL, s->out, i, m, table, flips);
        for (int l = 0; l < m; l++) index[i + l] = (uint16_t)(table[l] / q->codebooks), flip[i + l] = (uint8_t)(flips[l] & 1);
    }
}

/* counts[T][256] += how often each symbol was coded by each table. */
API void nw_histogram(const uint8_t *symbol, const uint16_t *index, int64_t n, int64_t *counts) {
    for (int64_t i = 0; i < n; i++) counts[(size_t)index[i] * 256 + symbol[i]]++;
}

/* y / f by a multiplication: inverse[f] = floor(2^64 / f) + 1 gives the exact quotient while y f < 2^64; f = 1 has none. */
#if defined(__SIZEOF_INT128__)
static void invert(uint64_t *inverse) {
    inverse[0] = inverse[1] = 0;
    for (uint64_t f = 2; f <= SLOTS; f++) inverse[f] = UINT64_MAX / f + 1 + (UINT64_MAX % f == f - 1);
}
static inline uint32_t divide(uint32_t y, uint32_t f, const uint64_t *inverse) {
    return f == 1 ? y : (uint32_t)((unsigned __int128)inverse[f] * y >> 64);
}
#else
static void invert(uint64_t *inverse) { (void)inverse; }
static inline uint32_t divide(uint32_t y, uint32_t f, const uint64_t *inverse) { (void)inverse; return y / f; }
#endif

/* Code the segments of a chunk, last symbol first. Returns the bytes written at `out` (capacity: 4 lanes + 2 symbols). */
API int64_t nw_encode(const uint8_t *symbol, const uint16_t *index, const int64_t *lengths, int64_t count, int64_t lanes,
                      const uint16_t *freq, const uint16_t *cum, uint8_t *out) {
    uint32_t x[LANES];
    int64_t total = 0;
    for (int64_t j = 0; j < count; j++) total += lengths[j];
    uint8_t *end = out + 4 * lanes + 2 * total, *p = end;
    uint64_t inverse[SLOTS + 1];
    invert(inverse);
    for (int l = 0; l < lanes; l++) x[l] = LOW;
    for (int64_t j = count - 1, base = total; j >= 0; j--) {
        base -= lengths[j];
        for (int64_t i = lengths[j] - 1; i >= 0; i--) {
            int l = (int)(i % lanes);
            size_t at = (size_t)index[base + i] * 256 + symbol[base + i];
            uint32_t f = freq[at], c = cum[at], y = x[l];
            if (f == 0) return -1;
            if ((uint64_t)y >= (uint64_t)f << 20) {
                *--p = (uint8_t)(y >> 8);
                *--p = (uint8_t)y;
                y >>= 16;
            }
            uint32_t times = divide(y, f, inverse);
            x[l] = (times << PRECISION) + (y - times * f) + c;
        }
    }
    memcpy(out, x, 4 * (size_t)lanes);
    memmove(out + 4 * lanes, p, (size_t)(end - p));
    return 4 * lanes + (end - p);
}

/* ---- quantisers ----------------------------------------------------------------------------------------------------- */

static const int32_t FAR = 1 << 28;

static inline int rate_at(int32_t k) { return k < 1 - CENTRE || k > CENTRE - 2 ? (k & 1 ? 255 : 0) : k + CENTRE; }

/* Integers with the least (u - k)^2 2^10 + rate, among the nearest, the next towards zero, and zero. rate[T][256]. */
API void nw_round(const float *u, const uint16_t *index, const int32_t *rate, int64_t n, int16_t *k) {
    for (int64_t i = 0; i < n; i++) {
        const int32_t *t = rate + (size_t)index[i] * 256;
        float a = u[i] < 0 ? -u[i] : u[i];
        int32_t sign = u[i] < 0 ? -1 : 1, best = (int32_t)(a + 0.5f), next = best - (best > 0);
        float d = a - (float)best, e = a - (float)next;
        int32_t cost = (int32_t)(d * d * 1024.0f) + t[rate_at(sign * best)];
        int32_t other = (int32_t)(e * e * 1024.0f) + t[rate_at(sign * next)];
        int32_t zero = a < 16.0f ? (int32_t)(a * a * 1024.0f) + t[CENTRE] : FAR;
        best = other < cost ? next : best;
        cost = other < cost ? other : cost;
        best = zero < cost ? 0 : best;
        k[i] = (int16_t)(sign * best);
    }
}

#include "trellis.h"
#include "lattice.h"
#include "counts.h"

/* ---- successive quantisation with feedback --------------------------------------------------------------------------- */

typedef struct {
    int64_t rows, columns; /* of the matrix: columns are those of all kernel positions, in scan order */
    int64_t groups;        /* consecutive rows / groups rows share a feedback matrix */
    int64_t span;          /* symbols of a lane in a plane; 0: no trellis */
    int64_t per_plane;     /* columns of a plane */
    int64_t run;           /* symbols of a lane in a piece */
    int64_t bits, tap0, tap1;
    int64_t survivors;     /* paths that are kept where the rows of a column see each other, 64 at most */
} successive;

enum { LONGEST_PATH = 4096 };
static const float MOST_PAID = 0.5f;
static const float FARTHEST = 30000.0f; /* fine steps of a target: integers have 16 bits */

static inline float magnitude(float x) { return x < 0 ? (-x < FARTHEST ? -x : FARTHEST) : (x < FARTHEST ? x : FARTHEST); }

static inline int32_t bounded(float cost) { return (int32_t)(cost < -1e5f ? -1e5f : cost > 1e5f ? 1e5f : cost); }

/* 2^10 ((a - r)^2 - rho (r^2 - a^2)), a >= 0. */
static inline int32_t strain(float a, float rho, float r) {
    const float d = a - r, e = d * d, f = d * (a + r), g = rho * f;
    return bounded((e + g) * 1024.0f);
}

/* The same plus the rate of k, where r is k's fine index behind codebook c; `sign` turns k for its rate. */
static inline int32_t tilted(float a, float rho, int32_t k, int32_t c, int32_t sign, const int32_t *rate, int two) {
    return strain(a, rho, (float)(two ? 2 * k - (k > 0 ? c : k < 0 ? -c : 0) : k)) + rate[rate_at(sign * k)];
}

/* Scalar: the cheapest of the nearest, its two neighbours and zero; ties go to the first of nearest, below, above, zero. */
static inline int32_t nearest(float x, float rho, int32_t flip, const int32_t *rate) {
    float a = magnitude(x);
    int32_t sign = (x < 0) != (flip != 0) ? -1 : 1, k0 = (int32_t)(a + 0.5f), best = k0, cost = tilted(a, rho, k0, 0, sign, rate, 0);
    const int32_t others[3] = {k0 - 1, k0 + 1, 0};
    for (int j = 0; j < 3; j++) {
        int32_t other = tilted(a, rho, others[j], 0, sign, rate, 0);
        if (other < cost) cost = other, best = others[j];
    }
    return x < 0 ? -best : best;
}

/* Cost and integer of each branch 2 codebook + parity: the cheaper of two candidates of that parity among k0 - 1 .. k0 + 2,
 * k0 = floor((a + c) / 2); of two as cheap, the smaller. */
static inline void branches(float x, float rho, int32_t flip, const int32_t *rate, int32_t *cost, int16_t *value) {
    float a = magnitude(x);
    int32_t turn = x < 0 ? -1 : 1, sign = flip ? -turn : turn;
    for (int32_t c = 0; c < 2; c++) {
        const int32_t k0 = (int32_t)((a + (float)c) * 0.5f), *t = rate + 256 * c;
        for (int32_t j = 0; j < 2; j++) {
            int32_t low = k0 - 1 + j, p = low & 1;
            int32_t first = tilted(a, rho, low, c, sign, t, 1), second = tilted(a, rho, low + 2, c, sign, t, 1);
            cost[2 * c + p] = second < first ? second : first;
            value[2 * c + p] = (int16_t)(turn * (second < first ? low + 2 : low));
        }
    }
}

/* One symbol on: cost of the best way into each state, and a bit for each that says whether its parity is odd. Of two ways as cheap, the one
 * of even parity. Codebook 0 leads into the lower half of the states, codebook 1 into the upper half. */
static void advance_states(const int32_t *old, int32_t *new, const int32_t *c, uint8_t *odd, const successive *q) {
    const int states = 1 << q->bits;
    memset(odd, 0, (size_t)states / 8);
    for (int j = 0; j < states / 2; j++) {
        const int other = j ^ (int)q->tap1, top = j ^ (int)q->tap0;
        int32_t x = old[2 * j] + c[0], y = old[2 * other] + c[1], u = old[2 * j + 1] + c[2], v = old[2 * other + 1] + c[3];
        new[j] = y < x ? y : x, odd[j >> 3] |= (uint8_t)((y < x) << (j & 7));
        new[top] = v < u ? v : u, odd[top >> 3] |= (uint8_t)((v < u) << (top & 7));
    }
}

#ifdef X86
/* The same for eight states at a time; 16 states at least. An index j ^ tap is another block of eight, and within it another order. */
AVX2 static void advance_states_avx2(const int32_t *old, int32_t *new, const int32_t *c, uint8_t *odd, const successive *q) {
    const int states = 1 << q->bits, half = states / 2, tap0 = (int)q->tap0, tap1 = (int)q->tap1;
    int32_t even_states[128] __attribute__((aligned(32))), odd_states[128] __attribute__((aligned(32)));
    for (int s = 0; s < states; s += 16) {
        __m256 a = _mm256_castsi256_ps(_mm256_load_si256((const __m256i *)(old + s))), b = _mm256_castsi256_ps(_mm256_load_si256((const __m256i *)(old + s + 8)));
        __m256i e = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88)), o = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd));
        _mm256_store_si256((__m256i *)(even_states + s / 2), _mm256_permute4x64_epi64(e, 0xd8));
        _mm256_store_si256((__m256i *)(odd_states + s / 2), _mm256_permute4x64_epi64(o, 0xd8));
    }
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i by1 = _mm256_xor_si256(lane, _mm256_set1_epi32(tap1 & 7)), by0 = _mm256_xor_si256(lane, _mm256_set1_epi32(tap0 & 7));
    const __m256i c0 = _mm256_set1_epi32(c[0]), c1 = _mm256_set1_epi32(c[1]), c2 = _mm256_set1_epi32(c[2]), c3 = _mm256_set1_epi32(c[3]);
    for (int j = 0; j < half; j += 8) {
        const int other = j ^ (tap1 & ~7), top = (j ^ tap0) & ~7;
        __m256i x = _mm256_add_epi32(_mm256_load_si256((const __m256i *)(even_states + j)), c0);
        __m256i y = _mm256_add_epi32(_mm256_permutevar8x32_epi32(_mm256_load_si256((const __m256i *)(even_states + other)), by1), c1);
        __m256i u = _mm256_add_epi32(_mm256_load_si256((const __m256i *)(odd_states + j)), c2);
        __m256i v = _mm256_add_epi32(_mm256_permutevar8x32_epi32(_mm256_load_si256((const __m256i *)(odd_states + other)), by1), c3);
        _mm256_store_si256((__m256i *)(new + j), _mm256_min_epi32(x, y));
        odd[j >> 3] = (uint8_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(x, y)));
        _mm256_store_si256((__m256i *)(new + top), _mm256_permutevar8x32_epi32(_mm256_min_epi32(u, v), by0));
        odd[top >> 3] = (uint8_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_permutevar8x32_epi32(_mm256_cmpgt_epi32(u, v), by0)));
    }
}
#endif

/* to[l] = y[l] + sum_i m[i stride + l] d[i], i = 0 .. count in this order, each product and each sum rounded; l = 0 .. width. */
static ALWAYS void lean(float *to, const float *y, const float *m, int64_t stride, const float *d, int64_t count, int64_t width) {
    int64_t l = 0;
    for (; l + 32 <= width; l += 32) {
        float sum[32];
        for (int j = 0; j < 32; j++) sum[j] = y[l + j];
        for (int64_t i = 0; i < count; i++) {
            const float f = d[i], *v = m + i * stride + l;
            for (int j = 0; j < 32; j++) sum[j] += v[j] * f;
        }
        for (int j = 0; j < 32; j++) to[l + j] = sum[j];
    }
    for (; l < width; l++) {
        float sum = y[l];
        for (int64_t i = 0; i < count; i++) sum += m[i * stride + l] * d[i];
        to[l] = sum;
    }
}

/* One column: its targets y, what the rows above add to each row below (down[rows][rows], or NULL), and what is chosen. */
typedef struct {
    const float *y, *down;
    float *left, *r, *share;
    const uint16_t *table;
    const uint8_t *turn;
    const int32_t *rate;
    int16_t *k;
} column;

/* Work space: of the search over all states, and of that over a list of paths. */
typedef struct {
    int32_t (*cost)[4];
    int16_t (*value)[4], *kept; /* kept[symbols][survivors] */
    uint8_t *choice, *parent;   /* parent[symbols][survivors] */
    float *base;
} space;

static inline float fine_index(int32_t v, int32_t book) { return (float)(2 * v - book * ((v > 0) - (v < 0))); }

static inline void decide(const column *c, int64_t o, int32_t v, int32_t book) {
    c->k[o] = (int16_t)v;
    c->r[o] = fine_index(v, book);
    c->left[o] = c->y[o] - c->r[o];
}

/* The path of least cost from a state through m symbols from row o on; gives their integers and fine indices, returns the state it ends in: of
 * end states as cheap, the smallest. */
static int path(const column *c, int64_t o, int64_t m, int state, const successive *q, const space *w) {
    const int states = 1 << q->bits, half = states / 2, width = states / 8;
    int32_t a[256] __attribute__((aligned(32))), b[256] __attribute__((aligned(32))), *old = a, *new = b;
    for (int s = 0; s < states; s++) old[s] = s == state ? 0 : FAR;
#ifdef X86
    const int wide = states >= 16 && has_avx2();
#endif
    for (int64_t t = 0; t < m; t++) {
        branches(c->y[o + t], c->share[o + t], c->turn[o + t], c->rate + (size_t)c->table[o + t] * 512, w->cost[t], w->value[t]);
#ifdef X86
        if (wide) advance_states_avx2(old, new, w->cost[t], w->choice + t * width, q);
        else
#endif
        advance_states(old, new, w->cost[t], w->choice + t * width, q);
        int32_t *swap = old;
        old = new, new = swap;
    }
    int best = 0;
    for (int s = 1; s < states; s++) if (old[s] < old[best]) best = s;
    for (int64_t t = m - 1, s = best; t >= 0; t--) {
        const int parity = w->choice[t * width + (s >> 3)] >> (s & 7) & 1, book = s >= half;
        const int j = (int)s ^ (book ? (int)q->tap0 : 0) ^ (parity ? (int)q->tap1 : 0);
        decide(c, o + t, w->value[t][2 * book + parity], book);
        s = 2 * j + book;
    }
    return best;
}

#include "listed.h"

enum { TILE = 64 }; /* rows whose errors in all columns so far stay in a cache */

/* x[o] -= sum_j m[j stride] r[j][o], j = 0 .. count in this order, each product and each difference rounded. */
static ALWAYS void feed(float *x, const float *m, int64_t stride, const float *r, int64_t height, int64_t count, int64_t rows) {
    int64_t o = 0;
    for (; o + 32 <= rows; o += 32) {
        float sum[32];
        for (int l = 0; l < 32; l++) sum[l] = x[o + l];
        for (int64_t j = 0; j < count; j++) {
            const float f = m[j * stride], *y = r + j * height + o;
            for (int l = 0; l < 32; l++) sum[l] -= f * y[l];
        }
        for (int l = 0; l < 32; l++) x[o + l] = sum[l];
    }
    for (; o < rows; o++) {
        float sum = x[o];
        for (int64_t j = 0; j < count; j++) sum -= m[j * stride] * r[j * height + o];
        x[o] = sum;
    }
}

#ifdef X86
AVX2 static void feed_avx2(float *x, const float *m, int64_t stride, const float *r, int64_t height, int64_t count, int64_t rows) {
    feed(x, m, stride, r, height, count, rows);
}
#endif

/* y[to][o] -= sum_j m[j][to] x[j][o], j = from .. from + count, for columns to = first .. first + width, where y is of `first`. */
static void feed_back(float *y, const float *m, const successive *q, int64_t first, int64_t width, const float *x, int64_t from, int64_t count) {
    const int64_t height = q->rows / q->groups, n = q->columns, tile = count > 1 ? TILE : height;
    for (int64_t g = 0; g < q->groups && count; g++)
        for (int64_t o = 0; o < height; o += tile)
            for (int64_t to = 0; to < width; to++) {
                const float *row = m + (g * n + from) * n + first + to, *r = x + from * q->rows + g * height + o;
                float *sum = y + to * q->rows + g * height + o;
                const int64_t some = height - o < tile ? height - o : tile;
#ifdef X86
                if (has_avx2()) feed_avx2(sum, row, n, r, q->rows, count, some);
                else
#endif
                feed(sum, row, n, r, q->rows, count, some);
            }
}

/* Columns from .. to of one plane: choose integers column by column. x[columns][rows] are targets in fine steps of their own column, without
 * any feedback, and of columns before `from` what they have left, r - x, which these too become; fed[to - from][rows] are their targets with the
 * feedback of all before (NULL: it is made of x), down[rows][rows] what an error of one fine step of a row adds to the target of each row below
 * it in its column (NULL: nothing), m[groups][columns][columns] what an error of one fine step of a column takes off each later one,
 * rho[groups][columns] times tilt[rows], at most a half, the share of the rate that the ridge has paid, index and flip[to - from][rows] the
 * contexts, rate[T][Z][256], state[32] that of each lane's trellis; fine[to - from][rows] is the result. Returns 0, or -1 when memory is short. */
API int64_t nw_feedback(float *x, const float *fed, const float *m, const float *down, const float *rho, const float *tilt, const successive *q, int64_t from, int64_t to,
                        const uint16_t *index, const uint8_t *flip, const int32_t *rate, uint8_t *state, int16_t *fine) {
    const int64_t rows = q->rows, height = rows / q->groups, plane = from / q->per_plane, first = plane * q->span;
    const size_t longest = (size_t)(rows < LONGEST_PATH ? rows : LONGEST_PATH), listed = down ? longest * (size_t)q->survivors : 1;
    const size_t block = (size_t)(to - from) * (size_t)rows;
    space w = {malloc(longest * sizeof *w.cost), malloc(longest * sizeof *w.value), malloc(listed * sizeof *w.kept),
               malloc(longest << q->bits >> (q->bits ? 3 : 0)), malloc(listed), malloc(STRIP * sizeof *w.base)};
    float *targets = malloc(block * sizeof *targets), *work = malloc((size_t)rows * 3 * sizeof *work);
    int16_t *integers = malloc((size_t)rows * sizeof *integers);
    const int64_t fault = !w.cost || !w.value || !w.kept || !w.choice || !w.parent || !w.base || !targets || !work || !integers ? -1 : 0;
    if (!fault) memcpy(targets, fed ? fed : x + from * rows, block * sizeof *targets);
    if (!fault && !fed) feed_back(targets, m, q, from, to - from, x, 0, from);
    for (int64_t j = from; j < to && !fault; j++) {
        float *left = x + j * rows;
        column c = {targets + (j - from) * rows, down, work, work + rows, work + 2 * rows, index + (j - from) * rows, flip + (j - from) * rows, rate, integers};
        for (int64_t o = 0; o < rows; o++) {
            const float paid = rho[o / height * q->columns + j] * tilt[o];
            c.share[o] = paid < MOST_PAID ? paid : MOST_PAID;
        }
        for (int64_t o = 0; !q->span && o < rows; o++) {
            float target = c.y[o];
            for (int64_t i = 0; down && i < o; i++) target += down[i * rows + o] * c.left[i];
            c.k[o] = (int16_t)nearest(target, c.share[o], c.turn[o], rate + (size_t)c.table[o] * 256);
            c.r[o] = (float)c.k[o];
            c.left[o] = c.y[o] - c.r[o];
        }
        for (int64_t o = 0; q->span && o < rows;) {
            const int64_t at = (j - plane * q->per_plane) * rows + o, lane = at / q->span, t = first + at % q->span;
            int64_t size = rows - o;
            if (q->span - at % q->span < size) size = q->span - at % q->span;
            if (LONGEST_PATH < size) size = LONGEST_PATH;
            if (q->run - t % q->run < size) size = q->run - t % q->run;
            const int before = t % q->run ? state[lane] : 0;
            state[lane] = (uint8_t)(down ? listed_path(&c, o, size, before, q, &w) : path(&c, o, size, before, q, &w));
            o += size;
        }
        for (int64_t o = 0; o < rows; o++) left[o] = c.r[o] - left[o], fine[(j - from) * rows + o] = (int16_t)c.r[o];
        feed_back(targets + (j + 1 - from) * rows, m, q, j + 1, to - j - 1, x, j, 1);
    }
    free(w.cost); free(w.value); free(w.kept); free(w.choice); free(w.parent); free(w.base); free(targets); free(work); free(integers);
    return fault;
}

/* ---- small change --------------------------------------------------------------------------------------------------- */

/* out[i] = r[i] scale, rounded once. */
#ifdef X86
AVX2 static void scale_avx2(const int16_t *r, int64_t n, float scale, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = (float)r[i] * scale;
}
#endif

API void nw_scale(const int16_t *r, int64_t n, float scale, float *out) {
#ifdef X86
    if (has_avx2()) {
        scale_avx2(r, n, scale, out);
        return;
    }
#endif
    for (int64_t i = 0; i < n; i++) out[i] = (float)r[i] * scale;
}

/* A level of the ladder: k = sign(r) (ceil(|r| / threshold) - 1), r -= k threshold + sign(k) offset. 1 where a k would
 * not fit; then nothing is changed. */
API int64_t nw_send_level(int32_t *missing, int64_t n, int64_t threshold, int64_t offset, int16_t *k) {
    const int32_t t = (int32_t)threshold, o = (int32_t)offset;
    const int64_t most = threshold * INT16_MAX;
    for (int64_t i = 0; i < n; i++)
        if (missing[i] > most || missing[i] < -most) return 1;
    for (int64_t i = 0; i < n; i++) {
        const int32_t r = missing[i];
        int32_t v = 0;
        if (r > t) {
            v = (r - 1) / t;
            missing[i] = r - v * t - o;
        } else if (r < -t) {
            v = (r + 1) / t;
            missing[i] = r - v * t + o;
        }
        k[i] = (int16_t)v;
    }
    return 0;
}

/* And back: total += k threshold + sign(k) offset, modulo 2^32. */
API void nw_add_level(uint32_t *total, const int16_t *k, int64_t n, int64_t threshold, int64_t offset) {
    const uint32_t t = (uint32_t)threshold, o = (uint32_t)offset;
    for (int64_t i = 0; i < n; i++) total[i] += (uint32_t)k[i] * t + (uint32_t)((k[i] > 0) - (k[i] < 0)) * o;
}
