/* The search of the trellis: which integers of a run cost the least, path by path (Viterbi). A part of kernels.c.
 *
 * A step of a lane chooses among four branches, 2 codebook + parity, each with the cheaper of two integers. What a branch costs above the
 * cheapest of the four, at most MOST, is added to sums of 16 bits that stop at 65535; every BLOCK steps the least sum of a lane is taken
 * off all of its sums. The states that no path has reached begin at 65535: in the eight steps until all are reached, sums stay below.
 */
enum { BLOCK = 16 };   /* steps whose costs are worked out together */
enum { MOST = 8191 };  /* eight fine steps squared, 27 bits at the usual price */
enum { AHEAD = 12 };   /* steps that the way back asks for before it gets there */

/* Behind codebook c, magnitude a: the cheapest even and the cheapest odd integer among the four around it (k0 - 1 .. k0 + 2, where
 * k0 = floor((a + c) / 2), so that -1 stands for a step to the other sign). Ties go to the smaller one. */
static inline void candidates(float a, int32_t sign, const int32_t *rate, int32_t c, int32_t *cost, int16_t *value) {
    int32_t k = (int32_t)((a + (float)c) * 0.5f);
    const int32_t *t = rate + CENTRE + sign * k;
    int32_t below, here, above, far;
    if (k < CENTRE - 4) below = t[-sign], here = t[0], above = t[sign], far = t[2 * sign];
    else below = rate[rate_at(sign * (k - 1))], here = rate[rate_at(sign * k)], above = rate[rate_at(sign * (k + 1))], far = rate[rate_at(sign * (k + 2))];
    float twice = a - (float)(2 * k);
    float d0 = twice + (float)(2 + (k > 1 ? c : k < 1 ? -c : 0)), d1 = twice + (float)(k > 0 ? c : 0), d2 = twice + (float)(c - 2), d3 = twice + (float)(c - 4);
    below += (int32_t)(d0 * d0 * 1024.0f), here += (int32_t)(d1 * d1 * 1024.0f);
    above += (int32_t)(d2 * d2 * 1024.0f), far += (int32_t)(d3 * d3 * 1024.0f);
    int32_t same = far < here ? far : here, ksame = far < here ? k + 2 : k, other = above < below ? above : below, kother = above < below ? k + 1 : k - 1;
    int odd = k & 1;
    cost[odd] = same, value[odd * LANES] = (int16_t)(sign * ksame);
    cost[!odd] = other, value[!odd * LANES] = (int16_t)(sign * kother);
}

/* The four branches of lane l. */
static inline void branches_of(float u, const int32_t *table, int l, uint16_t (*cost)[LANES], int16_t *value) {
    const float a = u < 0 ? -u : u;
    const int32_t sign = u < 0 ? -1 : 1;
    int32_t c[4], least;
    candidates(a, sign, table, 0, c, value + l);
    candidates(a, sign, table + 256, 1, c + 2, value + 2 * LANES + l);
    least = c[0];
    for (int b = 1; b < 4; b++) least = c[b] < least ? c[b] : least;
    for (int b = 0; b < 4; b++) cost[b][l] = (uint16_t)(c[b] - least < MOST ? c[b] - least : MOST);
}

/* step[which][state]: the state before times four, and the branch, of the two ways into a state; the one from the lower state first. */
static void merge(uint16_t step[2][256], int states, int tap0, int tap1) {
    int seen[256] = {0};
    for (int s = 0; s < states; s++)
        for (int p = 0; p < 2; p++) {
            const int t = (s >> 1) ^ (s & 1 ? tap0 : 0) ^ (p ? tap1 : 0);
            step[seen[t]++ & 1][t] = (uint16_t)(s << 2 | (s & 1) << 1 | p);
        }
}

#ifdef X86
enum { FOLD = 132 }; /* a folded row: the rates of -1 .. 130 times a sign */

/* rate[2][256] of a table to folded[2][sign][FOLD], so that the four candidates of a weight are one load. */
static void fold(const int32_t *rate, int32_t *folded) {
    for (int c = 0; c < 2; c++) {
        int32_t *plus = folded + 2 * c * FOLD, *minus = plus + FOLD;
        for (int k = 0; k < FOLD; k++) plus[k] = rate[c * 256 + rate_at(k - 1)], minus[k] = rate[c * 256 + rate_at(1 - k)];
    }
}

