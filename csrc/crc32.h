/* The checksum of zlib, PNG and Ethernet by carry-less multiplications, included by decode.h. Without that instruction there is none here: the
 * caller has zlib's.
 *
 * Bytes are polynomials over GF(2), the lowest bit the highest power. 16 bytes A x^64 + B that stand n bits before others are congruent to
 * A (x^(n + 64) mod P) + B (x^n mod P), which is 16 bytes again: so the message shrinks to its last 16 bytes, and those go through a table. */

#ifdef X86
#define CLMUL __attribute__((target("pclmul")))

static int has_clmul(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("pclmul");
}

/* `a`, moved over the n bits that the two constants are for, onto `b`. */
CLMUL static inline __m128i folded(__m128i a, __m128i b, __m128i k) {
    return _mm_xor_si128(b, _mm_xor_si128(_mm_clmulepi64_si128(a, k, 0x00), _mm_clmulepi64_si128(a, k, 0x11)));
}

/* n is a multiple of 64, and not 0; `last` receives the 16 bytes that are left, which a crc of 0 goes on with. */
CLMUL static void shrink(const uint8_t *p, int64_t n, uint32_t crc, uint8_t *last) {
    const __m128i by512 = _mm_set_epi64x(0x1c6e41596, 0x154442bd4), by128 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);
    __m128i a[4];
    for (int j = 0; j < 4; j++) a[j] = _mm_loadu_si128((const __m128i *)p + j);
    a[0] = _mm_xor_si128(a[0], _mm_cvtsi32_si128((int)crc));
    for (p += 64, n -= 64; n; p += 64, n -= 64)
        for (int j = 0; j < 4; j++) a[j] = folded(a[j], _mm_loadu_si128((const __m128i *)p + j), by512);
    for (int j = 1; j < 4; j++) a[j] = folded(a[j - 1], a[j], by128);
    _mm_storeu_si128((__m128i *)last, a[3]);
}

static uint32_t crc32_bytes(const uint8_t *p, int64_t n, uint32_t crc, const uint32_t *nibble) {
    for (; n; n--) {
        crc ^= *p++;
        crc = crc >> 4 ^ nibble[crc & 15];
        crc = crc >> 4 ^ nibble[crc & 15];
    }
    return crc;
}
#endif

/* crc32 of n bytes behind others whose crc32 is given (0: none), or -1 where it would be slow. */
static int64_t crc32(const uint8_t *p, int64_t n, uint32_t before) {
#ifdef X86
    if (has_clmul()) {
        uint32_t nibble[16], crc = ~before;
        for (uint32_t j = 0; j < 16; j++) {
            nibble[j] = j;
            for (int bit = 0; bit < 4; bit++) nibble[j] = nibble[j] >> 1 ^ (nibble[j] & 1 ? 0xedb88320 : 0);
        }
        const int64_t most = n & ~(int64_t)63;
        if (most) {
            uint8_t last[16];
            shrink(p, most, crc, last);
            crc = crc32_bytes(last, 16, 0, nibble);
        }
        return ~crc32_bytes(p + most, n - most, crc, nibble);
    }
#endif
    (void)p, (void)n, (void)before;
    return -1;
}

API int64_t nw_crc32(const uint8_t *p, int64_t n, int64_t before) { return crc32(p, n, (uint32_t)before); }
