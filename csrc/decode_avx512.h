/* The decoder with AVX-512: a chunk, or two chunks in turns, which hides what a group of lanes waits for: its states go through the tables
 * and the words back to its states. Included by decode.h; without neighbours, to float32 or to fine indices, whichever is wanted.
 *
 * The table is read by scalar loads here too: with row and column classes the lanes of a group have some seven tables between them, so that
 * no register holds them, and the gather instruction takes longer. */

/* What a segment's lanes carry along, lanes 0 .. 15 and 16 .. 31. */
typedef struct {
    __m512i x0, x1; /* coder states */
    __m512i t0, t1; /* trellis states */
    __m512i p0, p1; /* sums of the fine indices of each lane */
    __m512i w0, w1; /* sums of these sums over the groups so far */
    __m512 last; /* of what goes around the caches: the 16 values before, and how to take a whole line from these and the next */
    __m512i turn;
    const uint8_t *at;
} wide;

enum { TO_INTEGERS, TO_FLOATS, AROUND_CACHES };

WIDE static ALWAYS __m512i look_up16(const uint32_t *tables, const uint32_t *slot) {
    __m128i part[4];
    for (int g = 0; g < 4; g++)
        part[g] = _mm_setr_epi32((int)tables[slot[4 * g]], (int)tables[slot[4 * g + 1]], (int)tables[slot[4 * g + 2]], (int)tables[slot[4 * g + 3]]);
    __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(part[0]), part[1], 1);
    __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(part[2]), part[3], 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/* Places of 16 lanes' entries in the tables. */
WIDE static ALWAYS __m512i slots16(__m512i x, __m512i t, const uint8_t *cls, const int trellis) {
    __m512i table = _mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)cls)), PRECISION + trellis);
    __m512i slot = _mm512_ternarylogic_epi32(x, _mm512_set1_epi32(SLOTS - 1), table, 0xEA); /* (x & mask) | table */
    if (!trellis) return slot;
    return _mm512_mask_or_epi32(slot, _mm512_test_epi32_mask(t, _mm512_set1_epi32(1)), slot, _mm512_set1_epi32(SLOTS));
}

/* States after their entries, refilled with words from *at on. */
WIDE static ALWAYS __m512i step16(__m512i x, __m512i e, const uint8_t **at) {
    const __m512i low12 = _mm512_set1_epi32(SLOTS - 1);
    __m512i high = _mm512_srli_epi32(x, PRECISION), freq = _mm512_and_si512(_mm512_srli_epi32(e, PRECISION), low12); /* less 1 */
    __m512i y = _mm512_add_epi32(_mm512_mullo_epi32(freq, high), _mm512_add_epi32(high, _mm512_and_si512(e, low12)));
    __mmask16 low = _mm512_cmplt_epu32_mask(y, _mm512_set1_epi32(1 << 16));
    __m512i words = _mm512_maskz_expand_epi32(low, _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)*at)));
    *at += 2 * _mm_popcnt_u32(low);
    return _mm512_mask_or_epi32(y, low, _mm512_slli_epi32(y, 16), words);
}

/* Fine indices of 16 lanes from their integers, and the next states of their trellises. */
WIDE static ALWAYS __m512i fine16(__m512i v, __m512i *t, const model *q) {
    const __m512i one = _mm512_set1_epi32(1);
    __mmask16 second = _mm512_test_epi32_mask(*t, one), odd = _mm512_test_epi32_mask(v, one);
    __m512i sign = _mm512_or_si512(_mm512_srai_epi32(v, 31), one), next = _mm512_srli_epi32(*t, 1);
    next = _mm512_mask_xor_epi32(next, second, next, _mm512_set1_epi32((int)q->tap0));
    *t = _mm512_mask_xor_epi32(next, odd, next, _mm512_set1_epi32((int)q->tap1));
    __m512i r = _mm512_add_epi32(v, v);
    return _mm512_mask_sub_epi32(r, _mm512_mask_test_epi32_mask(second, v, v), r, sign);
}

