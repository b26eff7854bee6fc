/* The gates of an LSTM after their activation, and its cells. */

#pragma once

#include "vectors.h"

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

/* Make LANES new cells of one row from its gates and the cells before, and return what they give to the projection. */
static inline V cells_of(V i, V j, V f, V o, const float *before, float *c, float clip) {
    V new = FMA(sigmoid(i), tanh_(j), MUL(sigmoid(f), LOAD(before)));
    new = within(new, ALL(-clip), ALL(clip));
    STORE(c, new);
    return MUL(sigmoid(o), tanh_(new));
}
