/* The limit that decoders are held against: int8 to float32, one multiplication a value, nothing else. */
#include <stddef.h>
#include <stdint.h>

void convert(const int8_t *restrict from, float *restrict to, size_t count, float scale)
{
    for (size_t i = 0; i < count; i++)
        to[i] = scale * (float)from[i];
}
