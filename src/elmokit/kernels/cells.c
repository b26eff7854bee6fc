/* Gates and cells of many rows, forward and backward; compiled.py says what each function is given. */

#include "gates.h"

#define FOR_EACH_ROW(n, threads)                                                                                       \
    _Pragma("omp parallel for num_threads(threads) if (threads > 1)") for (int64_t row = 0; row < n; row++)

/* Make the cells (n, D) of n rows from their gates (n, 4 D) and the cells before, which may be the same; m (n, D) is for
   the projection. */
#define FORWARD(TYPE, T)                                                                                               \
    static void row_##TYPE(const T *gates, const float *before, float *c, T *m, int64_t D, float clip) {               \
        for (int64_t d = 0; d < D; d += LANES)                                                                         \
            save_##TYPE(m + d, cells_of(load_##TYPE(gates + d), load_##TYPE(gates + D + d),                            \
                                        load_##TYPE(gates + 2 * D + d), load_##TYPE(gates + 3 * D + d), before + d,    \
                                        c + d, clip));                                                                 \
    }                                                                                                                  \
    void EXPORT(cells_##TYPE)(const T *gates, const float *before, float *c, T *m, int64_t n, int64_t D, float clip,   \
                              int64_t threads) {                                                                       \
        FOR_EACH_ROW(n, threads) row_##TYPE(gates + row * 4 * D, before + row * D, c + row * D, m + row * D, D, clip); \
    }
FOR_EACH_TYPE(FORWARD)

/* Of the gradients dm and dc of what the cells gave, make those of the gates, and of dc that of the cells before. A cell
   that was clipped does not move with what was clipped. */
#define BACKWARD(TYPE, T)                                                                                              \
    static void back_##TYPE(const T *gates, const float *before, const float *c, const T *dm, float *dc, T *dgates,    \
                            int64_t D, float clip) {                                                                   \
        for (int64_t d = 0; d < D; d += LANES) {                                                                       \
            V one = ALL(1.0f), i = sigmoid(load_##TYPE(gates + d)), j = tanh_(load_##TYPE(gates + D + d));             \
            V f = sigmoid(load_##TYPE(gates + 2 * D + d)), o = sigmoid(load_##TYPE(gates + 3 * D + d));                \
            V cell = LOAD(c + d), tanh_c = tanh_(cell), of_m = load_##TYPE(dm + d);                                    \
            V of_c = FMA(MUL(of_m, o), FNMA(tanh_c, tanh_c, one), LOAD(dc + d));                                       \
            of_c = where_less(MAX(cell, SUB(ALL(0.0f), cell)), ALL(clip), of_c);                                       \
            STORE(dc + d, MUL(of_c, f));                                                                               \
            save_##TYPE(dgates + d, MUL(MUL(of_c, j), FNMA(i, i, i)));                                                 \
            save_##TYPE(dgates + D + d, MUL(MUL(of_c, i), FNMA(j, j, one)));                                           \
            save_##TYPE(dgates + 2 * D + d, MUL(MUL(of_c, LOAD(before + d)), FNMA(f, f, f)));                          \
            save_##TYPE(dgates + 3 * D + d, MUL(MUL(of_m, tanh_c), FNMA(o, o, o)));                                    \
        }                                                                                                              \
    }                                                                                                                  \
    void EXPORT(cells_backward_##TYPE)(const T *gates, const float *before, const float *c, const T *dm, float *dc,    \
                                       T *dgates, int64_t n, int64_t D, float clip, int64_t threads) {                 \
        FOR_EACH_ROW(n, threads) back_##TYPE(gates + row * 4 * D, before + row * D, c + row * D, dm + row * D,         \
                                             dc + row * D, dgates + row * 4 * D, D, clip);                             \
    }
FOR_EACH_TYPE(BACKWARD)