/* `candidates` for eight lanes and one codebook; the caller has seen to it that all |k| stay below 124. */
AVX2 static inline void candidates_avx2(__m256 a, __m256i sign, const int32_t *const row[8], int c, __m256i *even, __m256i *odd, int16_t *value) {
    __m256i k = _mm256_cvttps_epi32(_mm256_mul_ps(_mm256_add_ps(a, _mm256_set1_ps((float)c)), _mm256_set1_ps(0.5f)));
    int32_t at[8] __attribute__((aligned(32)));
    _mm256_store_si256((__m256i *)at, k);
#define LOAD(l) _mm_loadu_si128((const __m128i *)(row[l] + at[l]))
#define PAIR(l) _mm256_inserti128_si256(_mm256_castsi128_si256(LOAD(l)), LOAD(l + 4), 1)
    __m256i p = PAIR(0), q = PAIR(1), r = PAIR(2), s = PAIR(3);
#undef LOAD
#undef PAIR
    __m256i pq = _mm256_unpacklo_epi32(p, q), rs = _mm256_unpacklo_epi32(r, s), PQ = _mm256_unpackhi_epi32(p, q), RS = _mm256_unpackhi_epi32(r, s);
    __m256i below = _mm256_unpacklo_epi64(pq, rs), here = _mm256_unpackhi_epi64(pq, rs), above = _mm256_unpacklo_epi64(PQ, RS), far = _mm256_unpackhi_epi64(PQ, RS);
    const __m256i one = _mm256_set1_epi32(1), zero = _mm256_setzero_si256();
    const __m256 kilo = _mm256_set1_ps(1024.0f);
    __m256 twice = _mm256_sub_ps(a, _mm256_cvtepi32_ps(_mm256_slli_epi32(k, 1)));
    /* (k > 1) - (k < 1) times c, and (k > 0) times c */
    __m256i around = _mm256_sub_epi32(_mm256_cmpgt_epi32(one, k), _mm256_cmpgt_epi32(k, one)), positive = _mm256_sub_epi32(zero, _mm256_cmpgt_epi32(k, zero));
    if (!c) around = zero, positive = zero;
    __m256 d0 = _mm256_add_ps(twice, _mm256_cvtepi32_ps(_mm256_add_epi32(around, _mm256_set1_epi32(2)))), d1 = _mm256_add_ps(twice, _mm256_cvtepi32_ps(positive));
    __m256 d2 = _mm256_add_ps(twice, _mm256_set1_ps((float)(c - 2))), d3 = _mm256_add_ps(twice, _mm256_set1_ps((float)(c - 4)));
    below = _mm256_add_epi32(below, _mm256_cvttps_epi32(_mm256_mul_ps(_mm256_mul_ps(d0, d0), kilo)));
    here = _mm256_add_epi32(here, _mm256_cvttps_epi32(_mm256_mul_ps(_mm256_mul_ps(d1, d1), kilo)));
    above = _mm256_add_epi32(above, _mm256_cvttps_epi32(_mm256_mul_ps(_mm256_mul_ps(d2, d2), kilo)));
    far = _mm256_add_epi32(far, _mm256_cvttps_epi32(_mm256_mul_ps(_mm256_mul_ps(d3, d3), kilo)));
    __m256i farther = _mm256_cmpgt_epi32(here, far), higher = _mm256_cmpgt_epi32(below, above);
    __m256i same = _mm256_min_epi32(here, far), other = _mm256_min_epi32(below, above);
    __m256i ksame = _mm256_sub_epi32(k, _mm256_add_epi32(farther, farther));
    __m256i kother = _mm256_sub_epi32(_mm256_sub_epi32(k, one), _mm256_add_epi32(higher, higher));
    ksame = _mm256_sign_epi32(ksame, sign), kother = _mm256_sign_epi32(kother, sign);
    __m256i is_odd = _mm256_cmpeq_epi32(_mm256_and_si256(k, one), one);
    *even = _mm256_blendv_epi8(same, other, is_odd), *odd = _mm256_blendv_epi8(other, same, is_odd);
    __m256i even16 = _mm256_blendv_epi8(ksame, kother, is_odd), odd16 = _mm256_blendv_epi8(kother, ksame, is_odd);
    __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(even16, odd16), 0xd8);
    _mm_storeu_si128((__m128i *)value, _mm256_castsi256_si128(both));
    _mm_storeu_si128((__m128i *)(value + LANES), _mm256_extracti128_si256(both, 1));
}

