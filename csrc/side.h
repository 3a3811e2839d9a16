/* What a section's head says, included by kernels.c: frequencies from weights, short streams, tables from levels (docs/format.md, 5.1, 5.3,
 * 6.4). */

/* Weights to frequencies that sum to SLOTS; zeros stay zeros. */
static void normalise(const int64_t *weights, int64_t width, uint16_t *freq) {
    int64_t total = 0, missing = SLOTS, f[256];
    for (int64_t s = 0; s < width; s++) total += weights[s];
    if (!total) {
        for (int64_t s = 0; s < width; s++) freq[s] = 0;
        return;
    }
    for (int64_t s = 0; s < width; s++) {
        f[s] = weights[s] > 0 ? weights[s] * SLOTS / total : 0;
        if (weights[s] > 0 && f[s] < 1) f[s] = 1;
        missing -= f[s];
    }
    while (missing) {
        int64_t largest = 0;
        for (int64_t s = 1; s < width; s++) if (f[s] > f[largest]) largest = s;
        const int64_t change = missing < -(f[largest] / 2) ? -(f[largest] / 2) : missing;
        f[largest] += change, missing -= change;
    }
    for (int64_t s = 0; s < width; s++) freq[s] = (uint16_t)f[s];
}

/* The same for rows of `width`, at most 256. */
API void nw_normalise(const int64_t *weights, int64_t rows, int64_t width, uint16_t *freq) {
    for (int64_t t = 0; t < rows; t++) normalise(weights + t * width, width, freq + t * width);
}

/* Decoder's tables from frequencies: entry[T][SLOTS] = v << 24 | (frequency - 1) << 12 | slot - cumulative, v = symbol - 128. Each row of
 * freq sums to SLOTS or is zero; such a table is left as it is. */
API void nw_entries(const uint16_t *freq, int64_t tables, uint32_t *entry) {
    for (int64_t t = 0; t < tables; t++) {
        uint32_t *to = entry + t * SLOTS;
        uint32_t at = 0;
        for (uint32_t s = 0; s < 256; s++) {
            const uint32_t given = freq[t * 256 + s], f = given < SLOTS - at ? given : SLOTS - at, first = (s ^ CENTRE) << 24 | (given - 1) << PRECISION;
            /* by eights, into the room of the symbols that follow: as vector code that is quicker than to the entry */
            uint32_t j = 0;
            for (; j < f && at + j + 8 <= SLOTS; j += 8)
                for (uint32_t k = 0; k < 8; k++) to[at + j + k] = first + j + k;
            for (; j < f; j++) to[at + j] = first + j;
            at += f;
        }
    }
}

/* The words of a short stream of few lanes: symbols 0 .. n to `out`. Without branches where words are taken, for nobody can foretell when. Returns
 * the bytes used, or -1 where they run out or the lanes do not end where they started. */
static ALWAYS int64_t short_words(const uint8_t *bytes, int64_t size, int64_t n, const int lanes, const uint32_t *entry, int16_t *out) {
    uint32_t x[4] = {0};
    const uint8_t *at = bytes + 4 * lanes, *end = bytes + size;
    if (size < 4 * lanes) return -1;
    for (int l = 0; l < lanes; l++) x[l] = read32(bytes + 4 * l);
    int64_t i = 0;
    for (; i + lanes <= n && end - at >= 2 * lanes; i += lanes)
        for (int l = 0; l < lanes; l++) {
            const uint32_t e = entry[x[l] & (SLOTS - 1)], y = ((e >> PRECISION & (SLOTS - 1)) + 1) * (x[l] >> PRECISION) + (e & (SLOTS - 1));
            const uint32_t refilled = y << 16 | (uint32_t)at[0] | (uint32_t)at[1] << 8, low = y < LOW;
            x[l] = low ? refilled : y;
            at += 2 * low;
            out[i + l] = (int16_t)((int32_t)(e >> 24 ^ CENTRE) - CENTRE);
        }
    reader d = {.at = at, .end = end};
    memcpy(d.x, x, sizeof x);
    for (int l = 0; i < n; i++, l = l + 1 == lanes ? 0 : l + 1) {
        const uint32_t e = entry[d.x[l] & (SLOTS - 1)];
        if (take(&d, l, e)) return -1;
        out[i] = (int16_t)((int32_t)(e >> 24 ^ CENTRE) - CENTRE);
    }
    for (int l = 0; l < lanes; l++) if (d.x[l] != LOW) return -1;
    return d.at - bytes;
}

