/* The recurrence for a few sentences on an x86 processor, and the gates and cells of any number of them.

   few_rows.py says what each function is given and loads what is compiled of this file: once for each kind of processor,
   AVX2, AVX-512 and AVX-512 with bfloat16, whose names end in _avx2, _avx512 and _avx512bf16, all in one library.

   Products add up in a stated order, so that they give what oneDNN gives to the last bit: within a block of consecutive
   terms one after the other, then the sums of the blocks. Nothing may be contracted or reordered: -ffp-contract=off.
   Threads are those of the OpenMP that torch has loaded, or both would wait for work on the same cores. */

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#ifdef DISPATCH

/* Which variant this processor can run: 0 none, 1 AVX2, 2 AVX-512, 3 AVX-512 with bfloat16. */
int elmokit_level(void) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw")) return 1;
    return __builtin_cpu_supports("avx512bf16") ? 3 : 2;
}

#else

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define EXPORT(name) JOIN(name, VARIANT)

/* ---------------------------------------------------------------- vectors */

#ifdef __AVX512F__
typedef __m512 V;
#define LANES 16
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define ALL _mm512_set1_ps
#define ADD _mm512_add_ps
#define SUB _mm512_sub_ps
#define MUL _mm512_mul_ps
#define DIV _mm512_div_ps
#define MIN _mm512_min_ps
#define MAX _mm512_max_ps
#define FMA _mm512_fmadd_ps     /* a b + c */
#define FNMA _mm512_fnmadd_ps   /* c - a b */
#define ROUND(x) _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
static inline V power_of_two(V n) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
#else
typedef __m256 V;
#define LANES 8
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define ALL _mm256_set1_ps
#define ADD _mm256_add_ps
#define SUB _mm256_sub_ps
#define MUL _mm256_mul_ps
#define DIV _mm256_div_ps
#define MIN _mm256_min_ps
#define MAX _mm256_max_ps
#define FMA _mm256_fmadd_ps
#define FNMA _mm256_fnmadd_ps
#define ROUND(x) _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
static inline V power_of_two(V n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
#endif

/* A number that is not one stays so: MIN and MAX return their second argument then. */
static inline V within(V x, V low, V high) { return MAX(low, MIN(high, x)); }

/* e^x = 2^n e^r, n whole and |r| at most half of ln 2, whose Taylor series is added up to r^7 / 7!: within 2e-7 of the
   value. Beyond +-87 it is that of +-87, which a sigmoid cannot tell from 0 or 1. */
static inline V exponential(V x) {
    static const float over_factorial[] = {1 / 5040.0f, 1 / 720.0f, 1 / 120.0f, 1 / 24.0f, 1 / 6.0f, 0.5f, 1.0f, 1.0f};
    x = within(x, ALL(-87.0f), ALL(87.0f));
    V n = ROUND(MUL(x, ALL(1.44269504f)));
    V r = FNMA(n, ALL(-2.12194440e-4f), FNMA(n, ALL(0.693359375f), x)); /* ln 2 in two parts, the first one exact */
    V sum = ALL(over_factorial[0]);
    for (int k = 1; k < 8; k++) sum = FMA(sum, r, ALL(over_factorial[k]));
    return MUL(sum, power_of_two(n));
}

static inline V sigmoid(V x) { return DIV(ALL(1.0f), ADD(ALL(1.0f), exponential(SUB(ALL(0.0f), x)))); }

static inline V tanh_(V x) { return SUB(MUL(ALL(2.0f), sigmoid(ADD(x, x))), ALL(1.0f)); }

/* ---------------------------------------------------------------- gates and cells */

/* Update LANES cells of one row from their gates, and return what they give to the projection. */
static inline V cells_of(V i, V j, V f, V o, float *c, float clip) {
    V new = FMA(sigmoid(i), tanh_(j), MUL(sigmoid(f), LOAD(c)));
    new = within(new, ALL(-clip), ALL(clip));
    STORE(c, new);
    return MUL(sigmoid(o), tanh_(new));
}

/* What the types differ in: how LANES values become float32 and back, and how the terms of a product are taken, one at a
   time of float32, two of bfloat16. */
#define load_float32 LOAD
#define save_float32 STORE
typedef V weights_float32;
enum { terms_float32 = 1 };
static inline V weights_at_float32(const float *panel) { return LOAD(panel); }
static inline V spread_float32(const float *x) { return ALL(*x); }
static inline V added_float32(V sum, V x, V weights) { return FMA(x, weights, sum); }

#ifdef __AVX512BF16__
typedef __m512bh weights_bfloat16;
enum { terms_bfloat16 = 2 };
static inline V load_bfloat16(const uint16_t *x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)x)), 16));
}
static inline void save_bfloat16(uint16_t *to, V x) { _mm256_storeu_si256((void *)to, (__m256i)_mm512_cvtneps_pbh(x)); }
static inline __m512bh weights_at_bfloat16(const uint16_t *panel) { return (__m512bh)_mm512_loadu_si512(panel); }
static inline __m512bh spread_bfloat16(const uint16_t *x) {
    int32_t two;
    memcpy(&two, x, sizeof two);
    return (__m512bh)_mm512_set1_epi32(two);
}
static inline V added_bfloat16(V sum, __m512bh x, __m512bh weights) { return _mm512_dpbf16_ps(sum, x, weights); }
#define FOR_EACH_TYPE(MACRO) MACRO(float32, float) MACRO(bfloat16, uint16_t)
#else
#define FOR_EACH_TYPE(MACRO) MACRO(float32, float)
#endif

