/* All pairwise L1 or squared L2 distances of float32 states, as a C programmer would write it by hand: register tiles of
 * 4 x 4 states, blocks of 2048 weights, float32 partial sums of a block, added in float64. The yardstick of pairwise.py.
 *
 * gcc -O3 -march=native -shared -fPIC pairwise_kernel.c
 */
#include <stddef.h>

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
#define TILE 4
#define BLOCK 2048
#define STATES 128

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int ivec __attribute__((vector_size(4 * LANES), aligned(4)));

static inline vec absolute(vec x) { return (vec)((ivec)x & 0x7fffffff); }

#define KERNEL(name, TERM)                                                                                             \
    static void name##_tile(const float *x, ptrdiff_t size, long i0, long j0, long p0, long p1, double *out, long n)  \
    {                                                                                                                  \
        vec sum[TILE][TILE] = {0};                                                                                     \
        for (long p = p0; p < p1; p += LANES) {                                                                        \
            vec a[TILE], b[TILE];                                                                                      \
            for (int r = 0; r < TILE; r++) a[r] = *(const vec *)(x + (i0 + r) * size + p);                             \
            for (int r = 0; r < TILE; r++) b[r] = *(const vec *)(x + (j0 + r) * size + p);                             \
            for (int r = 0; r < TILE; r++)                                                                             \
                for (int c = 0; c < TILE; c++) {                                                                       \
                    vec d = a[r] - b[c];                                                                               \
                    sum[r][c] += TERM;                                                                                 \
                }                                                                                                      \
        }                                                                                                              \
        for (int r = 0; r < TILE; r++)                                                                                 \
            for (int c = 0; c < TILE; c++) {                                                                           \
                double total = 0;                                                                                      \
                for (int l = 0; l < LANES; l++) total += sum[r][c][l];                                                 \
                out[(i0 + r) * n + j0 + c] += total;                                                                   \
            }                                                                                                          \
    }                                                                                                                  \
    /* Rows first .. last of the lower triangle; n is a multiple of 4, size one of LANES, out starts with zeros. */     \
    void name(const float *x, long n, long size, long first, long last, double *out)                                   \
    {                                                                                                                  \
        for (long top = first; top < last; top += STATES)                                                              \
            for (long left = 0; left <= top; left += STATES)                                                           \
                for (long p = 0; p < size; p += BLOCK)                                                                 \
                    for (long i = top; i < top + STATES && i < last; i += TILE)                                        \
                        for (long j = left; j < left + STATES && j <= i; j += TILE)                                    \
                            name##_tile(x, size, i, j, p, p + BLOCK < size ? p + BLOCK : size, out, n);                \
    }

KERNEL(l1, absolute(d))
KERNEL(l2, d *d)
