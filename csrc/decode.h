/* The decoder, included by kernels.c: scalar, with AVX2, and with AVX-512 in decode_avx512.h; each takes over where another stops, and all
 * give the same bits. Chunks are decoded several to a call, straight to where they are wanted. */

/* ---- classes -------------------------------------------------------------------------------------------------------- */

static ALWAYS void
fill_classes(const int16_t *row, const int16_t *column, int64_t rows, int64_t columns, int64_t start, int64_t n, int64_t top, uint8_t *out) {
    int64_t o = start / columns % rows, c = start % columns, i = 0;
    while (i < n) {
        int64_t run = columns - c < n - i ? columns - c : n - i;
        const int16_t base = row[o], most = (int16_t)top, *level = column + c;
        uint8_t *to = out + i;
        for (int64_t j = 0; j < run; j++) { /* 16-bit all along, so that it becomes vector code */
            int16_t v = (int16_t)(base + level[j]);
            v = v < 0 ? 0 : v;
            v = v > most ? most : v;
            to[j] = (uint8_t)v;
        }
        i += run;
        c = 0;
        o = o + 1 == rows ? 0 : o + 1;
    }
}

#ifdef X86
AVX2 static void fill_classes_avx2(const int16_t *row, const int16_t *column, int64_t rows, int64_t columns, int64_t start, int64_t n, int64_t top, uint8_t *out) {
    fill_classes(row, column, rows, columns, start, n, top, out);
}

/* The same by 64, which saturated packing to bytes makes; top is at most 255. */
WIDE static void fill_classes_wide(const int16_t *row, const int16_t *column, int64_t rows, int64_t columns, int64_t start, int64_t n, int64_t top, uint8_t *out) {
    const __m512i in_order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), most = _mm512_set1_epi8((char)top);
    int64_t o = start / columns % rows, c = start % columns;
    for (int64_t i = 0; i < n; c = 0, o = o + 1 == rows ? 0 : o + 1) {
        const int64_t run = columns - c < n - i ? columns - c : n - i;
        const __m512i base = _mm512_set1_epi16(row[o]);
        for (int64_t j = 0; j < run; j += 64) {
            const uint64_t mask = run - j < 64 ? ((uint64_t)1 << (run - j)) - 1 : ~(uint64_t)0;
            const __m512i a = _mm512_maskz_loadu_epi16((__mmask32)mask, column + c + j), b = _mm512_maskz_loadu_epi16((__mmask32)(mask >> 32), column + c + j + 32);
            const __m512i v = _mm512_packus_epi16(_mm512_add_epi16(base, a), _mm512_add_epi16(base, b));
            _mm512_mask_storeu_epi8(out + i + j, mask, _mm512_min_epu8(_mm512_permutexvar_epi64(in_order, v), most));
        }
        i += run;
    }
}
#endif

/* Class of symbols start .. start + n of a scan of rows x columns x positions: clamp(row + column level, 0, top). */
API void nw_classes(const int16_t *row, const int16_t *column, int64_t rows, int64_t columns, int64_t start, int64_t n, int64_t top, uint8_t *out) {
#ifdef X86
    if (has_wide() && top < 256) {
        fill_classes_wide(row, column, rows, columns, start, n, top, out);
        return;
    }
    if (has_avx2()) {
        fill_classes_avx2(row, column, rows, columns, start, n, top, out);
        return;
    }
#endif
    fill_classes(row, column, rows, columns, start, n, top, out);
}

/* Class of symbols start .. start + n of the scan "kio": clamp(row[o] + column[place], 0, top). A plane of rows x columns symbols is dealt
 * to lanes: symbol t lanes + l is number l T + t of the plane counted down its columns, T = rows columns / lanes. */