/* Update the cells (n, D) of n rows from their gates (n, 4 D); m (n, D) is for the projection. */
#define CELLS(TYPE, T)                                                                                                 \
    static void row_##TYPE(const T *gates, float *c, T *m, int64_t D, float clip) {                                    \
        for (int64_t d = 0; d < D; d += LANES)                                                                         \
            save_##TYPE(m + d, cells_of(load_##TYPE(gates + d), load_##TYPE(gates + D + d),                            \
                                        load_##TYPE(gates + 2 * D + d), load_##TYPE(gates + 3 * D + d), c + d, clip)); \
    }                                                                                                                  \
    void EXPORT(cells_##TYPE)(const T *gates, float *c, T *m, int64_t n, int64_t D, float clip, int64_t threads) {     \
        if (threads > 1) {                                                                                             \
            _Pragma("omp parallel for num_threads(threads)") for (int64_t row = 0; row < n; row++)                     \
                row_##TYPE(gates + row * 4 * D, c + row * D, m + row * D, D, clip);                                    \
        } else                                                                                                         \
            for (int64_t row = 0; row < n; row++) row_##TYPE(gates + row * 4 * D, c + row * D, m + row * D, D, clip);  \
    }
FOR_EACH_TYPE(CELLS)

/* ---------------------------------------------------------------- products */

/* Weights (K, O) lie in panels of 64 columns, K rows each; what is missing of the last one is zero. bfloat16: two rows
   at a time, their values side by side. */
#define PANEL 64
#define AHEAD 1024 /* values of float32, for which memory is asked before they are needed */

/* What a product begins with: nothing, what stands in the result, within the same block, or the same as a block that is
   done. */
enum begin { NOTHING, BLOCK_BEGUN, BLOCKS_DONE };

typedef void tile_function(const void *x, int64_t stride, const void *panel, float *y, int64_t y_stride, int64_t K);

#ifdef __AVX512F__
#define VECTORS 4 /* of columns, in registers at a time */
#else
#define VECTORS 2
#endif

