/* Filters over the characters of words, and the maximum over places; filter_tables.py says what is given.

   What a filter makes of a character at each of its places is in a table, so that a window is a sum of as many of its rows
   as the filter is wide. Each word has its own windows alone: of those that lie wholly in padding, which are all alike, one
   is computed. */

#include "vectors.h"

typedef struct {
    int64_t width, count; /* characters of a window, filters */
    const float *table;   /* (width, symbols, count) */
    int64_t first;        /* column of the first of them among all filters */
} Filters;

#define COLUMNS 32 /* filters computed together, whose part of the table stays close while all words are read */
#define VECTORS (COLUMNS / LANES)

/* Write the maxima of COLUMNS filters, from column `first` among those of their width, to y (words, all). ids: (words, C);
   lengths: the place after a word's last symbol that is no padding. */
#define MAXIMA(TYPE, T)                                                                                                \
    static void block_##TYPE(const Filters *of, int64_t first, const int64_t *ids, const int64_t *lengths,             \
                             int64_t words, int64_t C, int64_t symbols, const float *bias, T *y, int64_t all) {        \
        const float *table = of->table + first;                                                                        \
        for (int64_t word = 0; word < words; word++, ids += C, y += all) {                                             \
            V best[VECTORS];                                                                                           \
            for (int v = 0; v < VECTORS; v++) best[v] = ALL(-__builtin_inff());                                        \
            int64_t last = least(lengths[word], C - of->width);                                                        \
            for (int64_t place = 0; place <= last; place++) {                                                          \
                const float *row = table + ids[place] * of->count;                                                     \
                V sum[VECTORS];                                                                                        \
                for (int v = 0; v < VECTORS; v++) sum[v] = LOAD(row + v * LANES);                                      \
                for (int64_t k = 1; k < of->width; k++) {                                                              \
                    row = table + (k * symbols + ids[place + k]) * of->count;                                          \
                    for (int v = 0; v < VECTORS; v++) sum[v] = ADD(sum[v], LOAD(row + v * LANES));                     \
                }                                                                                                      \
                for (int v = 0; v < VECTORS; v++) best[v] = MAX(best[v], sum[v]);                                      \
            }                                                                                                          \
            int64_t column = of->first + first;                                                                        \
            for (int v = 0; v < VECTORS; v++)                                                                          \
                save_##TYPE(y + column + v * LANES, ADD(best[v], LOAD(bias + column + v * LANES)));                    \
        }                                                                                                              \
    }                                                                                                                  \
    /* Filters of each width, all of them a multiple of COLUMNS; bias: (all); y: (words, all). */                      \
    void EXPORT(maxima_##TYPE)(const Filters *filters, const int64_t *ids, const int64_t *lengths, int64_t words,    \
                               int64_t C, int64_t symbols, const float *bias, T *y, int64_t all,                       \
                               int64_t threads) {                                                                      \
        _Pragma("omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)")                          \
        for (int64_t column = 0; column < all; column += COLUMNS) {                                                    \
            const Filters *of = filters;                                                                               \
            while (column >= of->first + of->count) of++;                                                              \
            block_##TYPE(of, column - of->first, ids, lengths, words, C, symbols, bias, y, all);                       \
        }                                                                                                              \
    }
FOR_EACH_TYPE(MAXIMA)