WIDE static __attribute__((noinline, cold)) void note(reader *d, segment *s, int64_t i, uint32_t mask, __m512i r0, __m512i r1) {
    int32_t r[LANES];
    _mm512_storeu_si512(r, r0);
    _mm512_storeu_si512(r + 16, r1);
    for (; mask; mask &= mask - 1) {
        int l = __builtin_ctz(mask);
        if (d->escapes < d->room) d->place[d->escapes] = i + l, d->held[d->escapes] = (int16_t)r[l];
        d->escapes++, s->beyond++;
    }
}

/* 32 symbols from their entries: where they are wanted, into the sums, and the states on. */
WIDE static ALWAYS void
take32(wide *c, reader *d, segment *s, const model *q, int64_t i, __m512i e0, __m512i e1, __m512 factor, const int trellis, const int kind) {
    c->x0 = step16(c->x0, e0, &c->at);
    c->x1 = step16(c->x1, e1, &c->at);
    __m512i r0 = _mm512_srai_epi32(e0, 24), r1 = _mm512_srai_epi32(e1, 24);
    if (trellis) r0 = fine16(r0, &c->t0, q), r1 = fine16(r1, &c->t1, q);
    if (kind == TO_FLOATS) {
        _mm512_storeu_ps(s->scaled + i, _mm512_mul_ps(_mm512_cvtepi32_ps(r0), factor));
        _mm512_storeu_ps(s->scaled + i + 16, _mm512_mul_ps(_mm512_cvtepi32_ps(r1), factor));
    } else if (kind == AROUND_CACHES) {
        float *line = (float *)((uintptr_t)(s->scaled + i) & ~(uintptr_t)63);
        __m512 a = _mm512_mul_ps(_mm512_cvtepi32_ps(r0), factor), b = _mm512_mul_ps(_mm512_cvtepi32_ps(r1), factor);
        _mm512_stream_ps(line, _mm512_permutex2var_ps(c->last, c->turn, a));
        _mm512_stream_ps(line + 16, _mm512_permutex2var_ps(a, c->turn, b));
        c->last = b;
    } else {
        _mm256_storeu_si256((__m256i *)(s->out + i), _mm512_cvtepi32_epi16(r0));
        _mm256_storeu_si256((__m256i *)(s->out + i + 16), _mm512_cvtepi32_epi16(r1));
    }
    c->p0 = _mm512_add_epi32(c->p0, r0), c->p1 = _mm512_add_epi32(c->p1, r1);
    c->w0 = _mm512_add_epi32(c->w0, c->p0), c->w1 = _mm512_add_epi32(c->w1, c->p1);
    /* v = 127 and v = -128 are neighbours where entries wrap around */
    const __m512i first = _mm512_set1_epi32(127 << 24), span = _mm512_set1_epi32(2 << 24);
    __mmask16 z0 = _mm512_cmplt_epu32_mask(_mm512_sub_epi32(e0, first), span), z1 = _mm512_cmplt_epu32_mask(_mm512_sub_epi32(e1, first), span);
    if (__builtin_expect(!_kortestz_mask16_u8(z0, z1), 0)) note(d, s, i, (uint32_t)z0 | (uint32_t)z1 << 16, r0, r1);
}

/* How many values before `p` are in its line of the cache. */
static inline int in_line(const float *p) { return (int)((uintptr_t)p % 64 / sizeof *p); }

WIDE static ALWAYS void begin(wide *c, const reader *d, const segment *s, const uint8_t *state, int64_t i, const int kind) {
    if (kind == AROUND_CACHES) {
        const int k = in_line(s->scaled + i);
        c->turn = _mm512_add_epi32(_mm512_set1_epi32(16 - k), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
        c->last = _mm512_maskz_expandloadu_ps((__mmask16)(0xffffu << (16 - k)), s->scaled + i - k);
    }
    c->x0 = _mm512_loadu_si512(d->x), c->x1 = _mm512_loadu_si512(d->x + 16);
    c->t0 = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)state)), c->t1 = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(state + 16)));
    c->p0 = c->p1 = c->w0 = c->w1 = _mm512_setzero_si512();
    c->at = d->at;
}

