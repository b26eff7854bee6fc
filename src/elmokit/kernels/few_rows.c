/* The recurrence for a few sentences; few_rows.py says what each function is given.

   Products add up in a stated order, so that they give what oneDNN gives to the last bit: within a block of consecutive
   terms one after the other, then the sums of the blocks. */

#include "gates.h"

/* ---------------------------------------------------------------- products */

/* Weights (K, O) lie in panels of 64 columns, K rows each; what is missing of the last one is zero. bfloat16: two rows
   at a time, their values side by side. A panel of gates holds those of 16 cells: i, j, f and o of each. */
#define PANEL 64
#define CELLS_OF_PANEL 16
#define ROWS 4 /* of x, that a tile multiplies */

typedef void tile_function(const void *x, int64_t stride, const void *panel, float *y, int64_t K);

#ifdef __AVX512F__
#define VECTORS 4 /* of columns, in registers at a time */
#else
#define VECTORS 2
#endif

/* Add the terms of one block, K of them, to y (N, VECTORS LANES), whose rows lie PANEL apart. */
#define TILE(TYPE, T, N)                                                                                               \
    static void tile_##TYPE##_##N(const void *x_, int64_t stride, const void *panel_, float *y, int64_t K) {           \
        const T *x = x_, *panel = panel_;                                                                              \
        V sum[N][VECTORS];                                                                                             \
        for (int r = 0; r < N; r++)                                                                                    \
            for (int v = 0; v < VECTORS; v++) sum[r][v] = LOAD(y + r * PANEL + v * LANES);                             \
        for (int64_t k = 0; k < K; k += terms_##TYPE, panel += terms_##TYPE * PANEL) {                                 \
            weights_##TYPE w[VECTORS];                                                                                 \
            for (int v = 0; v < VECTORS; v++) w[v] = weights_at_##TYPE(panel + terms_##TYPE * v * LANES);              \
            for (int r = 0; r < N; r++) {                                                                              \
                weights_##TYPE one = spread_##TYPE(x + r * stride + k);                                                \
                for (int v = 0; v < VECTORS; v++) sum[r][v] = added_##TYPE(sum[r][v], one, w[v]);                      \
            }                                                                                                          \
        }                                                                                                              \
        for (int r = 0; r < N; r++)                                                                                    \
            for (int v = 0; v < VECTORS; v++) STORE(y + r * PANEL + v * LANES, sum[r][v]);                             \
    }
#define TILES(TYPE, T)                                                                                                 \
    TILE(TYPE, T, 1)                                                                                                   \
    TILE(TYPE, T, 2)                                                                                                   \
    TILE(TYPE, T, 3)                                                                                                   \
    TILE(TYPE, T, 4)                                                                                                   \
    static tile_function *const tiles_##TYPE[] = {tile_##TYPE##_1, tile_##TYPE##_2, tile_##TYPE##_3, tile_##TYPE##_4};
FOR_EACH_TYPE(TILES)

/* Add x (n, K) @ a panel to sums (n, PANEL), n at most ROWS. Each block of terms is added up by itself first; if one has
   begun in the sums, the first goes on there. size: bytes of a value of x and of the weights. */
static void add_product(tile_function *const *tiles, int size, const char *x, int64_t stride, int64_t n,
                        const char *panel, int64_t K, int64_t block, float *sums, int begun) {
    float of_block[ROWS * PANEL];
    for (int64_t k = 0; k < K; k += block, begun = 0) {
        float *to = begun ? sums : of_block;
        if (!begun) memset(of_block, 0, sizeof of_block);
        for (int64_t v = 0; v < PANEL; v += VECTORS * LANES)
            tiles[n - 1](x + k * size, stride, panel + (k * PANEL + v * (4 / size)) * size, to + v,
                         least(block, K - k));
        if (begun) continue;
        for (int64_t v = 0; v < n * PANEL; v += LANES) STORE(sums + v, ADD(LOAD(sums + v), LOAD(of_block + v)));
    }
}

/* Lay out weights (K, O), whose columns are so many groups, in panels that hold as many columns of each; `panels` holds
   K times O in whole panels, all zero. */
#define PANELS(TYPE, T)                                                                                                \
    void EXPORT(panels_##TYPE)(const T *weight, T *panels, int64_t K, int64_t O, int64_t groups) {                     \
        int64_t terms = terms_##TYPE, of_group = O / groups, wide = PANEL / groups;                                    \
        for (int64_t o = 0; o < O; o++) {                                                                              \
            int64_t d = o % of_group, panel = d / wide, column = o / of_group * wide + d % wide;                       \
            for (int64_t k = 0; k < K; k++)                                                                            \
                panels[(panel * K + k / terms * terms) * PANEL + column * terms + k % terms] = weight[k * O + o];      \
        }                                                                                                              \
    }
