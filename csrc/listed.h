/* Successive quantisation where the rows of a column see each other, included by kernels.c: the cheapest paths through a column, each with
 * targets of its own. The loops over paths are written so that a compiler makes vectors of them. */

enum { MOST_SURVIVORS = 64, STRIP = 32, MEMORY = 64 };

/* Paths: what each has cost, the trellis' state, and the targets of the rows of a strip. */
typedef struct {
    int64_t cost[MOST_SURVIVORS];
    int32_t state[MOST_SURVIVORS];
    float target[MOST_SURVIVORS][STRIP];
} listed;

/* Ways on, 2 p + parity from path p: what each then has cost, its state, and the fine index chosen. */
typedef struct {
    int64_t cost[2 * MOST_SURVIVORS];
    int32_t state[2 * MOST_SURVIVORS], r[2 * MOST_SURVIVORS];
} ways;

/* The m-th smallest of n different numbers, m < n; they change places. */
static int64_t smallest(int64_t *v, int n, int m) {
    int low = 0, high = n - 1;
    while (low < high) {
        const int64_t pivot = v[(low + high) / 2];
        int i = low, j = high;
        while (i <= j) {
            while (v[i] < pivot) i++;
            while (v[j] > pivot) j--;
            if (i <= j) {
                int64_t swap = v[i];
                v[i++] = v[j], v[j--] = swap;
            }
        }
        if (m <= j) high = j;
        else if (m >= i) low = i;
        else break;
    }
    return v[m];
}

/* Where path p came from so many symbols ago. */
static int ancestor(const space *w, const successive *q, int p, int64_t from, int64_t to) {
    for (int64_t t = from - 1; t >= to; t--) p = w->parent[t * q->survivors + p];
    return p;
}

/* Decisions of path p in symbols from .. to become final. The lowest bit of the state before is each integer's parity in fine steps, but for
 * zeros, which leave the same in both books. */
static void settle(const column *c, const space *w, const successive *q, int p, int64_t o, int64_t from, int64_t to, int64_t at) {
    p = ancestor(w, q, p, at, to);
    for (int64_t t = to - 1; t >= from; t--) {
        const int32_t r = w->kept[t * q->survivors + p], book = r & 1;
        decide(c, o + t, (r + book * ((r > 0) - (r < 0))) / 2, book);
        p = w->parent[t * q->survivors + p];
    }
}

static int cheapest(const listed *all, int count) {
    int best = 0;
    for (int p = 1; p < count; p++) if (all->cost[p] * 256 + all->state[p] < all->cost[best] * 256 + all->state[best]) best = p;
    return best;
}

/* Both ways on from each path: of each parity the cheaper of two integers. */
static ALWAYS void branch_on(const column *c, int64_t o, const listed *from, int count, int64_t l, const successive *q, ways *out) {
    const int32_t flip = c->turn[o] ? -1 : 1, tap0 = (int32_t)q->tap0, tap1 = (int32_t)q->tap1;
    const int32_t *rate = c->rate + (size_t)c->table[o] * 512;
    const float rho = c->share[o];
    float x[MOST_SURVIVORS];
    int32_t cost[4][MOST_SURVIVORS], at[4][MOST_SURVIVORS];
    for (int p = 0; p < count; p++) x[p] = from->target[p][l];
    for (int j = 0; j < 4; j++) {
        for (int p = 0; p < count; p++) {
            const float a = magnitude(x[p]);
            const int32_t book = from->state[p] & 1, k = (int32_t)((a + (float)book) * 0.5f) - 1 + j;
            cost[j][p] = strain(a, rho, (float)(2 * k - book * ((k > 0) - (k < 0))));
            at[j][p] = 256 * book + rate_at((x[p] < 0 ? -flip : flip) * k);
        }
    }
    for (int j = 0; j < 4; j++) for (int p = 0; p < count; p++) cost[j][p] += rate[at[j][p]];
    for (int p = 0; p < count; p++) {
        const int32_t book = from->state[p] & 1, turn = x[p] < 0 ? -1 : 1, k = (int32_t)((magnitude(x[p]) + (float)book) * 0.5f) - 1, odd = k & 1;
        const int32_t second = cost[2][p] < cost[0][p], fourth = cost[3][p] < cost[1][p];
        const int32_t low = second ? cost[2][p] : cost[0][p], high = fourth ? cost[3][p] : cost[1][p];
        const int32_t v = k + 2 * second, u = k + 1 + 2 * fourth;
        const int32_t r = turn * (2 * v - book * ((v > 0) - (v < 0))), s = turn * (2 * u - book * ((u > 0) - (u < 0)));
        const int32_t state = from->state[p] >> 1 ^ (book ? tap0 : 0);
        out->cost[2 * p] = from->cost[p] + (odd ? high : low);
        out->cost[2 * p + 1] = from->cost[p] + (odd ? low : high);
        out->r[2 * p] = odd ? s : r;
        out->r[2 * p + 1] = odd ? r : s;
        out->state[2 * p] = state;
        out->state[2 * p + 1] = state ^ tap1;
    }
}