/* Back to where the other paths look, after `groups` groups from symbol i on. */
WIDE static ALWAYS void leave(const wide *c, reader *d, segment *s, uint8_t *state, int64_t i, int64_t groups, const int kind) {
    if (kind == AROUND_CACHES) {
        float *end = s->scaled + i + LANES * groups;
        const int k = groups ? in_line(end) : 0;
        _mm_sfence();
        if (k) _mm512_mask_compressstoreu_ps(end - k, (__mmask16)(0xffffu << (16 - k)), c->last);
    }
    _mm512_storeu_si512(d->x, c->x0), _mm512_storeu_si512(d->x + 16, c->x1);
    _mm_storeu_si128((__m128i *)state, _mm512_cvtepi32_epi8(c->t0)), _mm_storeu_si128((__m128i *)(state + 16), _mm512_cvtepi32_epi8(c->t1));
    d->at = c->at;
    uint32_t p[LANES], w[LANES];
    _mm512_storeu_si512(p, c->p0), _mm512_storeu_si512(p + 16, c->p1);
    _mm512_storeu_si512(w, c->w0), _mm512_storeu_si512(w + 16, c->w1);
    for (int l = 0; l < LANES; l++) /* sum of r, and of (i + 32 group + l + 1) r */
        s->plain += p[l], s->weighted += (uint32_t)(i + l + 1 + LANES * groups) * p[l] - LANES * w[l];
}

/* Whole groups of symbols i .. to, while 64 bytes are left to read ahead; `cls` are the classes from i on. Returns where it stopped. */
WIDE static ALWAYS int64_t
run_one(reader *d, const uint32_t *tables, const model *q, segment *s, uint8_t *state, const uint8_t *cls, int64_t i, int64_t to, const int trellis, const int kind) {
    uint32_t slot[LANES] __attribute__((aligned(64)));
    const __m512 factor = _mm512_set1_ps(s->factor);
    const int64_t from = i;
    wide c;
    begin(&c, d, s, state, i, kind);
    for (; i + LANES <= to && d->end - c.at >= 64; i += LANES, cls += LANES) {
        _mm512_store_si512(slot, slots16(c.x0, c.t0, cls, trellis));
        _mm512_store_si512(slot + 16, slots16(c.x1, c.t1, cls + 16, trellis));
        __asm__ volatile("" : : "r"(slot) : "memory"); /* or the compiler takes the slots out of the registers, which is slower */
        __m512i e0 = look_up16(tables, slot), e1 = look_up16(tables, slot + 16);
        take32(&c, d, s, q, i, e0, e1, factor, trellis, kind);
    }
    leave(&c, d, s, state, from, (i - from) / LANES, kind);
    return i;
}

/* The same for segments of two chunks, group by group: n symbols of each, from symbol i[0] of one and i[1] of the other on. Returns how many
 * were done. */
WIDE static ALWAYS int64_t
run_two(reader *const d[2], const uint32_t *tables, const model *q, segment *const s[2], uint8_t *const state[2], const uint8_t *const cls[2], const int64_t i[2], int64_t n,
        const int trellis, const int kind) {
    uint32_t slot[LANES] __attribute__((aligned(64))), other[LANES] __attribute__((aligned(64)));
    const __m512 factor = _mm512_set1_ps(s[0]->factor), second = _mm512_set1_ps(s[1]->factor);
    const uint8_t *class0 = cls[0], *class1 = cls[1];
    const int64_t i0 = i[0], i1 = i[1];
    int64_t done = 0;
    wide a, b;
    begin(&a, d[0], s[0], state[0], i0, kind);
    begin(&b, d[1], s[1], state[1], i1, kind);
    for (; done + LANES <= n && d[0]->end - a.at >= 64 && d[1]->end - b.at >= 64; done += LANES) {
        _mm512_store_si512(slot, slots16(a.x0, a.t0, class0 + done, trellis));
        _mm512_store_si512(slot + 16, slots16(a.x1, a.t1, class0 + done + 16, trellis));
        _mm512_store_si512(other, slots16(b.x0, b.t0, class1 + done, trellis));
        _mm512_store_si512(other + 16, slots16(b.x1, b.t1, class1 + done + 16, trellis));
        __asm__ volatile("" : : "r"(slot), "r"(other) : "memory");
        __m512i e0 = look_up16(tables, slot), e1 = look_up16(tables, slot + 16);
        take32(&a, d[0], s[0], q, i0 + done, e0, e1, factor, trellis, kind);
        __m512i f0 = look_up16(tables, other), f1 = look_up16(tables, other + 16);
        take32(&b, d[1], s[1], q, i1 + done, f0, f1, second, trellis, kind);
    }
    leave(&a, d[0], s[0], state[0], i0, done / LANES, kind);
    leave(&b, d[1], s[1], state[1], i1, done / LANES, kind);
    return done;
}