FOR_EACH_TYPE(PANELS)

/* y (n, O) = x (n, K) @ weight, clipped, of the panels from `first` to `end`. A panel serves all rows before the next one
   is read from memory. */
#define PRODUCT(TYPE, T)                                                                                               \
    static void product_##TYPE(const T *x, const T *panels, T *y, int64_t n, int64_t K, int64_t O, int64_t block,      \
                               float clip, int64_t first, int64_t end) {                                               \
        for (int64_t panel = first; panel < end; panel++)                                                              \
            for (int64_t row = 0; row < n; row += ROWS) {                                                              \
                int64_t rows = least(ROWS, n - row), wide = least(PANEL, O - panel * PANEL);                           \
                float sums[ROWS * PANEL] = {0};                                                                        \
                add_product(tiles_##TYPE, sizeof(T), (const char *)(x + row * K), K, rows,                             \
                            (const char *)(panels + panel * K * PANEL), K, block, sums, 1);                            \
                for (int64_t r = 0; r < rows; r++)                                                                     \
                    for (int64_t v = 0; v < wide; v += LANES)                                                          \
                        save_##TYPE(y + (row + r) * O + panel * PANEL + v,                                             \
                                    within(LOAD(sums + r * PANEL + v), ALL(-clip), ALL(clip)));                        \
            }                                                                                                          \
    }                                                                                                                  \
    void EXPORT(product_##TYPE)(const T *x, const T *panels, T *y, int64_t n, int64_t K, int64_t O, int64_t block) {   \
        product_##TYPE(x, panels, y, n, K, O, block, __builtin_inff(), 0, (O + PANEL - 1) / PANEL);                    \
    }
FOR_EACH_TYPE(PRODUCT)

/* ---------------------------------------------------------------- the recurrence */

typedef struct {
    int64_t directions, steps, B, I, P, D;  /* rows, sizes of input, output and cells */
    int64_t block, projection_block;        /* terms of a block in the products of [x, h] and of the projection */
    int64_t ahead;                          /* rows whose products of x are computed together, B at least */
    int64_t all;                            /* rows of all steps */
    int64_t apart;                          /* whether each direction has a thread, and sums and m, of its own */
    float cell_clip, proj_clip;
    const int64_t *rows;                    /* how many are left at each step */
    float *sums;                            /* (panels, ahead, PANEL), one for each direction if they are apart */
    void *m;                                /* (B, D), likewise */
    /* One of these for each direction, one after the other. */
    const void *x_panels, *h_panels;        /* the kernel's rows of x and of h, in panels of gates */
    const void *projection_panels;          /* or none */
    const float *bias;                      /* (4 D) */
    const void *x;                          /* (all, I), of the rows that are left at each step */
    void *h;                                /* (B, P), the state, written */
    float *c;                               /* (B, D), the state, written */
    void *y;                                /* (steps, B, P), written where rows are left */
} Run;

static Run direction(const Run *all, int64_t z, int64_t size) {
    Run run = *all;
    int64_t I = run.I, P = run.P, D = run.D, outputs = (P + PANEL - 1) / PANEL;
    run.x_panels = (const char *)run.x_panels + z * 4 * D * I * size;
    run.h_panels = (const char *)run.h_panels + z * 4 * D * P * size;
    if (run.projection_panels)
        run.projection_panels = (const char *)run.projection_panels + z * outputs * PANEL * D * size;
    run.bias += z * 4 * D;
    run.x = (const char *)run.x + z * run.all * I * size;
    run.h = (char *)run.h + z * run.B * P * size;
    run.c += z * run.B * D;
    run.y = (char *)run.y + z * run.steps * run.B * P * size;
    if (run.apart) {
        run.sums += z * run.ahead * 4 * D;
        run.m = (char *)run.m + z * run.B * D * size;
    }
    return run;
}

/* Threads that run one direction together, each with panels of its own, read half of the weights again at each step that
   two directions side by side would read, so that they may stay in a cache; but they wait for one another twice a step.
   The product of h goes on where that of x ended: within a block that was begun, or as the blocks after it. */
