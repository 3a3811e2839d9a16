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
            for (uint32_t j = 0; j < f; j++) to[at + j] = first + j;
            at += f;
        }
    }
}

/* A short stream of n > 0 integers. Returns the bytes used, or -1 where it contradicts itself or ends early. */
API int64_t nw_short_stream(const uint8_t *bytes, int64_t size, int64_t n, int64_t lanes, int16_t *out) {
    int64_t weights[256] = {0}, place;
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
    segment s = {.n = n, .out = out};
    const model q = {.codebooks = 1, .levels = 1};
    chunk c = {.bytes = bytes + 2 + packed, .size = size - 2 - packed, .segs = &s, .count = 1, .place = &place, .held = &held};
    nw_decode(&c, 1, lanes, entry, &q, WITH_AVX512);
    return c.used < 0 ? -1 : 2 + packed + c.used;
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
