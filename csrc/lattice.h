/* A pass of a quantiser over runs of a scan, from weights to counts, in one call. A part of kernels.c. */

/* Room for what a run needs on its way, carved out of one piece of memory. */
typedef struct {
    float *u;
    uint16_t *index;
    uint8_t *cls, *symbol, *flip;
} desk;

static desk set_out(void *memory, int64_t n) {
    float *u = memory;
    uint16_t *index = (uint16_t *)(u + n);
    uint8_t *cls = (uint8_t *)(index + n);
    return (desk){u, index, cls, cls + n, cls + 2 * n};
}

/* Where neighbours count, their guessed fine indices in s->out, or those of plain rounding where there are none, give tables and signs. */
static void turn_signs(segment *s, const model *q, desk d) {
    int16_t any = 0;
    for (int64_t i = 0; i < s->n; i++) any |= s->out[i];
    for (int64_t i = 0; i < s->n && !any; i++) s->out[i] = (int16_t)nearbyintf(d.u[i]);
    nw_predict(s, q, d.index, d.flip);
    for (int64_t i = 0; i < s->n; i++) d.u[i] = d.flip[i] ? -d.u[i] : d.u[i];
}

/* For each run (start, size) of a scan whose levels `like` gives: u = x inverse, the integers k of least cost at these rates, their fine
 * indices, and counts[tables][256] += how often each table codes each symbol. fine: guesses first, where neighbours count. Returns 0, or
 * -1 when memory is short. */
API int64_t nw_lattice(const float *x, float inverse, const int64_t *runs, int64_t count, const segment *like, const model *q, const int32_t *rate,
                       int64_t tables, int64_t bits, int64_t widest, int16_t *k, int16_t *fine, int64_t *counts) {
    int64_t longest = 0;
    for (int64_t j = 0; j < count; j++) longest = runs[2 * j + 1] > longest ? runs[2 * j + 1] : longest;
    void *memory = malloc((size_t)longest * 9 + 1);
    search way;
    if (!memory || (bits && search_begin(&way, rate, tables / 2, longest, bits, q->tap0, q->tap1, widest))) {
        free(memory);
        return -1;
    }
    for (int64_t j = 0; j < count; j++) {
        const int64_t at = runs[2 * j], n = runs[2 * j + 1];
        const desk d = set_out(memory, n);
        segment s = *like;
        s.start = at, s.n = n, s.out = fine + at, s.cls = d.cls, s.row = s.column = NULL;
        nw_classes(like->row, like->column, like->rows, like->columns, at, n, like->top, d.cls);
        for (int64_t i = 0; i < n; i++) d.u[i] = x[at + i] * inverse;
        if (q->levels > 1) turn_signs(&s, q, d);
        else for (int64_t i = 0; i < n; i++) d.index[i] = d.cls[i];
        if (bits) search_run(&way, d.u, d.index, n, k + at);
        else nw_round(d.u, d.index, rate, n, k + at);
        if (q->levels > 1) for (int64_t i = 0; i < n; i++) k[at + i] = (int16_t)(d.flip[i] ? -k[at + i] : k[at + i]);
        nw_contexts(&s, q, k + at, d.symbol, d.index);
        nw_histogram(d.symbol, d.index, n, counts);
    }
    if (bits) search_end(&way);
    free(memory);
    return 0;
}

/* The scale alpha = <x, r> / <r, r>, rounded to single precision, 0 where r is 0, and |x - alpha r|^2. Sums by eight lanes, which are then added
 * in turn. r has two or four bytes each. */
enum { SUMS = 8 };
static double in_turn(const double *sum) {
    double total = sum[0];
    for (int l = 1; l < SUMS; l++) total += sum[l];
    return total;
}
#define FIT(name, integer)                                                                                         \
    static ALWAYS void name(const float *x, const integer *r, int64_t n, double *out) {                            \
        double cross[SUMS] = {0}, square[SUMS] = {0}, left[SUMS] = {0};                                            \
        const int64_t whole = n - n % SUMS;                                                                        \
        for (int64_t i = 0; i < whole; i += SUMS)                                                                  \
            for (int l = 0; l < SUMS; l++) {                                                                       \
                const double v = (double)r[i + l];                                                                 \
                cross[l] += v * (double)x[i + l], square[l] += v * v;                                              \
            }                                                                                                      \
        for (int64_t i = whole; i < n; i++) {                                                                      \
            const double v = (double)r[i];                                                                         \
            cross[i - whole] += v * (double)x[i], square[i - whole] += v * v;                                      \
        }                                                                                                          \
        const double energy = in_turn(square), alpha = energy > 0.0 ? (double)(float)(in_turn(cross) / energy) : 0.0; \
        for (int64_t i = 0; i < whole; i += SUMS)                                                                  \
            for (int l = 0; l < SUMS; l++) {                                                                       \
                const double e = (double)x[i + l] - alpha * (double)r[i + l];                                      \
                left[l] += e * e;                                                                                  \
            }                                                                                                      \
        for (int64_t i = whole; i < n; i++) {                                                                      \
            const double e = (double)x[i] - alpha * (double)r[i];                                                  \
            left[i - whole] += e * e;                                                                              \
        }                                                                                                          \
        out[0] = alpha, out[1] = in_turn(left);                                                                    \
    }
FIT(fit16, int16_t)
FIT(fit32, int32_t)
#undef FIT
#ifdef X86
AVX2 static void fit16_avx2(const float *x, const int16_t *r, int64_t n, double *out) { fit16(x, r, n, out); }
AVX2 static void fit32_avx2(const float *x, const int32_t *r, int64_t n, double *out) { fit32(x, r, n, out); }
#endif

API void nw_fit(const float *x, const void *r, int64_t bytes, int64_t n, double *out) {
#ifdef X86
    if (has_avx2()) {
        if (bytes == 2) fit16_avx2(x, r, n, out);
        else fit32_avx2(x, r, n, out);
        return;
    }
#endif
    if (bytes == 2) fit16(x, r, n, out);
    else fit32(x, r, n, out);
}
