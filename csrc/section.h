/* A section of weights from its bytes to float32 in one call, included by kernels.c: what its prelude says (docs/format.md, 4 and 6), then its
 * chunks. Usual ones only: one factor a tensor, scans by rows, no neighbours, no low bits. Whatever is unusual is left to the caller, and so is
 * whatever is wrong: it reads the section step by step, and says what it is. */

typedef struct {
    int64_t rows, columns; /* of the scan */
    float *out;
} tensor;

typedef struct {
    const tensor *tensors;
    int64_t count, around;            /* tensors; whether they are best written around the caches */
    segment *like;                    /* of each tensor: what its pieces have in common */
    int64_t (*told)[3];               /* of each: its base, which levels it has, log2 of its longest piece */
    int16_t *level, *written;         /* of all rows and columns, and those of them that are in the file */
    int64_t capacity;                 /* log2 of the symbols of a chunk with several tensors */
    int64_t chunks;
    int64_t (*where)[3], (*piece)[3]; /* as nw_decode_tensors takes them */
    int64_t *expected, *found;        /* checksums */
    int fine, escapes;                /* what the tables are like */
    model q;
    uint32_t *entry;
} section;

enum { CLASSES = 32, SHORTEST_RUN = 17, LONGEST_RUN = 20, TRELLISES = 9, HIGHEST = 126, LONGEST_TABLE = HIGHEST + 1 };

/* n integers, n perhaps 0. */
static int read_short(const uint8_t **at, const uint8_t *end, int64_t n, int16_t *out) {
    if (!n) return 1;
    const int64_t used = nw_short_stream(*at, end - *at, n, n < 2048 ? 1 : n < 32768 ? 4 : LANES, out);
    if (used < 0) return 0;
    *at += used;
    return 1;
}

/* Where each chunk lies, and its checksum; they end with the section. */
static int read_chunks(section *x, const uint8_t **at, const uint8_t *end, int64_t first, int64_t size) {
    for (int64_t j = 0; j < x->chunks; j++) {
        int64_t bytes;
        if (!read_integer(at, end, &bytes) || bytes > size - first || end - *at < 4) return 0;
        x->where[j][0] = first, x->where[j][1] = bytes, x->where[j][2] = 0;
        x->expected[j] = read32(*at), *at += 4;
        first += bytes;
    }
    return first == size;
}

/* One factor a tensor, finite. */
static int read_factors(section *x, const uint8_t **at, const uint8_t *end) {
    for (int64_t j = 0; j < x->count; j++) {
        int64_t reals;
        if (!read_integer(at, end, &reals) || reals != 1 || end - *at < 4) return 0;
        const uint32_t bits = read32(*at);
        if (~bits & 0x7f800000) memcpy(&x->like[j].factor, &bits, 4);
        else return 0;
        *at += 4;
    }
    return 1;
}

/* Levels of rows and columns: those that are not written are 0; the base adds to each column. */
static int read_levels(section *x, const uint8_t **at, const uint8_t *end) {
    int64_t written = 0;
    for (int64_t j = 0; j < x->count; j++) {
        const tensor *t = x->tensors + j;
        int64_t *base = x->told[j], *has = base + 1, *run = base + 2;
        if (!read_signed(at, end, base) || *base < -127 || *base > 127 || !read_integer(at, end, has) || *has > 3) return 0;
        *run = SHORTEST_RUN;
        if (t->rows * t->columns > 1 << SHORTEST_RUN && !read_integer(at, end, run)) return 0;
        if (*run < SHORTEST_RUN || *run > LONGEST_RUN) return 0;
        written += (*has & 1 ? t->rows : 0) + (*has & 2 ? t->columns : 0);
    }
    if (!read_short(at, end, written, x->written)) return 0;
    const int16_t *next = x->written;
    int16_t *row = x->level;
    for (int64_t j = 0; j < x->count; j++) {
        const tensor *t = x->tensors + j;
        const int64_t has = x->told[j][1];
        int16_t *column = row + t->rows;
        for (int64_t o = 0; o < t->rows; o++) row[o] = has & 1 ? *next++ : 0;
        for (int64_t c = 0; c < t->columns; c++) column[c] = (int16_t)(x->told[j][0] + (has & 2 ? *next++ : 0));
        x->like[j] = (segment){.row = row, .column = column, .rows = t->rows, .columns = t->columns, .top = CLASSES - 1,
                               .scaled = t->out, .factor = x->like[j].factor, .around = x->around};
        row = column + t->columns;
    }
    return 1;
}