/* A number that `most` of so many different keys >= 0 do not exceed; none exceeds `high` but those that are INT32_MAX. */
static ALWAYS int32_t border(const int32_t *key, int n, int most, int32_t high) {
    int32_t low = -1; /* fewer than `most` keys are at most this, at least so many at most `high` */
    while (high - low > 1) {
        const int32_t middle = low + (high - low) / 2;
        int32_t below = 0;
        for (int i = 0; i < n; i++) below += key[i] <= middle;
        if (below == most) return middle;
        if (below < most) low = middle;
        else high = middle;
    }
    return high;
}

/* Of ways into the same state the cheapest, of all of those the `most` cheapest; ties go to the first and to the smaller state. Gives which. */
static ALWAYS int select_ways(const ways *all, int n, int most, uint8_t *which) {
    const int32_t near = 1 << 23;
    int16_t at[256];
    uint8_t out[2 * MOST_SURVIVORS] = {0};
    int32_t key[2 * MOST_SURVIVORS];
    int64_t least = INT64_MAX, highest = INT64_MIN;
    int count = n, kept = 0;
    memset(at, -1, sizeof at);
    for (int i = 0; i < n; i++) {
        const int s = all->state[i], other = at[s];
        if (other < 0) at[s] = (int16_t)i;
        else {
            const int later = all->cost[i] < all->cost[other];
            out[later ? other : i] = 1, count--;
            if (later) at[s] = (int16_t)i;
        }
    }
    if (count <= most) {
        for (int i = 0; i < n; i++) if (!out[i]) which[kept++] = (uint8_t)i;
        return kept;
    }
    for (int i = 0; i < n; i++) {
        least = all->cost[i] < least ? all->cost[i] : least;
        highest = all->cost[i] > highest ? all->cost[i] : highest;
    }
    if (highest - least < near) {
        for (int i = 0; i < n; i++) key[i] = out[i] ? INT32_MAX : (int32_t)(all->cost[i] - least) * 256 + all->state[i];
        const int32_t last = border(key, n, most, (int32_t)(highest - least) * 256 + 255);
        for (int i = 0; i < n; i++) which[kept] = (uint8_t)i, kept += key[i] <= last;
        return kept;
    }
    int64_t wide[2 * MOST_SURVIVORS];
    for (int i = 0; i < n; i++) if (!out[i]) wide[kept++] = all->cost[i] * 256 + all->state[i];
    const int64_t last = smallest(wide, kept, most - 1);
    kept = 0;
    for (int i = 0; i < n; i++) if (!out[i] && all->cost[i] * 256 + all->state[i] <= last) which[kept++] = (uint8_t)i;
    return kept;
}