API void nw_dealt_classes(const int16_t *row, const int16_t *column, int64_t rows, int64_t columns, int64_t lanes, int64_t start, int64_t n, int64_t top, uint8_t *out) {
    const int64_t plane = rows * columns, T = plane / lanes;
    for (int64_t i = 0; i < n;) {
        const int64_t p = (start + i) / plane, r = (start + i) % plane, m = plane - r < n - i ? plane - r : n - i;
        for (int64_t l = 0; l < lanes; l++) {
            int64_t j = (l - r % lanes + lanes) % lanes;
            if (j >= m) continue;
            int64_t q = l * T + (r + j) / lanes, o = q % rows, c = p * columns + q / rows;
            for (; j < m; j += lanes) {
                int v = row[o] + column[c];
                out[i + j] = (uint8_t)(v < 0 ? 0 : v > top ? top : v);
                if (++o == rows) o = 0, c++;
            }
        }
        i += m;
    }
}

/* ---- symbols ------------------------------------------------------------------------------------------------------- */

/* Symbols 0 and 255 are escapes (even, odd) and never flipped; nor is -127, whose flip would be the odd escape. */
static inline int32_t unflip(int32_t v, int32_t flip) { return v < 2 - CENTRE || v == CENTRE - 1 ? v : (v ^ flip) - flip; }

typedef struct {
    uint32_t x[LANES]; /* coder states */
    const uint8_t *at, *end;
    int64_t *place;    /* of escapes in their segments, and the fine indices that stand there */
    int16_t *held;
    int64_t room, escapes;
} reader;

/* A decoded symbol goes where it is wanted. */
static inline void put(reader *d, segment *s, int64_t i, int32_t v, int32_t r) {
    if (s->out) s->out[i] = (int16_t)r;
    if (s->scaled) s->scaled[i] = (float)r * s->factor;
    s->plain += (uint32_t)r, s->weighted += (uint32_t)(i + 1) * (uint32_t)r;
    if (v != -CENTRE && v != CENTRE - 1) return;
    if (d->escapes < d->room) d->place[d->escapes] = i, d->held[d->escapes] = (int16_t)r;
    d->escapes++, s->beyond++;
}

/* The symbol of table entry e off a lane's state, which takes a word where it is low. Returns 0, or -1 where the words run out. */
static inline int take(reader *d, int l, uint32_t e) {
    uint32_t y = (((e >> PRECISION) & (SLOTS - 1)) + 1) * (d->x[l] >> PRECISION) + (e & (SLOTS - 1));
    if (y < LOW) {
        if (d->end - d->at < 2) return -1;
        y = y << 16 | (uint32_t)d->at[0] | (uint32_t)d->at[1] << 8;
        d->at += 2;
    }
    d->x[l] = y;
    return 0;
}

/* Symbols i .. to of a segment, i lane 0's; `cls` are the classes from i on, NULL: all 0. Returns 0, or -1 where the words run out. */
static int decode_scalar(reader *d, int lanes, const uint32_t *tables, const model *q, segment *s, uint8_t *state, const uint8_t *cls, int64_t i, int64_t to) {
    int32_t table[LANES], flip[LANES];
    for (const int64_t from = i; i < to; i += lanes) {
        int m = to - i < lanes ? (int)(to - i) : lanes;
        contexts(s, q, cls ? cls + (i - from) : NULL, s->out, i, m, table, flip);
        for (int l = 0; l < m; l++) {
            const uint32_t e = tables[(size_t)(table[l] + (q->codebooks == 2 ? state[l] & 1 : 0)) * SLOTS + (d->x[l] & (SLOTS - 1))];
            if (take(d, l, e)) return -1;
            int32_t v = unflip((int32_t)(e >> 24 ^ CENTRE) - CENTRE, flip[l]);
            put(d, s, i + l, v, advance(q, v, state + l));
        }
    }
    return 0;
}