/* Decoder's tables, all symmetric. */
static int read_tables(section *x, const uint8_t **at, const uint8_t *end) {
    enum { MOST = 2 * CLASSES };
    const int64_t tables = CLASSES * x->q.codebooks, octave = x->fine ? 8 : 4;
    int16_t head[MOST], residual[MOST * LONGEST_TABLE];
    int32_t size[MOST], range[MOST][2], level[MOST * LONGEST_TABLE];
    uint16_t freq[MOST * 256];
    uint8_t symmetric[MOST];
    int64_t heads, levels = 0;
    if (!read_integer(at, end, &heads) || heads != tables || !read_short(at, end, heads, head)) return 0;
    for (int64_t t = 0; t < tables; t++) {
        if (head[t] < -1 || head[t] > HIGHEST) return 0;
        size[t] = head[t] + 1, levels += size[t], symmetric[t] = 1;
        range[t][0] = size[t] ? -head[t] : 1, range[t][1] = size[t] ? head[t] : 0;
    }
    if (!read_short(at, end, levels, residual)) return 0;
    for (int64_t j = 0; j < levels; j++) level[j] = residual[j];
    if (nw_lines(size, tables, level, 10 * octave, 12 * octave, level) < 0) return 0;
    for (int64_t j = 0; !x->fine && j < levels; j++) level[j] *= 2;
    if (nw_tables((const int32_t(*)[2])range, symmetric, tables, level, levels, x->escapes, freq)) return 0;
    x->entry = malloc((size_t)tables * SLOTS * sizeof *x->entry);
    if (!x->entry) return 0;
    for (int64_t t = 0; t < tables; t++) if (!size[t]) memset(x->entry + t * SLOTS, 0, SLOTS * sizeof *x->entry);
    nw_entries(freq, tables, x->entry);
    return 1;
}

/* What stands before the levels; `taps` of each trellis there is. */
static int read_kind(section *x, const uint8_t **at, const uint8_t *end, const int64_t (*taps)[2]) {
    int64_t bits, flags;
    if (!read_integer(at, end, &bits) || !read_integer(at, end, &x->capacity) || !read_integer(at, end, &flags)) return 0;
    if (bits >= TRELLISES || (bits && !taps[bits][0]) || x->capacity < SHORTEST_RUN || x->capacity > LONGEST_RUN || flags > 7 || flags & 1) return 0;
    x->q = (model){.codebooks = bits ? 2 : 1, .levels = 1, .tap0 = taps[bits][0], .tap1 = taps[bits][1]};
    x->fine = (flags & 2) != 0, x->escapes = (flags & 4) != 0;
    return 1;
}

/* Share tensors out over the chunks: a long one has chunks of its own, others fill chunks as they come. Returns 0 unless that takes as many as
 * there are. */
static int plan_chunks(section *x) {
    int64_t j = -1, room = 0, (*piece)[3] = x->piece;
    for (int64_t k = 0; k < x->count; k++) {
        const int64_t size = x->tensors[k].rows * x->tensors[k].columns, longest = (int64_t)1 << x->told[k][2];
        for (int64_t from = 0; from < size; from += longest, piece++) {
            const int64_t n = size - from < longest ? size - from : longest;
            if (size > longest) j++, room = 0;
            else if (size > room) j++, room = (int64_t)1 << x->capacity;
            if (size <= longest) room -= size;
            if (j >= x->chunks) return 0;
            (*piece)[0] = k, (*piece)[1] = from, (*piece)[2] = n;
            x->where[j][2]++;
        }
    }
    return j == x->chunks - 1;
}

static int read_section(section *x, const uint8_t *data, int64_t size, const uint8_t *at, const uint8_t *end, const int64_t (*taps)[2]) {
    return read_chunks(x, &at, end, end - data, size) && read_factors(x, &at, end) && read_kind(x, &at, end, taps) && read_levels(x, &at, end) &&
           read_tables(x, &at, end) && at == end && plan_chunks(x);
}

/* Decode a whole section, its prelude's checksum included. Tensors are in the order of the section, and their memory is there; it holds anything
 * if this returns 1, as it does where anything is unusual or wrong. 0: all is decoded, and every checksum is right. */
API int64_t nw_section(const uint8_t *data, int64_t size, int64_t prelude, int64_t crc, const tensor *tensors, int64_t count, const int64_t (*taps)[2], int64_t around,
                       int64_t widest) {
    const uint8_t *at = data;
    section x = {.tensors = tensors, .count = count, .around = around};
    int64_t places = 0, unusual = 1;
    if (crc32(data, prelude, 0, (int)widest) != crc || !read_integer(&at, data + prelude, &x.chunks) || x.chunks > prelude / 5) return 1;
    for (int64_t j = 0; j < count; j++) places += tensors[j].rows + tensors[j].columns;
    const size_t chunks = (size_t)x.chunks, pieces = chunks + (size_t)count;
    x.like = calloc((size_t)count + 1, sizeof *x.like), x.told = malloc(((size_t)count + 1) * sizeof *x.told);
    x.level = malloc(4 * (size_t)places + 1), x.written = x.level + places;
    x.where = malloc((chunks + 1) * sizeof *x.where), x.piece = malloc((pieces + 1) * sizeof *x.piece);
    x.expected = malloc((2 * chunks + 1) * sizeof *x.expected), x.found = x.expected + chunks;
    if (x.like && x.told && x.level && x.where && x.piece && x.expected && read_section(&x, data, size, at, data + prelude, taps)) {
        unusual = nw_decode_tensors(data, (const int64_t(*)[3])x.where, x.chunks, (const int64_t(*)[3])x.piece, x.like, x.entry, &x.q, widest, x.escapes, x.found);
        for (size_t j = 0; j < chunks && !unusual; j++) unusual = x.found[j] != x.expected[j];
    }
    free(x.like), free(x.told), free(x.level), free(x.where), free(x.piece), free(x.expected), free(x.entry);
    return unusual;
}