/* All four branches of a full group of 32 lanes; 0 where a magnitude is too large for the folded rows. */
AVX2 static int group_avx2(const float *u, const uint16_t *index, const int32_t *folded, uint16_t (*cost)[LANES], int16_t *v) {
    const __m256i most = _mm256_set1_epi32(MOST);
    for (int g = 0; g < LANES; g += 8) {
        __m256 x = _mm256_loadu_ps(u + g), a = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
        if (_mm256_movemask_ps(_mm256_cmp_ps(a, _mm256_set1_ps(240.0f), _CMP_NLT_UQ))) return 0;
        __m256i negative = _mm256_castps_si256(_mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ));
        int minus = _mm256_movemask_ps(_mm256_castsi256_ps(negative));
        __m256i sign = _mm256_or_si256(negative, _mm256_set1_epi32(1)), c[4];
        const int32_t *row[8];
        for (int l = 0; l < 8; l++) row[l] = folded + ((size_t)index[g + l] * 4 + (size_t)(minus >> l & 1)) * FOLD;
        candidates_avx2(a, sign, row, 0, c, c + 1, v + g);
        for (int l = 0; l < 8; l++) row[l] += 2 * FOLD;
        candidates_avx2(a, sign, row, 1, c + 2, c + 3, v + 2 * LANES + g);
        const __m256i least = _mm256_min_epi32(_mm256_min_epi32(c[0], c[1]), _mm256_min_epi32(c[2], c[3]));
        for (int b = 0; b < 4; b += 2) {
            const __m256i x0 = _mm256_min_epi32(_mm256_sub_epi32(c[b], least), most), x1 = _mm256_min_epi32(_mm256_sub_epi32(c[b + 1], least), most);
            const __m256i both = _mm256_permute4x64_epi64(_mm256_packus_epi32(x0, x1), 0xd8);
            _mm_store_si128((__m128i *)&cost[b][g], _mm256_castsi256_si128(both));
            _mm_store_si128((__m128i *)&cost[b + 1][g], _mm256_extracti128_si256(both, 1));
        }
    }
    return 1;
}

/* Two states lead into two: old[2j], old[2i] into new[j], new[i], i = j ^ tap1, and old[2j + 1], old[2i + 1] into new[j ^ tap0], new[i ^ tap0].
 * Each is read once for both. Of two ways as cheap, the one from the lower state. */
#define SURVIVE(name, target, vector, load, store, add, least, above)                                                             \
    target static void name(int states, int tap0, int tap1, const uint16_t *old, uint16_t *new, const uint16_t *cost, uint32_t *choice) {         \
        const int half = 1 << (31 - __builtin_clz((unsigned)tap1));                                                                               \
        for (int book = 0; book < 2; book++) {                                                                                                    \
            const vector even = load(cost + 2 * book * LANES), odd = load(cost + (2 * book + 1) * LANES);                                         \
            for (int at = 0; at < states / 4; at++) {                                                                                             \
                const int j = at + (at & -half), i = j ^ tap1, t = book ? j ^ tap0 : j, u = book ? i ^ tap0 : i;                                  \
                const vector a = load(old + (2 * j + book) * LANES), b = load(old + (2 * i + book) * LANES);                                      \
                const vector ta = add(a, even), tb = add(b, odd), ua = add(a, odd), ub = add(b, even);                                            \
                store(new + t * LANES, least(ta, tb)), store(new + u * LANES, least(ua, ub));                                                     \
                choice[t] = above(ta, tb), choice[u] = above(ua, ub);                                                                             \
            }                                                                                                                                     \
        }                                                                                                                                         \
    }