static int kind_of(const segment *s) { return s->scaled ? s->around && (uintptr_t)s->scaled % sizeof(float) == 0 ? AROUND_CACHES : TO_FLOATS : TO_INTEGERS; }

/* Inlined for each combination. */
WIDE static int64_t one_as(int kind, reader *d, const uint32_t *tables, const model *q, segment *s, uint8_t *state, const uint8_t *cls, int64_t i, int64_t to) {
    if (q->codebooks == 2) {
        if (kind == AROUND_CACHES) return run_one(d, tables, q, s, state, cls, i, to, 1, AROUND_CACHES);
        return kind == TO_FLOATS ? run_one(d, tables, q, s, state, cls, i, to, 1, TO_FLOATS) : run_one(d, tables, q, s, state, cls, i, to, 1, TO_INTEGERS);
    }
    if (kind == AROUND_CACHES) return run_one(d, tables, q, s, state, cls, i, to, 0, AROUND_CACHES);
    return kind == TO_FLOATS ? run_one(d, tables, q, s, state, cls, i, to, 0, TO_FLOATS) : run_one(d, tables, q, s, state, cls, i, to, 0, TO_INTEGERS);
}

WIDE static int64_t two_as(int kind, reader *const d[2], const uint32_t *tables, const model *q, segment *const s[2], uint8_t *const state[2],
                           const uint8_t *const cls[2], const int64_t i[2], int64_t n) {
    if (q->codebooks == 2) {
        if (kind == AROUND_CACHES) return run_two(d, tables, q, s, state, cls, i, n, 1, AROUND_CACHES);
        return kind == TO_FLOATS ? run_two(d, tables, q, s, state, cls, i, n, 1, TO_FLOATS) : run_two(d, tables, q, s, state, cls, i, n, 1, TO_INTEGERS);
    }
    if (kind == AROUND_CACHES) return run_two(d, tables, q, s, state, cls, i, n, 0, AROUND_CACHES);
    return kind == TO_FLOATS ? run_two(d, tables, q, s, state, cls, i, n, 0, TO_FLOATS) : run_two(d, tables, q, s, state, cls, i, n, 0, TO_INTEGERS);
}

/* What goes around the caches is written line by line, and in the first line there may be values that are not the segment's: so its first group
 * goes through them. */
WIDE static int64_t wide_one(reader *d, const uint32_t *tables, const model *q, segment *s, uint8_t *state, const uint8_t *cls, int64_t i, int64_t to) {
    const int kind = kind_of(s);
    if (kind != AROUND_CACHES || i) return one_as(kind, d, tables, q, s, state, cls, i, to);
    i = one_as(TO_FLOATS, d, tables, q, s, state, cls, 0, to < LANES ? to : LANES);
    return i < LANES ? i : one_as(kind, d, tables, q, s, state, cls + LANES, i, to);
}

WIDE static int64_t wide_two(reader *const d[2], const uint32_t *tables, const model *q, segment *const s[2], uint8_t *const state[2],
                             const uint8_t *const cls[2], const int64_t i[2], int64_t n) {
    const int kind = kind_of(s[0]);
    if (kind != AROUND_CACHES || (i[0] && i[1])) return two_as(kind, d, tables, q, s, state, cls, i, n);
    if (two_as(TO_FLOATS, d, tables, q, s, state, cls, i, n < LANES ? n : LANES) < LANES) return 0;
    const uint8_t *const rest[2] = {cls[0] + LANES, cls[1] + LANES};
    const int64_t on[2] = {i[0] + LANES, i[1] + LANES};
    return LANES + two_as(kind, d, tables, q, s, state, rest, on, n - LANES);
}