#ifdef X86
/* EXPAND[mask][lane]: how many lanes below this one take a word, which is the place of its own word among the next eight. */
#define BIT(m, l) ((m) >> (l) & 1)
#define N1(m) BIT(m, 0)
#define N2(m) (N1(m) + BIT(m, 1))
#define N3(m) (N2(m) + BIT(m, 2))
#define N4(m) (N3(m) + BIT(m, 3))
#define N5(m) (N4(m) + BIT(m, 4))
#define N6(m) (N5(m) + BIT(m, 5))
#define N7(m) (N6(m) + BIT(m, 6))
#define ROW1(m) {0, N1(m), N2(m), N3(m), N4(m), N5(m), N6(m), N7(m)}
#define ROW4(m) ROW1(m), ROW1((m) + 1), ROW1((m) + 2), ROW1((m) + 3)
#define ROW16(m) ROW4(m), ROW4((m) + 4), ROW4((m) + 8), ROW4((m) + 12)
#define ROW64(m) ROW16(m), ROW16((m) + 16), ROW16((m) + 32), ROW16((m) + 48)
static const uint8_t EXPAND[256][8] = {ROW64(0), ROW64(64), ROW64(128), ROW64(192)};

/* Lanes 8 g .. 8 g + 7: entries of their slots. The slots go through memory: as scalars the table can be read at three a cycle. */
AVX2 static inline __m256i look_up(const uint32_t *tables, const uint32_t *slot) {
    return _mm256_setr_epi32((int)tables[slot[0]], (int)tables[slot[1]], (int)tables[slot[2]], (int)tables[slot[3]],
                             (int)tables[slot[4]], (int)tables[slot[5]], (int)tables[slot[6]], (int)tables[slot[7]]);
}

/* States before -> states after their entries, refilled with words from *at on. */
AVX2 static inline __m256i step8(__m256i x, __m256i e, const uint8_t **at) {
    const __m256i low12 = _mm256_set1_epi32(SLOTS - 1);
    __m256i high = _mm256_srli_epi32(x, PRECISION), freq = _mm256_and_si256(_mm256_srli_epi32(e, PRECISION), low12); /* less 1 */
    __m256i y = _mm256_add_epi32(_mm256_mullo_epi32(freq, high), _mm256_add_epi32(high, _mm256_and_si256(e, low12)));
    __m256i low = _mm256_cmpeq_epi32(_mm256_srli_epi32(y, 16), _mm256_setzero_si256());
    unsigned mask = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(low));
    __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)*at));
    words = _mm256_permutevar8x32_epi32(words, _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)EXPAND[mask])));
    *at += 2 * __builtin_popcount(mask);
    return _mm256_blendv_epi8(y, _mm256_or_si256(_mm256_slli_epi32(y, 16), words), low);
}

AVX2 static inline uint32_t sum8(__m256i v) {
    uint32_t part[8], sum = 0;
    _mm256_storeu_si256((__m256i *)part, v);
    for (int l = 0; l < 8; l++) sum += part[l];
    return sum;
}

enum { NO_CONTEXT, CLASS, NEIGHBOURS }; /* what the table of a symbol depends on, besides the trellis */

/* Whole groups of symbols i .. to, while 64 bytes are left to read ahead; `cls` are the classes from i on. Returns where it stopped. Inlined
 * for each combination. */