typedef struct { __m256i low, high; } twice16;
AVX2 static inline twice16 load_two(const uint16_t *p) {
    return (twice16){_mm256_load_si256((const __m256i *)p), _mm256_load_si256((const __m256i *)(p + 16))};
}
AVX2 static inline void store_two(uint16_t *p, twice16 v) {
    _mm256_store_si256((__m256i *)p, v.low), _mm256_store_si256((__m256i *)(p + 16), v.high);
}
AVX2 static inline twice16 add_two(twice16 x, twice16 y) { return (twice16){_mm256_adds_epu16(x.low, y.low), _mm256_adds_epu16(x.high, y.high)}; }
AVX2 static inline twice16 least_two(twice16 x, twice16 y) { return (twice16){_mm256_min_epu16(x.low, y.low), _mm256_min_epu16(x.high, y.high)}; }
AVX2 static inline uint32_t above_two(twice16 x, twice16 y) { /* x > y where the least is not x */
    const __m256i low = _mm256_cmpeq_epi16(_mm256_min_epu16(x.low, y.low), x.low), high = _mm256_cmpeq_epi16(_mm256_min_epu16(x.high, y.high), x.high);
    return ~(uint32_t)_mm256_movemask_epi8(_mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xd8));
}
SURVIVE(survive_avx2, AVX2, twice16, load_two, store_two, add_two, least_two, above_two)
#define STORE32(p, v) _mm512_store_si512(p, v)
SURVIVE(survive_wide, WIDE, __m512i, _mm512_load_si512, STORE32, _mm512_adds_epu16, _mm512_min_epu16, _mm512_cmpgt_epu16_mask)
#undef STORE32
#undef SURVIVE
#endif

static void survive(const uint16_t step[2][256], int states, const uint16_t *old, uint16_t *new, uint16_t (*cost)[LANES], uint32_t *choice) {
    for (int s = 0; s < states; s++) {
        const uint16_t *a = old + (step[0][s] >> 2) * LANES, *b = old + (step[1][s] >> 2) * LANES, *ca = cost[step[0][s] & 3], *cb = cost[step[1][s] & 3];
        uint32_t bits = 0;
        for (int l = 0; l < LANES; l++) {
            const uint32_t x = (uint32_t)a[l] + ca[l], y = (uint32_t)b[l] + cb[l], p = x < UINT16_MAX ? x : UINT16_MAX, q = y < UINT16_MAX ? y : UINT16_MAX;
            new[s * LANES + l] = (uint16_t)(p < q ? p : q);
            bits |= (uint32_t)(p > q) << l;
        }
        choice[s] = bits;
    }
}

/* Take the least sum of each lane off all of its sums. */
static ALWAYS void settle_lanes(uint16_t *sum, int states) {
    uint16_t least[LANES];
    memcpy(least, sum, sizeof least);
    for (int s = 1; s < states; s++)
        for (int l = 0; l < LANES; l++) least[l] = sum[s * LANES + l] < least[l] ? sum[s * LANES + l] : least[l];
    for (int s = 0; s < states; s++)
        for (int l = 0; l < LANES; l++) sum[s * LANES + l] = (uint16_t)(sum[s * LANES + l] - least[l]);
}
#ifdef X86
AVX2 static void settle_lanes_avx2(uint16_t *sum, int states) { settle_lanes(sum, states); }
#endif

/* A search that is ready for runs of at most `room` symbols. */
typedef struct {
    int states, tap0, tap1, path;
    uint16_t step[2][256];
    uint32_t *choice;     /* [steps][states] bit l: lane l comes by the second way */
    int16_t *value;       /* [steps][4][LANES] */
    uint16_t *sums;       /* [2][states][LANES] */
    void *sums_at;
    const int32_t *rate;  /* [T][2][256] */
    int32_t *folded;      /* [T][2][2][FOLD], of the tables that were met */
    uint8_t *met;         /* [T] */
} search;

static void search_end(search *q) { free(q->choice); free(q->value); free(q->sums_at); free(q->folded); free(q->met); }

/* Returns 0, or -1 when memory is short. */
static int search_begin(search *q, const int32_t *rate, int64_t tables, int64_t room, int64_t bits, int64_t tap0, int64_t tap1, int64_t widest) {
    const size_t steps = (size_t)(room + LANES - 1) / LANES;
    *q = (search){.states = 1 << bits, .tap0 = (int)tap0, .tap1 = (int)tap1, .path = SCALAR, .rate = rate};
    q->choice = malloc((steps + 1) * (size_t)q->states * 4);
    q->value = malloc((steps + 1) * 4 * LANES * 2);
    q->sums_at = malloc((size_t)q->states * LANES * 4 + 64);
    q->sums = (uint16_t *)(((uintptr_t)q->sums_at + 63) & ~(uintptr_t)63);
    merge(q->step, q->states, q->tap0, q->tap1);
    int fault = !q->choice || !q->value || !q->sums_at;
#ifdef X86
    if (has_avx2() && widest >= WITH_AVX2) q->path = has_wide() && widest >= WITH_AVX512 ? WITH_AVX512 : WITH_AVX2;
    if (q->path != SCALAR) {
        q->folded = malloc((size_t)tables * 4 * FOLD * sizeof *q->folded);
        q->met = calloc((size_t)tables, 1);
        fault |= !q->folded || !q->met;
    }
#endif
    (void)tables, (void)widest;
    if (fault) search_end(q);
    return fault ? -1 : 0;
}