/* A short stream of n > 0 integers. Returns the bytes used, or -1 where it contradicts itself or ends early. */
API int64_t nw_short_stream(const uint8_t *bytes, int64_t size, int64_t n, int64_t lanes, int16_t *out) {
    int64_t weights[256] = {0}, place, used;
    int16_t held;
    uint16_t freq[256];
    uint32_t entry[SLOTS];
    if (size < 2 || bytes[0] > bytes[1]) return -1;
    const int low = bytes[0], values = bytes[1] - low + 1, packed = (values + 1) / 2;
    if (values == 1) {
        for (int64_t i = 0; i < n; i++) out[i] = (int16_t)(low - CENTRE);
        return 2;
    }
    if (size < 2 + packed) return -1;
    int any = 0;
    for (int j = 0; j < values; j++) {
        const int nibble = bytes[2 + j / 2] >> (j % 2 ? 4 : 0) & 15;
        if (nibble > 13) return -1;
        if (nibble) weights[low + j] = (int64_t)1 << (nibble - 1), any = 1;
    }
    if (!any) return -1;
    normalise(weights, 256, freq);
    nw_entries(freq, 1, entry);
    bytes += 2 + packed, size -= 2 + packed;
    if (lanes == 1) used = short_words(bytes, size, n, 1, entry, out);
    else if (lanes == 4) used = short_words(bytes, size, n, 4, entry, out);
    else {
        segment s = {.n = n, .out = out};
        const model q = {.codebooks = 1, .levels = 1};
        chunk c = {.bytes = bytes, .size = size, .segs = &s, .count = 1, .place = &place, .held = &held};
        nw_decode(&c, 1, lanes, entry, &q, WITH_AVX512);
        used = c.used;
    }
    return used < 0 ? -1 : 2 + packed + used;
}

/* Frequencies of tables of the values low .. high = range[t], none where high is below low, from their levels in eighths of an octave, those
 * of a symmetric table from 0 to high; `escapes` gives both escapes of each table a weight of 1. Returns 0, or 1 unless ranges are within
 * -128 .. 127, those of symmetric tables symmetric, levels within 0 .. 96 and as many as it takes. */
API int64_t nw_tables(const int32_t (*range)[2], const uint8_t *symmetric, int64_t tables, const int32_t *level, int64_t levels, int64_t escapes, uint16_t *freq) {
    static const int64_t EIGHTHS[8] = {1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878};
    for (int64_t t = 0; t < tables; t++) {
        int64_t weights[256] = {0};
        const int32_t low = range[t][0], high = range[t][1], first = symmetric[t] ? 0 : low;
        if (low <= high) {
            if (low < -CENTRE || high >= CENTRE || (symmetric[t] && low != -high) || high - first >= levels) return 1;
            for (int32_t v = first; v <= high; v++, level++, levels--) {
                if (*level < 0 || *level > 96) return 1;
                weights[CENTRE + v] = EIGHTHS[*level % 8] << *level / 8;
                if (symmetric[t]) weights[CENTRE - v] = weights[CENTRE + v];
            }
            if (escapes) weights[0] = weights[255] = 1;
        }
        normalise(weights, 256, freq + 256 * t);
    }
    return levels != 0;
}

/* Levels from residuals: the first of a line is predicted by the first of the line before (start), the second by the first, each other by
 * 2 a - b, clamped to 0 .. top. Returns the number of levels, or -1 where one leaves 0 .. top. */
API int64_t nw_lines(const int32_t *sizes, int64_t lines, const int32_t *residual, int64_t start, int64_t top, int32_t *level) {
    int64_t at = 0, first = start;
    for (int64_t j = 0; j < lines; j++) {
        for (int64_t i = 0; i < sizes[j]; i++, at++) {
            int64_t guess = i == 0 ? first : i == 1 ? level[at - 1] : 2 * (int64_t)level[at - 1] - level[at - 2];
            guess = guess < 0 ? 0 : guess > top ? top : guess;
            guess += residual[at];
            if (guess < 0 || guess > top) return -1;
            level[at] = (int32_t)guess;
        }
        if (sizes[j]) first = level[at - sizes[j]];
    }
    return at;
}