/* Add the terms of one block, K of them, to y (ROWS, VECTORS LANES); the columns begin at the start of the panel. */
#define TILE(TYPE, T, ROWS)                                                                                            \
    static void tile_##TYPE##_##ROWS(const void *x_, int64_t stride, const void *panel_, float *y, int64_t y_stride,    \
                                     int64_t K) {                                                                      \
        const T *x = x_, *panel = panel_;                                                                              \
        V sum[ROWS][VECTORS];                                                                                          \
        for (int r = 0; r < ROWS; r++)                                                                                 \
            for (int v = 0; v < VECTORS; v++) sum[r][v] = LOAD(y + r * y_stride + v * LANES);                           \
        for (int64_t k = 0; k < K; k += terms_##TYPE, panel += terms_##TYPE * PANEL) {                                 \
            weights_##TYPE w[VECTORS];                                                                                 \
            for (int v = 0; v < VECTORS; v++) {                                                                        \
                const T *at = panel + terms_##TYPE * v * LANES;                                                        \
                w[v] = weights_at_##TYPE(at);                                                                          \
                _mm_prefetch((const char *)(at + terms_##TYPE * AHEAD), _MM_HINT_T0);                                  \
            }                                                                                                          \
            for (int r = 0; r < ROWS; r++) {                                                                           \
                weights_##TYPE one = spread_##TYPE(x + r * stride + k);                                                \
                for (int v = 0; v < VECTORS; v++) sum[r][v] = added_##TYPE(sum[r][v], one, w[v]);                      \
            }                                                                                                          \
        }                                                                                                              \
        for (int r = 0; r < ROWS; r++)                                                                                 \
            for (int v = 0; v < VECTORS; v++) STORE(y + r * y_stride + v * LANES, sum[r][v]);                           \
    }
#define TILES(TYPE, T)                                                                                                 \
    TILE(TYPE, T, 1)                                                                                                   \
    TILE(TYPE, T, 2)                                                                                                   \
    TILE(TYPE, T, 3)                                                                                                   \
    TILE(TYPE, T, 4)                                                                                                   \
    static tile_function *const tiles_##TYPE[] = {tile_##TYPE##_1, tile_##TYPE##_2, tile_##TYPE##_3, tile_##TYPE##_4};
FOR_EACH_TYPE(TILES)

/* y (n, O in whole panels) = x (n, K) @ weight, or added to what stands there. A panel serves all rows before the next
   one is read from memory. size: bytes of a value of x and of the weights. */
static void product(tile_function *const *tiles, int size, const char *x, int64_t x_stride, int64_t n, const char *panels,
                    int64_t K, int64_t O, int64_t block, float *y, int64_t y_stride, enum begin begin) {
    for (int64_t o = 0; o < O; o += PANEL)
        for (int64_t row = 0; row < n; row += 4) {
            int64_t rows = n - row < 4 ? n - row : 4;
            for (int64_t k = 0; k < K; k += block) {
                int64_t terms = K - k < block ? K - k : block;
                enum begin with = k ? BLOCKS_DONE : begin;
                for (int64_t part = o; part < o + PANEL; part += VECTORS * LANES) {
                    const char *from = panels + (o * K + k * PANEL + (part - o) * (4 / size)) * size;
                    const char *of = x + (row * x_stride + k) * size;
                    float *to = y + row * y_stride + part, sum[4 * VECTORS * LANES];
                    if (with == BLOCK_BEGUN) {
                        tiles[rows - 1](of, x_stride, from, to, y_stride, terms);
                        continue;
                    }
                    memset(sum, 0, sizeof sum);
                    tiles[rows - 1](of, x_stride, from, sum, VECTORS * LANES, terms);
                    for (int64_t r = 0; r < rows; r++, to += y_stride)
                        for (int64_t v = 0; v < VECTORS * LANES; v += LANES) {
                            V added = LOAD(sum + r * VECTORS * LANES + v);
                            STORE(to + v, with == NOTHING ? added : ADD(LOAD(to + v), added));
                        }
                }
            }
        }
}

/* Write sums (n, O), whose rows lie `stride` apart, with their bias if there is one, clipped, to a dense matrix. */
#define FINISH(TYPE, T)                                                                                                \
    static void finish_##TYPE(T *to, const float *sums, int64_t stride, const float *bias, int64_t n, int64_t O,       \
                              float clip) {                                                                            \
        for (int64_t row = 0; row < n; row++, to += O, sums += stride)                                                 \
            for (int64_t o = 0; o < O; o += LANES) {                                                                   \
                V sum = bias ? ADD(LOAD(sums + o), LOAD(bias + o)) : LOAD(sums + o);                                   \
                save_##TYPE(to + o, within(sum, ALL(-clip), ALL(clip)));                                               \
            }                                                                                                          \
    }
FOR_EACH_TYPE(FINISH)

/* Lay out weights (K, O) in panels; `panels` holds K times O in whole panels, all zero. */
#define PANELS(TYPE, T)                                                                                                \
    void EXPORT(panels_##TYPE)(const T *weight, T *panels, int64_t K, int64_t O) {                                     \
        int64_t terms = terms_##TYPE;                                                                                  \
        for (int64_t o = 0; o < O; o++)                                                                                \
            for (int64_t k = 0; k < K; k++)                                                                            \
                panels[(o / PANEL * K + k / terms * terms) * PANEL + o % PANEL * terms + k % terms] = weight[k * O + o]; \
    }
FOR_EACH_TYPE(PANELS)

/* y (n, O) = x (n, K) @ weight; sums: (n, O in whole panels). */
#define PRODUCT(TYPE, T)                                                                                               \
    void EXPORT(product_##TYPE)(const T *x, const T *panels, T *y, float *sums, int64_t n, int64_t K, int64_t O,        \
                                int64_t block) {                                                                       \
        int64_t whole = (O + PANEL - 1) / PANEL * PANEL;                                                               \
        product(tiles_##TYPE, sizeof(T), (const char *)x, K, n, (const char *)panels, K, O, block, sums, whole, NOTHING); \
        finish_##TYPE(y, sums, whole, 0, n, O, __builtin_inff());                                                      \
    }
FOR_EACH_TYPE(PRODUCT)

/* ---------------------------------------------------------------- the recurrence */

typedef struct {
    int64_t steps, B, I, P, D;        /* steps, rows, sizes of input, output and cells */
    int64_t block, projection_block;  /* terms of a block in the products of [x, h] and of the projection */
    const void *x_panels, *h_panels;  /* the kernel's rows of x and of h */
    const void *projection_panels;    /* or none */
    const float *bias;                /* (4 D) */
    float cell_clip, proj_clip;
    const int64_t *rows;              /* how many are left at each step */
    const void *x;                    /* (steps, B, I) */
    void *h;                          /* (B, P), the state, written */
    float *c;                         /* (B, D), the state, written */
    void *y;                          /* (steps, B, P), written where rows are left */
    float *sums;                      /* (chunk, B, 4 D) */
    void *gates, *m;                  /* (B, 4 D), (B, D) */
    float *projected;                 /* (B, P in whole panels) */
    int64_t chunk;                    /* steps whose products of x are computed together */
} Run;

/* The product of h goes on where that of x ended: within a block that was begun, or as the blocks after it. */
#define STEPS(TYPE, T)                                                                                                 \
    static void direction_##TYPE(const Run *run) {                                                                     \
        int64_t B = run->B, I = run->I, P = run->P, D = run->D, G = 4 * D, whole = (P + PANEL - 1) / PANEL * PANEL;     \
        enum begin h_begins = I % run->block ? BLOCK_BEGUN : BLOCKS_DONE;                                              \
        for (int64_t first = 0; first < run->steps; first += run->chunk) {                                             \
            int64_t end = first + run->chunk < run->steps ? first + run->chunk : run->steps;                           \
            product(tiles_##TYPE, sizeof(T), (const char *)((const T *)run->x + first * B * I), I, (end - first) * B,   \
                    run->x_panels, I, G, run->block, run->sums, G, NOTHING);                                           \
            for (int64_t t = first; t < end; t++) {                                                                    \
                int64_t n = run->rows[t];                                                                              \
                float *sums = run->sums + (t - first) * B * G;                                                         \
                T *y = (T *)run->y + t * B * P;                                                                        \
                product(tiles_##TYPE, sizeof(T), run->h, P, n, run->h_panels, P, G, run->block, sums, G, h_begins);     \
                finish_##TYPE(run->gates, sums, G, run->bias, n, G, __builtin_inff());                                 \
                EXPORT(cells_##TYPE)(run->gates, run->c, run->projection_panels ? run->m : y, n, D, run->cell_clip, 1); \
                if (run->projection_panels) {                                                                          \
                    product(tiles_##TYPE, sizeof(T), run->m, D, n, run->projection_panels, D, P, run->projection_block, \
                            run->projected, whole, NOTHING);                                                           \
                    finish_##TYPE(y, run->projected, whole, 0, n, P, run->proj_clip);                                  \
                }                                                                                                      \
                memcpy(run->h, y, n * P * sizeof(T));                                                                  \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    void EXPORT(steps_##TYPE)(const Run *runs, int64_t directions, int64_t threads) {                                  \
        if (threads > 1) {                                                                                             \
            _Pragma("omp parallel for num_threads(threads) schedule(static, 1)") for (int64_t z = 0; z < directions;   \
                                                                                      z++)                             \
                direction_##TYPE(runs + z);                                                                            \
        } else                                                                                                         \
            for (int64_t z = 0; z < directions; z++) direction_##TYPE(runs + z);                                       \
    }
FOR_EACH_TYPE(STEPS)

#endif