AVX2 static ALWAYS int64_t
groups(reader *d, const uint32_t *tables, const model *q, segment *s, uint8_t *state, const uint8_t *cls, int64_t i, int64_t to, const int trellis, const int context) {
    const __m256i one8 = _mm256_set1_epi8(1), tap0 = _mm256_set1_epi8((char)q->tap0), tap1 = _mm256_set1_epi8((char)q->tap1);
    const __m256i half = _mm256_set1_epi8(0x7f), one = _mm256_set1_epi16(1);
    const __m256i first = _mm256_setr_epi16(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16), second = _mm256_add_epi16(first, _mm256_set1_epi16(16));
    const __m256 factor = _mm256_set1_ps(s->factor);
    __m256i x[4], plain = _mm256_setzero_si256(), prefix = plain, within = plain;
    int32_t table[LANES] __attribute__((aligned(32))) = {0}, flip[LANES] __attribute__((aligned(32))) = {0};
    uint32_t slot[LANES] __attribute__((aligned(32)));
    const uint8_t *at = d->at;
    for (int g = 0; g < 4; g++) x[g] = _mm256_loadu_si256((const __m256i *)(d->x + 8 * g));
    for (; i + LANES <= to && d->end - at >= 64; i += LANES, cls += cls ? LANES : 0) {
        if (context == NEIGHBOURS) contexts(s, q, cls, s->out, i, LANES, table, flip);
        for (int g = 0; g < 4; g++) {
            __m256i t = _mm256_setzero_si256();
            if (context == NEIGHBOURS) t = _mm256_load_si256((const __m256i *)(table + 8 * g));
            if (context == CLASS) t = _mm256_slli_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(cls + 8 * g))), trellis);
            if (trellis) t = _mm256_add_epi32(t, _mm256_and_si256(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(state + 8 * g))), _mm256_set1_epi32(1)));
            __m256i in = _mm256_and_si256(x[g], _mm256_set1_epi32(SLOTS - 1));
            _mm256_store_si256((__m256i *)(slot + 8 * g), _mm256_add_epi32(in, _mm256_slli_epi32(t, PRECISION)));
        }
        __asm__ volatile("" : : "r"(slot) : "memory"); /* or the compiler takes the slots out of the registers, which is slower */
        __m256i v[4];
        for (int g = 0; g < 4; g++) v[g] = look_up(tables, slot + 8 * g);
        for (int g = 0; g < 4; g++) x[g] = step8(x[g], v[g], &at);
        for (int g = 0; g < 4; g++) v[g] = _mm256_srai_epi32(v[g], 24);
        if (context == NEIGHBOURS)
            for (int g = 0; g < 4; g++) {
                __m256i f = _mm256_load_si256((const __m256i *)(flip + 8 * g));
                __m256i keep = _mm256_or_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(2 - CENTRE), v[g]), _mm256_cmpeq_epi32(v[g], _mm256_set1_epi32(CENTRE - 1)));
                f = _mm256_andnot_si256(keep, f);
                v[g] = _mm256_sub_epi32(_mm256_xor_si256(v[g], f), f);
            }
        /* 32 values to 16 bits and to 8, in order */
        __m256i a = _mm256_permute4x64_epi64(_mm256_packs_epi32(v[0], v[1]), 0xd8), b = _mm256_permute4x64_epi64(_mm256_packs_epi32(v[2], v[3]), 0xd8);
        __m256i v8 = _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xd8);
        if (trellis) {
            __m256i st = _mm256_loadu_si256((const __m256i *)state);
            __m256i c = _mm256_cmpeq_epi8(_mm256_and_si256(st, one8), one8), p = _mm256_cmpeq_epi8(_mm256_and_si256(v8, one8), one8);
            st = _mm256_and_si256(_mm256_srli_epi16(st, 1), half);
            _mm256_storeu_si256((__m256i *)state, _mm256_xor_si256(st, _mm256_xor_si256(_mm256_and_si256(c, tap0), _mm256_and_si256(p, tap1))));
            __m256i ca = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(c)), cb = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(c, 1));
            /* 2v + (-1 * c) sign(v): c is -1 where the second codebook is in force */
            a = _mm256_add_epi16(_mm256_add_epi16(a, a), _mm256_sign_epi16(ca, a));
            b = _mm256_add_epi16(_mm256_add_epi16(b, b), _mm256_sign_epi16(cb, b));
        }
        if (s->out) {
            _mm256_storeu_si256((__m256i *)(s->out + i), a);
            _mm256_storeu_si256((__m256i *)(s->out + i + 16), b);
        }
        if (s->scaled) {
            const __m128i part[4] = {_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1), _mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1)};
            for (int g = 0; g < 4; g++) _mm256_storeu_ps(s->scaled + i + 8 * g, _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(part[g])), factor));
        }
        /* sum r_i; sum over the groups so far of that sum; sum of r_i times its place in the group */
        plain = _mm256_add_epi32(plain, _mm256_add_epi32(_mm256_madd_epi16(a, one), _mm256_madd_epi16(b, one)));
        prefix = _mm256_add_epi32(prefix, plain);
        within = _mm256_add_epi32(within, _mm256_add_epi32(_mm256_madd_epi16(a, first), _mm256_madd_epi16(b, second)));
        __m256i escaped = _mm256_or_si256(_mm256_cmpeq_epi8(v8, _mm256_set1_epi8(-CENTRE)), _mm256_cmpeq_epi8(v8, _mm256_set1_epi8(CENTRE - 1)));
        for (unsigned mask = (unsigned)_mm256_movemask_epi8(escaped); mask; mask &= mask - 1) {
            int l = __builtin_ctz(mask);
            int16_t r[LANES];
            _mm256_storeu_si256((__m256i *)r, a);
            _mm256_storeu_si256((__m256i *)(r + 16), b);
            if (d->escapes < d->room) d->place[d->escapes] = i + l, d->held[d->escapes] = r[l];
            d->escapes++, s->beyond++;
        }
    }
    d->at = at;
    for (int g = 0; g < 4; g++) _mm256_storeu_si256((__m256i *)(d->x + 8 * g), x[g]);
    uint32_t sum = sum8(plain);
    s->plain += sum;
    s->weighted += (uint32_t)i * sum - LANES * sum8(prefix) + sum8(within); /* i = from + 32 groups */
    return i;
}

