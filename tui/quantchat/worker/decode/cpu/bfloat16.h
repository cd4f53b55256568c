/* bfloat16 numbers, which C compilers do not all know: the upper half of a float32. */

#include <stdint.h>
#include <string.h>

typedef uint16_t bfloat16;

static inline float wide(bfloat16 value) {
    uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

/* Rounds to the nearest bfloat16, and to the even one of two that are equally near. */
static inline bfloat16 narrow(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bfloat16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
