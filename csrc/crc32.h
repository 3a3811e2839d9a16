/* The checksum of zlib, PNG and Ethernet, included by decode.h: by carry-less multiplications of 64 bytes at once, or of 16, or by tables.
 *
 * Bytes are polynomials over GF(2), the lowest bit the highest power. 16 bytes A x^64 + B that stand n bits before others are congruent to
 * A (x^(n + 64) mod P) + B (x^n mod P), which is 16 bytes again: so the message shrinks to its last 16 bytes, and those go through a table. */

enum { NO_CLMUL, WITH_CLMUL, WITH_VCLMUL };

#ifdef X86
#define CLMUL __attribute__((target("pclmul")))
#define VCLMUL __attribute__((target("avx512f,avx512dq,avx512vl,vpclmulqdq,pclmul")))

static int clmul_here(void) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("pclmul")) return NO_CLMUL;
    const int wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("vpclmulqdq");
    return wide ? WITH_VCLMUL : WITH_CLMUL;
}

/* `a`, moved over the n bits that the two constants are for, onto `b`. */
CLMUL static inline __m128i folded(__m128i a, __m128i b, __m128i k) {
    return _mm_xor_si128(b, _mm_xor_si128(_mm_clmulepi64_si128(a, k, 0x00), _mm_clmulepi64_si128(a, k, 0x11)));
}

/* 64 bytes and those that follow, whole 16 of them, to 16. */
CLMUL static inline void shrink_last(__m128i *a, const uint8_t *p, int64_t n, uint8_t *last) {
    const __m128i by128 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);
    for (int j = 1; j < 4; j++) a[j] = folded(a[j - 1], a[j], by128);
    for (; n >= 16; p += 16, n -= 16) a[3] = folded(a[3], _mm_loadu_si128((const __m128i *)p), by128);
    _mm_storeu_si128((__m128i *)last, a[3]);
}

/* n is a multiple of 16, 64 or more; `last` receives the 16 bytes that are left, which a crc of 0 goes on with. */
CLMUL static void shrink(const uint8_t *p, int64_t n, uint32_t crc, uint8_t *last) {
    const __m128i by512 = _mm_set_epi64x(0x1c6e41596, 0x154442bd4);
    __m128i a[4];
    for (int j = 0; j < 4; j++) a[j] = _mm_loadu_si128((const __m128i *)p + j);
    a[0] = _mm_xor_si128(a[0], _mm_cvtsi32_si128((int)crc));
    for (p += 64, n -= 64; n >= 64; p += 64, n -= 64)
        for (int j = 0; j < 4; j++) a[j] = folded(a[j], _mm_loadu_si128((const __m128i *)p + j), by512);
    shrink_last(a, p, n, last);
}

VCLMUL static inline __m512i folded64(__m512i a, __m512i b, __m512i k) {
    return _mm512_ternarylogic_epi64(b, _mm512_clmulepi64_epi128(a, k, 0x00), _mm512_clmulepi64_epi128(a, k, 0x11), 0x96); /* xor of three */
}

/* The same; n is 256 or more. */
VCLMUL static void shrink_wide(const uint8_t *p, int64_t n, uint32_t crc, uint8_t *last) {
    const __m512i by2048 = _mm512_broadcast_i64x2(_mm_set_epi64x(0x01322d1430, 0x011542778a));
    const __m512i by512 = _mm512_broadcast_i64x2(_mm_set_epi64x(0x1c6e41596, 0x154442bd4));
    __m512i a[4];
    __m128i part[4];
    for (int j = 0; j < 4; j++) a[j] = _mm512_loadu_si512(p + 64 * j);
    a[0] = _mm512_xor_si512(a[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc)));
    for (p += 256, n -= 256; n >= 256; p += 256, n -= 256)
        for (int j = 0; j < 4; j++) a[j] = folded64(a[j], _mm512_loadu_si512(p + 64 * j), by2048);
    for (int j = 1; j < 4; j++) a[j] = folded64(a[j - 1], a[j], by512);
    for (; n >= 64; p += 64, n -= 64) a[3] = folded64(a[3], _mm512_loadu_si512(p), by512);
    _mm512_storeu_si512(part, a[3]);
    shrink_last(part, p, n, last);
}
#else
static int clmul_here(void) { return NO_CLMUL; }
#endif

/* `before` with n bytes behind it, by half bytes: for few of them. */
static uint32_t crc_of_few(const uint8_t *p, int64_t n, uint32_t before) {
    static const uint32_t HALF[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
                                      0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    for (; n; n--) {
        before ^= *p++;
        before = before >> 4 ^ HALF[before & 15];
        before = before >> 4 ^ HALF[before & 15];
    }
    return before;
}

/* The same for many, eight at once: table[j] is for bytes that stand j bytes before the last of the eight. */
static uint32_t crc_by_tables(const uint8_t *p, int64_t n, uint32_t before) {
    uint32_t table[8][256];
    for (int v = 0; v < 256; v++) {
        const uint8_t byte = (uint8_t)v;
        table[0][v] = crc_of_few(&byte, 1, 0);
    }
    for (int j = 1; j < 8; j++)
        for (int v = 0; v < 256; v++) table[j][v] = table[j - 1][v] >> 8 ^ table[0][table[j - 1][v] & 255];
    for (; n >= 8; p += 8, n -= 8) {
        uint32_t next = 0;
        for (int j = 0; j < 4; j++) next ^= table[7 - j][p[j] ^ (before >> 8 * j & 255)] ^ table[3 - j][p[4 + j]];
        before = next;
    }
    return crc_of_few(p, n, before);
}

/* crc32 of n bytes behind others whose crc32 is given (0: none); `widest`: the way that may be taken, all give the same. */
static uint32_t crc32(const uint8_t *p, int64_t n, uint32_t before, int widest) {
    enum { FEW_BYTES = 2048 }; /* the tables take as long to make */
    uint32_t crc = ~before;
    const int64_t most = n & ~(int64_t)15;
    const int here = n < 64 ? NO_CLMUL : clmul_here(), way = here < widest ? here : widest;
#ifdef X86
    if (way != NO_CLMUL) {
        uint8_t last[16];
        if (way == WITH_VCLMUL && n >= 256) shrink_wide(p, most, crc, last);
        else shrink(p, most, crc, last);
        return ~crc_of_few(p + most, n - most, crc_of_few(last, 16, 0));
    }
#endif
    (void)most, (void)way;
    return ~(n < FEW_BYTES ? crc_of_few(p, n, crc) : crc_by_tables(p, n, crc));
}

API int64_t nw_crc32(const uint8_t *p, int64_t n, int64_t before, int64_t widest) { return crc32(p, n, (uint32_t)before, (int)widest); }