AVX2 static int64_t decode_avx2(reader *d, const uint32_t *tables, const model *q, segment *s, uint8_t *state, const uint8_t *cls, int64_t i, int64_t to) {
    const int trellis = q->codebooks == 2;
    if (q->levels > 1) return trellis ? groups(d, tables, q, s, state, cls, i, to, 1, NEIGHBOURS) : groups(d, tables, q, s, state, cls, i, to, 0, NEIGHBOURS);
    if (cls) return trellis ? groups(d, tables, q, s, state, cls, i, to, 1, CLASS) : groups(d, tables, q, s, state, cls, i, to, 0, CLASS);
    return trellis ? groups(d, tables, q, s, state, cls, i, to, 1, NO_CONTEXT) : groups(d, tables, q, s, state, cls, i, to, 0, NO_CONTEXT);
}

#include "decode_avx512.h"
#endif

/* ---- chunks --------------------------------------------------------------------------------------------------------- */

#include "crc32.h"

typedef struct {
    const uint8_t *bytes;
    int64_t size;
    segment *segs;
    int64_t count;  /* segments */
    int64_t *place; /* of escapes in their segments, and the fine indices that stand there */
    int16_t *held;
    int64_t room;   /* for escapes, of which there may be more */
    int64_t used;   /* bytes; -1: too short, -2: wrong end state */
    int64_t checksum; /* docs/format.md, 4.2, if it could be decoded */
} chunk;

enum { SCALAR, WITH_AVX2, WITH_AVX512 }; /* the widest path that may be taken */
enum { AT_HAND = 4096 };                   /* symbols whose classes are at hand */
#ifdef X86
static const uint8_t ZEROS[AT_HAND];
#endif

/* Classes of symbols i .. i + n of a segment, n at most AT_HAND; NULL: all 0. */
static const uint8_t *classes_from(const segment *s, int64_t i, int64_t n, uint8_t *room) {
    if (!s->row) return s->cls ? s->cls + i : NULL;
    if (s->dealt) nw_dealt_classes(s->row, s->column, s->rows, s->columns, s->dealt, s->start + i, n, s->top, room);
    else nw_classes(s->row, s->column, s->rows, s->columns, s->start + i, n, s->top, room);
    return room;
}

static int starts(reader *d, const chunk *c, int lanes) {
    if (c->size < 4 * lanes) return 0;
    *d = (reader){.at = c->bytes + 4 * lanes, .end = c->bytes + c->size, .place = c->place, .held = c->held, .room = c->room};
    memcpy(d->x, c->bytes, 4 * (size_t)lanes);
    return 1;
}

static int64_t ends(const reader *d, const chunk *c, int lanes) {
    for (int l = 0; l < lanes; l++) if (d->x[l] != LOW) return -2;
    return d->at - c->bytes;
}

