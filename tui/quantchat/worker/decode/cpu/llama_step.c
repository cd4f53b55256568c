/* What a Llama step computes between its matrix products, for one token in bfloat16.
 *
 * `llama_step_in_c.py` compiles this file and calls its functions. Every tensor is contiguous
 * bfloat16. Results are rounded to bfloat16 in the same places as in `llama_step.py`, except inside
 * the attention, which computes in float32, as torch's own kernel does.
 */

#include <math.h>
#include <string.h>

#include "bfloat16.h"

static inline float rounded(float value) { return wide(narrow(value)); }

/* x += added; normed = weight * RMSNorm(x). All have `width` numbers; `added` may be NULL. */
void add_and_norm(bfloat16 *x, const bfloat16 *added, const bfloat16 *weight, bfloat16 *normed,
                  long width, float epsilon) {
    if (added)
        for (long i = 0; i < width; i++) x[i] = narrow(wide(x[i]) + wide(added[i]));
    float squares = 0;
    for (long i = 0; i < width; i++) squares += wide(x[i]) * wide(x[i]);
    float scale = 1 / sqrtf(squares / width + epsilon);
    for (long i = 0; i < width; i++)
        normed[i] = narrow(wide(weight[i]) * rounded(wide(x[i]) * scale));
}

/* gated = silu(gate) * up. `gate_up` has the `width` numbers of gate, then those of up. */
void gate(const bfloat16 *gate_up, bfloat16 *gated, long width) {
    const bfloat16 *up = gate_up + width;
    for (long i = 0; i < width; i++) {
        float x = wide(gate_up[i]);
        gated[i] = narrow(rounded(x / (1 + expf(-x))) * wide(up[i]));
    }
}

/* Rotates the query and key heads in place, then copies keys and values to `place` in the cache.
 *
 * qkv: (heads + 2 * kv_heads, size), the heads of query, key and value.
 * cos, sin: (size), for this position; the sine includes the rotation's sign.
 * keys, values: (kv_heads, capacity, size).
 */
void rotate_and_store(bfloat16 *qkv, const bfloat16 *cos, const bfloat16 *sin, bfloat16 *keys,
                      bfloat16 *values, long heads, long kv_heads, long size, long capacity,
                      long place) {
    long half = size / 2;
    for (long head = 0; head < heads + kv_heads; head++) {
        bfloat16 *a = qkv + head * size, *b = a + half;
        for (long i = 0; i < half; i++) {
            float x = wide(a[i]), y = wide(b[i]);
            a[i] = narrow(rounded(x * wide(cos[i])) + rounded(y * wide(sin[i])));
            b[i] = narrow(rounded(y * wide(cos[half + i])) + rounded(x * wide(sin[half + i])));
        }
    }
    for (long head = 0; head < kv_heads; head++) {
        long to = (head * capacity + place) * size;
        memcpy(keys + to, qkv + (heads + head) * size, size * sizeof *qkv);
        memcpy(values + to, qkv + (heads + kv_heads + head) * size, size * sizeof *qkv);
    }
}

/* `attend` below, for a size that the compiler may know: then sums stay in registers. */
static inline __attribute__((always_inline)) void attend_sized(
    const bfloat16 *query, const bfloat16 *keys, const bfloat16 *values, bfloat16 *result,
    float *scores, long heads, long kv_heads, long size, long capacity, long seen) {
    long group = heads / kv_heads;
    float scale = 1 / sqrtf(size);
    float queries[group][size], sums[group][size], row[size];
    for (long kv_head = 0; kv_head < kv_heads; kv_head++) {
        const bfloat16 *key = keys + kv_head * capacity * size;
        const bfloat16 *value = values + kv_head * capacity * size;
        long first = kv_head * group * size;
        for (long i = 0; i < group * size; i++) queries[0][i] = scale * wide(query[first + i]);
        for (long place = 0; place < seen; place++) {
            for (long i = 0; i < size; i++) row[i] = wide(key[place * size + i]);
            for (long head = 0; head < group; head++) {
                float score = 0;
                for (long i = 0; i < size; i++) score += queries[head][i] * row[i];
                scores[head * seen + place] = score;
            }
        }
        for (long head = 0; head < group; head++) {
            float *of_head = scores + head * seen, highest = of_head[0], total = 0;
            for (long place = 1; place < seen; place++) highest = fmaxf(highest, of_head[place]);
            for (long place = 0; place < seen; place++) {
                of_head[place] = expf(of_head[place] - highest);
                total += of_head[place];
            }
            for (long place = 0; place < seen; place++) of_head[place] /= total;
        }
        memset(sums, 0, sizeof sums);
        for (long place = 0; place < seen; place++) {
            for (long i = 0; i < size; i++) row[i] = wide(value[place * size + i]);
            for (long head = 0; head < group; head++) {
                float weight = scores[head * seen + place];
                for (long i = 0; i < size; i++) sums[head][i] += weight * row[i];
            }
        }
        for (long i = 0; i < group * size; i++) result[first + i] = narrow(sums[0][i]);
    }
}

/* Attention of one token to the first `seen` places of the cache, with one thread.
 *
 * query, result: (heads, size). keys, values: (kv_heads, capacity, size); each is read by
 * heads / kv_heads query heads. scores: room for heads / kv_heads * seen numbers.
 */
void attend(const bfloat16 *query, const bfloat16 *keys, const bfloat16 *values, bfloat16 *result,
            float *scores, long heads, long kv_heads, long size, long capacity, long seen) {
    if (size == 64)
        attend_sized(query, keys, values, result, scores, heads, kv_heads, 64, capacity, seen);
    else if (size == 128)
        attend_sized(query, keys, values, result, scores, heads, kv_heads, 128, capacity, seen);
    else
        attend_sized(query, keys, values, result, scores, heads, kv_heads, size, capacity, seen);
}