#define STEPS(TYPE, T)                                                                                                 \
    /* Sums of x @ weight of one panel of gates, (rows, PANEL). */                                                     \
    static void sums_of_x_##TYPE(const Run *run, const T *x, int64_t rows, int64_t panel, float *sums) {               \
        const T *weights = (const T *)run->x_panels + panel * run->I * PANEL;                                          \
        memset(sums, 0, rows * PANEL * sizeof(float));                                                                 \
        for (int64_t row = 0; row < rows; row += ROWS)                                                                 \
            add_product(tiles_##TYPE, sizeof(T), (const char *)(x + row * run->I), run->I, least(ROWS, rows - row),    \
                        (const char *)weights, run->I, run->block, sums + row * PANEL, 1);                             \
    }                                                                                                                  \
    /* One step of the cells of a panel, from the sums of x: m (rows, D). */                                           \
    static void step_##TYPE(const Run *run, const T *h, int64_t rows, int64_t panel, float *sums, T *m) {              \
        const T *weights = (const T *)run->h_panels + panel * run->P * PANEL;                                          \
        int64_t D = run->D;                                                                                            \
        for (int64_t row = 0; row < rows; row += ROWS)                                                                 \
            add_product(tiles_##TYPE, sizeof(T), (const char *)(h + row * run->P), run->P, least(ROWS, rows - row),    \
                        (const char *)weights, run->P, run->block, sums + row * PANEL, run->I % run->block != 0);      \
        for (int64_t row = 0; row < rows; row++, sums += PANEL)                                                        \
            for (int64_t v = 0; v < CELLS_OF_PANEL; v += LANES) {                                                      \
                int64_t d = panel * CELLS_OF_PANEL + v;                                                                \
                V gates[4];                                                                                            \
                float *c = run->c + row * D + d;                                                                       \
                for (int q = 0; q < 4; q++)                                                                            \
                    gates[q] = rounded_##TYPE(ADD(LOAD(sums + q * CELLS_OF_PANEL + v), LOAD(run->bias + q * D + d)));  \
                save_##TYPE(m + row * D + d, cells_of(gates[0], gates[1], gates[2], gates[3], c, c, run->cell_clip));  \
            }                                                                                                          \
    }                                                                                                                  \
    static void steps_of_##TYPE(const Run *run, int64_t thread, int64_t threads) {                                     \
        int64_t B = run->B, P = run->P, gates = run->D / CELLS_OF_PANEL, outputs = (P + PANEL - 1) / PANEL;            \
        int64_t from = thread * gates / threads, end = (thread + 1) * gates / threads;                                 \
        const T *x = run->x;                                                                                           \
        int64_t known = 0, row = 0; /* rows whose products of x are there, and those of them that are behind */        \
        for (int64_t t = 0; t < run->steps; t++) {                                                                     \
            int64_t n = run->rows[t];                                                                                  \
            T *y = (T *)run->y + t * B * P, *m = run->projection_panels ? run->m : y;                                  \
            if (row == known) {                                                                                        \
                x += known * run->I;                                                                                   \
                row = known = 0;                                                                                       \
                for (int64_t s = t; s < run->steps && known + run->rows[s] <= run->ahead; s++) known += run->rows[s];  \
                for (int64_t panel = from; panel < end; panel++)                                                       \
                    sums_of_x_##TYPE(run, x, known, panel, run->sums + panel * run->ahead * PANEL);                    \
            }                                                                                                          \
            for (int64_t panel = from; panel < end; panel++)                                                           \
                step_##TYPE(run, t ? y - B * P : run->h, n, panel, run->sums + (panel * run->ahead + row) * PANEL, m); \
            row += n;                                                                                                  \
            if (threads > 1) { _Pragma("omp barrier") }                                                                \
            if (!run->projection_panels) continue;                                                                     \
            product_##TYPE(m, run->projection_panels, y, n, run->D, P, run->projection_block, run->proj_clip,          \
                           thread * outputs / threads, (thread + 1) * outputs / threads);                              \
            if (threads > 1) { _Pragma("omp barrier") }                                                                \
        }                                                                                                              \
        for (int64_t t = 0; thread == 0 && t < run->steps; t++) {                                                      \
            int64_t staying = t + 1 < run->steps ? run->rows[t + 1] : 0;                                               \
            memcpy((T *)run->h + staying * P, (T *)run->y + (t * B + staying) * P,                                     \
                   (run->rows[t] - staying) * P * sizeof(T));                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    static void run_##TYPE(const Run *all, int64_t thread, int64_t threads) {                                          \
        for (int64_t z = 0; z < all->directions; z++) {                                                                \
            Run run = direction(all, z, sizeof(T));                                                                    \
            if (!run.apart) steps_of_##TYPE(&run, thread, threads);                                                    \
            else if (z % threads == thread) steps_of_##TYPE(&run, 0, 1);                                               \
        }                                                                                                              \
    }                                                                                                                  \
    void EXPORT(steps_##TYPE)(const Run *run, int64_t threads) {                                                       \
        if (threads > 1) {                                                                                             \
            _Pragma("omp parallel num_threads(threads)") run_##TYPE(run, omp_get_thread_num(), omp_get_num_threads()); \
        } else                                                                                                         \
            run_##TYPE(run, 0, 1);                                                                                     \
    }
FOR_EACH_TYPE(STEPS)