/* Targets of a strip's rows after the decisions before it: the paths share most of those, which count once. */
static ALWAYS void lean_paths(const column *c, const space *w, const successive *q, listed *all, int count, int64_t o, int64_t sure, int64_t begin, int64_t width) {
    float past[MOST_SURVIVORS][MEMORY + STRIP], shared[MEMORY + STRIP];
    const float *down = c->down + o + begin;
    const int64_t most = q->survivors;
    int node[MOST_SURVIVORS], same = count == 1;
    int64_t t = begin;
    for (int p = 0; p < count; p++) node[p] = p;
    while (t > sure && !same) {
        t--, same = 1;
        for (int p = 0; p < count; p++) {
            past[p][t - sure] = c->y[o + t] - (float)w->kept[t * most + node[p]];
            node[p] = w->parent[t * most + node[p]];
            same &= node[p] == node[0];
        }
    }
    for (int64_t s = t, at = node[0]; s > sure; at = w->parent[s * most + at]) s--, shared[s - sure] = c->y[o + s] - (float)w->kept[s * most + at];
    lean(w->base, c->y + o + begin, down, q->rows, c->left, o + sure, width);
    lean(w->base, w->base, down + (o + sure) * q->rows, q->rows, shared, t - sure, width);
    for (int p = 0; p < count; p++) lean(all->target[p], w->base, down + (o + t) * q->rows, q->rows, past[p] + (t - sure), begin - t, width);
}

/* The path of least cost from a state through m symbols from row o on. Decisions MEMORY symbols back are those of the path that is cheapest
 * then; others leave the list. */
static ALWAYS int list_paths(const column *c, int64_t o, int64_t m, int state, const successive *q, const space *w) {
    const int64_t rows = q->rows, most = q->survivors;
    listed one = {0}, two = {0}, *old = &one, *new = &two;
    ways next;
    uint8_t which[2 * MOST_SURVIVORS + 1];
    float block[STRIP][STRIP]; /* what the strip's rows add to each other */
    int count = 1;
    int64_t sure = 0;
    old->state[0] = state;
    for (int64_t begin = 0; begin < m; begin += STRIP) {
        const int64_t width = m - begin < STRIP ? m - begin : STRIP;
        if (begin - MEMORY > sure) {
            const int best = cheapest(old, count), root = ancestor(w, q, best, begin, begin - MEMORY);
            int kept = 0;
            settle(c, w, q, best, o, sure, begin - MEMORY, begin);
            sure = begin - MEMORY;
            for (int p = 0; p < count; p++) which[p] = ancestor(w, q, p, begin, sure) == root;
            /* places in the list are those of the last symbol's parents: its links move with them */
            for (int p = 0; p < count; p++) {
                if (!which[p]) continue;
                w->parent[(begin - 1) * most + kept] = w->parent[(begin - 1) * most + p];
                w->kept[(begin - 1) * most + kept] = w->kept[(begin - 1) * most + p];
                old->cost[kept] = old->cost[p], old->state[kept++] = old->state[p];
            }
            count = kept;
        }
        lean_paths(c, w, q, old, count, o, sure, begin, width);
        for (int64_t t = 0; t < width; t++)
            for (int64_t l = 0; l < STRIP; l++) block[t][l] = l > t && l < width ? c->down[(o + begin + t) * rows + o + begin + l] : 0.0f;
        for (int64_t t = begin; t < begin + width; t++) {
            const float *add = block[t - begin];
            branch_on(c, o + t, old, count, t - begin, q, &next);
            count = select_ways(&next, 2 * count, (int)most, which);
            for (int p = 0; p < count; p++) {
                const int i = which[p];
                const float left = c->y[o + t] - (float)next.r[i], *from = old->target[i / 2];
                float *to = new->target[p];
                new->cost[p] = next.cost[i], new->state[p] = next.state[i];
                w->parent[t * most + p] = (uint8_t)(i / 2), w->kept[t * most + p] = (int16_t)next.r[i];
                for (int l = 0; l < STRIP; l++) to[l] = from[l] + add[l] * left;
            }
            listed *swap = old;
            old = new, new = swap;
        }
    }
    const int best = cheapest(old, count);
    settle(c, w, q, best, o, sure, m, m);
    return old->state[best];
}

#ifdef X86
AVX2 static int list_paths_avx2(const column *c, int64_t o, int64_t m, int state, const successive *q, const space *w) {
    return list_paths(c, o, m, state, q, w);
}
#endif

static int listed_path(const column *c, int64_t o, int64_t m, int state, const successive *q, const space *w) {
#ifdef X86
    if (has_avx2()) return list_paths_avx2(c, o, m, state, q, w);
#endif
    return list_paths(c, o, m, state, q, w);
}
