/* What counts of symbols say: how long a code by tables fitted to them is, and what rates they teach. A part of kernels.c.
 *
 * Logarithms are made of additions, multiplications and divisions of doubles, and sums go symbol by symbol, so that the twins in
 * src/netweight/kernels_numpy_counts.py give the same.
 */
static const double LOG2_SERIES[10] = { /* 2 / ((2 j + 1) ln 2), the last first */
    0.15186263588304877, 0.16972882833987804, 0.19235933878519512, 0.2219530832136867, 0.2623081892525388,
    0.3205988979753252, 0.41219858311113244, 0.5770780163555853, 0.9617966939259757, 2.8853900817779268};

/* log2 of a normal number > 0: the exponent + log2 of a mantissa of sqrt(1/2) .. sqrt(2) by its series in (m - 1) / (m + 1). */
static inline double log2_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, 8);
    int64_t e = (int64_t)(bits >> 52) - 1022;
    bits = (bits & 0xfffffffffffffu) | (uint64_t)1022 << 52;
    double m, p = LOG2_SERIES[0];
    memcpy(&m, &bits, 8);
    const int low = m < 0.7071067811865476;
    m = low ? m + m : m, e -= low;
    const double s = (m - 1.0) / (m + 1.0), z = s * s;
    for (int j = 1; j < 10; j++) p = p * z + LOG2_SERIES[j];
    return (double)e + s * p;
}

/* Bits of the symbols that are no escapes, by tables that fit them: sum of n log2(total / shape), where the shape of a symmetric table is half of
 * what v and -v count together. found: escapes, tables in use, numbers that describe them. */
API void nw_code_bits(const int64_t *counts, const uint8_t *symmetric, int64_t tables, double *bits, int64_t *found) {
    double sum = 0.0;
    found[0] = found[1] = found[2] = 0;
    for (int64_t t = 0; t < tables; t++) {
        const int64_t *row = counts + t * 256;
        const int same = symmetric[t] != 0;
        int64_t total = 0;
        for (int v = 1; v < 255; v++) total += row[v];
        found[0] += row[0] + row[255];
        if (!total) continue;
        const double whole = log2_of((double)(2 * total));
        for (int v = 1; v < 255; v++) {
            const int64_t shape = same ? row[v] + (v == 1 ? 0 : row[256 - v]) : 2 * row[v];
            found[2] += shape > 0 && (!same || v >= CENTRE);
            if (row[v]) sum += (double)row[v] * (whole - log2_of((double)shape));
        }
        found[1]++;
        found[2] += same && row[1] > 0;
    }
    *bits = sum;
}

/* Rates of the tables that were used, in int32 [tables][256] that holds those of all others: -price log2 of the share that a symbol has of the
 * counts + weight[0] times the prior, weight[1] being the price. Those of escapes stay. */
API void nw_learn(const int64_t *counts, const double *prior, const uint8_t *symmetric, int64_t tables, const double *weight, int32_t *rate) {
    for (int64_t t = 0; t < tables; t++) {
        const int64_t *row = counts + t * 256;
        int64_t any = 0;
        for (int v = 0; v < 256; v++) any |= row[v];
        if (!any) continue;
        double learnt[256], both[256], total = 0.0;
        for (int v = 0; v < 256; v++) learnt[v] = (double)row[v] + weight[0] * prior[t * 256 + v];
        for (int v = 0; v < 256; v++) both[v] = symmetric[t] ? learnt[v] + learnt[(256 - v) & 255] : learnt[v];
        for (int v = 0; v < 256; v++) total += both[v];
        for (int v = 1; v < 255; v++) {
            const double share = both[v] / total, cost = weight[1] * -log2_of(share > 1e-9 ? share : 1e-9);
            rate[t * 256 + v] = (int32_t)(cost < 16777216.0 ? nearbyint(cost) : 16777216.0);
        }
    }
}

/* Integers without their low bits: counts[class][256] of the symbols, 0 for what no table holds; found: how many those are, and how many bytes
 * beyond two their values take. */
