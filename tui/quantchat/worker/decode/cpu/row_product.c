/* The product of one row and an unquantized weight, in bfloat16. Compiled by `c_library.py`. */

#include "bfloat16.h"

/* result[i] = sum over j of weight[i, j] * row[j], summed in float32.
 *
 * weight: (outputs, inputs). row: (inputs). result: (outputs). All are contiguous.
 */
void multiply(const bfloat16 *weight, const bfloat16 *row, bfloat16 *result, long outputs,
              long inputs) {
    float values[inputs];
    for (long j = 0; j < inputs; j++) values[j] = wide(row[j]);
#pragma omp parallel for
    for (long i = 0; i < outputs; i++) {
        const bfloat16 *weights = weight + i * inputs;
        float sum = 0;
        for (long j = 0; j < inputs; j++) sum += wide(weights[j]) * values[j];
        result[i] = narrow(sum);
    }
}