#ifdef X86
/* Whole groups of symbols i .. to, while 64 bytes are left to read ahead, by the widest way there is. Returns where it stopped. */
static int64_t fast(reader *d, const uint32_t *tables, const model *q, segment *s, uint8_t *state, const uint8_t *cls, int64_t i, int64_t to, int widest) {
    if (widest == WITH_AVX512 && q->levels == 1 && !s->scaled != !s->out) return wide_one(d, tables, q, s, state, cls ? cls : ZEROS, i, to);
    return decode_avx2(d, tables, q, s, state, cls, i, to);
}

/* The same where fewer are left: from a copy with zeros behind it. Returns -1 where the words run out. */
static int64_t fast_last(reader *d, const uint32_t *tables, const model *q, segment *s, uint8_t *state, const uint8_t *cls, int64_t i, int64_t to, int widest) {
    uint8_t copy[128] = {0};
    const uint8_t *at = d->at, *end = d->end;
    const int64_t left = end - at;
    if (left >= 64) return i;
    memcpy(copy, at, (size_t)left);
    d->at = copy, d->end = copy + left + 64; /* so that it goes on until more than `left` are used */
    i = fast(d, tables, q, s, state, cls, i, to, widest);
    const int64_t used = d->at - copy;
    d->at = used > left ? end : at + used, d->end = end;
    return used > left ? -1 : i;
}
#endif

/* From symbol i, which is lane 0's, to the end of a segment. Returns 0, or -1 where the words run out. */
static int decode_segment(reader *d, int lanes, const uint32_t *tables, const model *q, segment *s, uint8_t *state, int64_t i, int widest) {
    uint8_t room[AT_HAND];
    const int64_t block = AT_HAND / lanes * lanes;
    for (int64_t to; i < s->n; i = to) {
        to = s->n - i < block ? s->n : i + block;
        const uint8_t *cls = classes_from(s, i, to - i, room);
        int64_t at = i;
#ifdef X86
        if (lanes == LANES && widest >= WITH_AVX2) {
            at = fast(d, tables, q, s, state, cls, i, to, widest);
            if (to - at >= LANES) at = fast_last(d, tables, q, s, state, cls ? cls + (at - i) : NULL, at, to, widest);
            if (at < 0) return -1;
        }
#endif
        (void)widest;
        if (decode_scalar(d, lanes, tables, q, s, state, cls ? cls + (at - i) : NULL, at, to)) return -1;
    }
    return 0;
}

/* A chunk on its way: symbol i of a segment comes next. */
typedef struct {
    chunk *c; /* NULL: none, or done */
    reader d;
    int64_t segment, i, known; /* classes are at hand up to symbol `known` */
    const uint8_t *cls;        /* of symbol i and those that follow */
    uint8_t state[LANES], room[AT_HAND];
} turn;

static void take_turn(turn *t, chunk *c, int lanes) {
    t->c = starts(&t->d, c, lanes) ? c : NULL;
    t->segment = t->i = t->known = 0;
    memset(t->state, 0, LANES);
}

/* The rest of the segment at hand, and on to the next, where there is one. */
static void finish_segment(turn *t, int lanes, const uint32_t *tables, const model *q, int widest) {
    chunk *c = t->c;
    if (t->segment < c->count && decode_segment(&t->d, lanes, tables, q, c->segs + t->segment, t->state, t->i, widest)) {
        t->c = NULL;
        return;
    }
    t->segment++, t->i = t->known = 0;
    memset(t->state, 0, LANES);
    if (t->segment < c->count) return;
    c->used = ends(&t->d, c, lanes);
    t->c = NULL;
}

#ifdef X86
/* Symbols of whole groups whose classes are at hand, for wide_two; 0 where the segment, or its chunk, has to be finished without. */
static int64_t at_hand(turn *t) {
    if (t->segment >= t->c->count || t->d.end - t->d.at < 64) return 0;
    const segment *s = t->c->segs + t->segment;
    if (t->i == t->known && t->i < s->n) {
        t->known = s->n - t->i < AT_HAND ? s->n : t->i + AT_HAND;
        t->cls = classes_from(s, t->i, t->known - t->i, t->room);
        if (!t->cls) t->cls = ZEROS;
    }
    return !s->scaled != !s->out ? (t->known - t->i) / LANES * LANES : 0;
}