/* The cheapest path of each of the 32 lanes through n symbols, from state 0. u: fine steps, flipped as `index` says. */
static void search_run(search *q, const float *u, const uint16_t *index, int64_t n, int16_t *k) {
    const int states = q->states;
    const int64_t steps = (n + LANES - 1) / LANES;
    uint16_t *old = q->sums, *new = old + states * LANES;
    uint16_t cost[BLOCK][4][LANES] __attribute__((aligned(64)));
#ifdef X86
    for (int64_t i = 0; i < n && q->path != SCALAR; i++)
        if (!q->met[index[i]]) {
            q->met[index[i]] = 1;
            fold(q->rate + (size_t)index[i] * 512, q->folded + (size_t)index[i] * 4 * FOLD);
        }
#endif
    for (int i = 0; i < states * LANES; i++) old[i] = i < LANES ? 0 : UINT16_MAX;
    for (int64_t first = 0; first < steps; first += BLOCK) {
        const int count = (int)(steps - first < BLOCK ? steps - first : BLOCK);
        for (int j = 0; j < count; j++) {
            const int64_t t = first + j;
            int16_t *v = q->value + t * 4 * LANES;
#ifdef X86
            if (q->path != SCALAR && (t + 1) * LANES <= n && group_avx2(u + t * LANES, index + t * LANES, q->folded, cost[j], v)) continue;
#endif
            for (int l = 0; l < LANES; l++) {
                const int64_t i = t * LANES + l;
                if (i < n) branches_of(u[i], q->rate + (size_t)index[i] * 512, l, cost[j], v);
                else for (int b = 0; b < 4; b++) cost[j][b][l] = 0, v[b * LANES + l] = 0;
            }
        }
        for (int j = 0; j < count; j++) {
            uint32_t *c = q->choice + (first + j) * states;
#ifdef X86
            if (q->path == WITH_AVX512) survive_wide(states, q->tap0, q->tap1, old, new, cost[j][0], c);
            else if (q->path == WITH_AVX2) survive_avx2(states, q->tap0, q->tap1, old, new, cost[j][0], c);
            else
#endif
            survive(q->step, states, old, new, cost[j], c);
            uint16_t *swap = old;
            old = new, new = swap;
        }
#ifdef X86
        if (q->path != SCALAR) settle_lanes_avx2(old, states);
        else
#endif
        settle_lanes(old, states);
    }
    int best[LANES] = {0};
    for (int l = 0; l < LANES; l++)
        for (int j = 1; j < states; j++) if (old[j * LANES + l] < old[best[l] * LANES + l]) best[l] = j;
    for (int64_t t = steps - 1; t >= 0; t--) { /* all lanes at once: a step's choices stay in cache */
        const uint32_t *c = q->choice + t * states;
        const int16_t *v = q->value + t * 4 * LANES;
#ifdef __GNUC__
        for (int s = 0; s < states && t >= AHEAD; s += 16) __builtin_prefetch(c - AHEAD * states + s);
#endif
        const int last = n - t * LANES < LANES ? (int)(n - t * LANES) : LANES;
        for (int l = 0; l < LANES; l++) {
            const int s = best[l], way = q->step[c[s] >> l & 1][s];
            if (l < last) k[t * LANES + l] = v[(way & 3) * LANES + l];
            best[l] = way >> 2;
        }
    }
}

/* The path of each of the 32 lanes with the least sum of (u - r)^2 2^10 + rate. u: fine steps; rate[tables][2][256]. Returns 0, or -1 when
 * memory is short. */
API int64_t nw_trellis(const float *u, const uint16_t *index, const int32_t *rate, int64_t tables, int64_t n, int64_t bits, int64_t tap0, int64_t tap1,
                       int64_t widest, int16_t *k) {
    search q;
    if (search_begin(&q, rate, tables, n, bits, tap0, tap1, widest)) return -1;
    search_run(&q, u, index, n, k);
    search_end(&q);
    return 0;
}