API void nw_split(const int32_t *k, const uint8_t *classes, int64_t n, int64_t shift, int64_t *counts, int64_t *found) {
    found[0] = found[1] = 0;
    for (int64_t i = 0; i < n; i++) {
        const int32_t high = k[i] >> shift;
        const int beyond = high < 1 - CENTRE || high > CENTRE - 2;
        counts[(size_t)classes[i] * 256 + (size_t)(beyond ? 0 : high + CENTRE)]++;
        if (beyond) {
            const int32_t far = 2 * (high < 0 ? -high : high);
            found[0]++, found[1] += (far >= 1 << 14) + (far >= 1 << 21);
        }
    }
}

/* Entropy of the symbols of each table, summed, in bits. */
static double entropy_of(const int64_t *counts, int64_t tables, int64_t symbols) {
    double sum = 0.0;
    for (int64_t t = 0; t < tables; t++) {
        const int64_t *row = counts + t * symbols;
        int64_t total = 0;
        for (int64_t v = 0; v < symbols; v++) total += row[v];
        if (!total) continue;
        const double whole = log2_of((double)total);
        for (int64_t v = 0; v < symbols; v++) if (row[v]) sum += (double)row[v] * (whole - log2_of((double)row[v]));
    }
    return sum;
}

API void nw_entropy(const int64_t *counts, int64_t tables, int64_t symbols, double *bits) { *bits = entropy_of(counts, tables, symbols); }

/* Entropy of what is written of the levels of these tables, in `octave` parts of an octave: each less the value below, and less how much the table
 * before rises there, modulo 256. found: values that occur, tables in use. */
API void nw_level_bits(const int64_t *counts, int64_t tables, int64_t octave, double *bits, int64_t *found) {
    int64_t residuals[256] = {0}, any[256] = {0};
    int32_t before[256] = {0}, level[256] = {0};
    int first = 256, last = -1;
    for (int64_t i = 0; i < tables * 256; i++) any[i & 255] |= counts[i];
    found[0] = found[1] = 0;
    for (int v = 0; v < 256; v++) if (any[v]) found[0]++, last = v, first = first < v ? first : v;
    for (int64_t t = 0; t < tables; t++) {
        const int64_t *row = counts + t * 256;
        int64_t total = 0;
        for (int v = 0; v < 256; v++) total += row[v];
        if (!total) continue;
        for (int v = first; v <= last; v++) {
            const double top = (double)(PRECISION * octave);
            double parts = row[v] ? nearbyint((double)octave * log2_of((double)row[v] * (double)SLOTS / (double)total)) : 0.0;
            parts = parts < 0.0 ? 0.0 : parts > top ? top : parts;
            level[v] = row[v] ? 1 + (int32_t)parts : 0;
            const int32_t guess = before[v] + (v > first ? level[v - 1] - before[v - 1] : 0);
            residuals[(level[v] - guess + 128) & 255]++;
        }
        memcpy(before, level, sizeof before);
        found[1]++;
    }
    *bits = entropy_of(residuals, 1, 256);
}

/* Levels that are cheap to write, table after table and value after value: the first of the tried ones, tried[tables][values][each], with the least
 * cost + price of how far it is from the level below and what the table before rises there. */
API void nw_cheap_levels(const int64_t *tried, const double *cost, const double *price, int64_t tables, int64_t values, int64_t each, int64_t *levels) {
    for (int64_t i = 0; i < tables * values; i++) {
        const int64_t v = i % values, *before = i < values ? NULL : levels + i - values;
        const int64_t rise = before ? before[0] - (v ? before[-1] : 0) : 0, guess = (v ? levels[i - 1] : 0) + rise;
        double least = HUGE_VAL;
        for (int64_t j = 0; j < each; j++) {
            const int64_t c = tried[i * each + j];
            const double sum = cost[i * each + j] + price[c < guess ? guess - c : c - guess];
            if (sum < least) least = sum, levels[i] = c;
        }
    }
}