/* Chunks two by two; when one is done the next takes its place. */
static void decode_in_turns(chunk *chunks, int64_t count, const uint32_t *tables, const model *q) {
    turn t[2];
    int64_t next = 0;
    t[0].c = t[1].c = NULL;
    for (;;) {
        for (int h = 0; h < 2; h++) while (!t[h].c && next < count) take_turn(t + h, chunks + next++, LANES);
        if (!t[0].c && !t[1].c) return;
        const int64_t m[2] = {t[0].c ? at_hand(t) : 0, t[1].c ? at_hand(t + 1) : 0};
        if (m[0] && m[1] && kind_of(t[0].c->segs + t[0].segment) == kind_of(t[1].c->segs + t[1].segment)) {
            reader *const d[2] = {&t[0].d, &t[1].d};
            segment *const s[2] = {t[0].c->segs + t[0].segment, t[1].c->segs + t[1].segment};
            uint8_t *const state[2] = {t[0].state, t[1].state};
            const uint8_t *const cls[2] = {t[0].cls, t[1].cls};
            const int64_t i[2] = {t[0].i, t[1].i};
            const int64_t done = wide_two(d, tables, q, s, state, cls, i, m[0] < m[1] ? m[0] : m[1]);
            for (int h = 0; h < 2; h++) t[h].i += done, t[h].cls += done;
        } else {
            const int h = !t[0].c || (t[1].c && m[0] && !m[1]);
            finish_segment(t + h, LANES, tables, q, WITH_AVX512);
        }
    }
}
#endif

static void decode_alone(chunk *c, int lanes, const uint32_t *tables, const model *q, int widest) {
    turn t;
    for (take_turn(&t, c, lanes); t.c;) finish_segment(&t, lanes, tables, q, widest);
}

static uint32_t checksum(const chunk *c, int widest) {
    uint32_t plain = 0, weighted = 0, at = 0;
    uint8_t sums[8];
    for (int64_t j = 0; j < c->count; j++) {
        plain += c->segs[j].plain, weighted += c->segs[j].weighted + at * c->segs[j].plain;
        at += (uint32_t)c->segs[j].n;
    }
    for (int j = 0; j < 4; j++) sums[j] = (uint8_t)(plain >> 8 * j), sums[4 + j] = (uint8_t)(weighted >> 8 * j);
    return crc32(sums, 8, crc32(c->bytes, c->size, 0, widest), widest);
}

/* Decode chunks: `used` and `checksum` of each, and what its segments hold, say what came out. `widest`: the path that may be taken; all give the
 * same. Returns the path taken. */
API int64_t nw_decode(chunk *chunks, int64_t count, int64_t lanes, const uint32_t *tables, const model *q, int64_t widest) {
    int64_t path = SCALAR;
#ifdef X86
    if (has_avx2() && widest >= WITH_AVX2) path = widest >= WITH_AVX512 && has_wide() ? WITH_AVX512 : WITH_AVX2;
#endif
    for (int64_t j = 0; j < count; j++) {
        chunks[j].used = chunks[j].checksum = -1;
        for (int64_t k = 0; k < chunks[j].count; k++) chunks[j].segs[k].plain = chunks[j].segs[k].weighted = 0, chunks[j].segs[k].beyond = 0;
    }
    if (lanes < 1 || lanes > LANES) return path;
#ifdef X86
    if (path == WITH_AVX512 && lanes == LANES && q->levels == 1 && count > 1) decode_in_turns(chunks, count, tables, q);
    else
#endif
        for (int64_t j = 0; j < count; j++) decode_alone(chunks + j, (int)lanes, tables, q, (int)path);
    for (int64_t j = 0; j < count; j++) if (chunks[j].used >= 0) chunks[j].checksum = checksum(chunks + j, (int)widest);
    return path;
}

/* An integer as docs/format.md, 4 has it, of at most 9 bytes; 0 where there is none. */
static int read_integer(const uint8_t **at, const uint8_t *end, int64_t *value) {
    uint64_t v = 0;
    for (int shift = 0; shift < 63; shift += 7) {
        if (*at == end) return 0;
        const uint8_t byte = *(*at)++;
        v |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            *value = (int64_t)v;
            return 1;
        }
    }
    return 0;
}

/* The same with a sign. */
static int read_signed(const uint8_t **at, const uint8_t *end, int64_t *value) {
    if (!read_integer(at, end, value)) return 0;
    *value = *value & 1 ? -1 - (*value >> 1) : *value >> 1;
    return 1;
}

enum { BATCH = 128, FEW = 256, LARGEST_ESCAPE = 1 << 22 };

/* Put what is escaped where its multiples belong; 0 unless it fits its places and ends with the chunk. */
static int patch(const chunk *c, const model *q, int escapes) {
    const uint8_t *at = c->bytes + c->used, *end = c->bytes + c->size;
    const int64_t *place = c->place;
    const int16_t *held = c->held;
    for (const segment *s = c->segs; escapes && s < c->segs + c->count; s++)
        for (int64_t j = 0; j < s->beyond; j++, place++, held++) {
            int64_t value;
            if (!read_signed(&at, end, &value) || value > LARGEST_ESCAPE || value < -LARGEST_ESCAPE || (value & 1) != (*held > 0)) return 0;
            if (q->codebooks == 2) value = 2 * value - (*held & 1) * ((value > 0) - (value < 0));
            s->scaled[*place] = (float)value * s->factor;
        }
    return at == end;
}

/* Decode chunks without low bits: where[j] is the first byte in `data`, bytes and pieces of chunk j; its pieces follow those of the chunks before
 * it, and a piece is its tensor, first symbol, symbols. Tensors are what their segments have in common, with `scaled` for the whole tensor and
 * without fine indices; `escapes`: values follow for them. Returns 0, or 1 where anything is unusual; then nw_decode has to find out what. */
API int64_t nw_decode_tensors(const uint8_t *data, const int64_t (*where)[3], int64_t count, const int64_t (*piece)[3], const segment *tensors, const uint32_t *tables,
                              const model *q, int64_t widest, int64_t escapes, int64_t *checksums) {
    int64_t most = 1, unusual = 0;
    for (int64_t j = 0; j < count; j++) if (where[j][2] > most) most = where[j][2];
    chunk *c = malloc(BATCH * sizeof *c);
    segment *segs = malloc(BATCH * (size_t)most * sizeof *segs);
    int64_t(*place)[FEW] = malloc(BATCH * sizeof *place);
    int16_t(*held)[FEW] = malloc(BATCH * sizeof *held);
    if (!c || !segs || !place || !held) unusual = 1;
    for (int64_t j = 0; j < count && !unusual; j += BATCH) {
        const int size = count - j < BATCH ? (int)(count - j) : BATCH;
        for (int h = 0; h < size; h++) {
            const int64_t *w = where[j + h];
            segment *s = segs + h * most;
            c[h] = (chunk){.bytes = data + w[0], .size = w[1], .segs = s, .count = w[2], .place = place[h], .held = held[h], .room = FEW};
            for (int64_t k = 0; k < w[2]; k++, s++, piece++) {
                *s = tensors[(*piece)[0]];
                s->start = (*piece)[1], s->n = (*piece)[2], s->scaled += (*piece)[1];
            }
        }
        nw_decode(c, size, LANES, tables, q, widest);
        for (int h = 0; h < size; h++) {
            int64_t beyond = 0;
            for (int64_t k = 0; k < c[h].count; k++) beyond += c[h].segs[k].beyond;
            checksums[j + h] = c[h].checksum;
            if (c[h].used < 0 || beyond > FEW || !patch(c + h, q, (int)escapes)) unusual = 1;
        }
    }
    free(c), free(segs), free(place), free(held);
    return unusual;
}
