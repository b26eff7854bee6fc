/* Vectors of the processor at hand, and what the types of weights differ in.

   Each file beside this one is compiled once for each kind of processor, AVX2, AVX-512 and AVX-512 with bfloat16, and the
   names of its functions end in _avx2, _avx512 and _avx512bf16, all in one library. Nothing may be contracted or
   reordered, where the order of addition is stated: -ffp-contract=off. Threads are those of the OpenMP that torch has
   loaded, or both would wait for work on the same cores. */

#pragma once

#include <immintrin.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define EXPORT(name) JOIN(name, VARIANT)

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

/* x where a < b, else zero. */
#ifdef __AVX512F__
static inline V where_less(V a, V b, V x) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), x); }
#else
static inline V where_less(V a, V b, V x) { return _mm256_and_ps(_mm256_cmp_ps(a, b, _CMP_LT_OQ), x); }
#endif

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* What the types differ in: how LANES values become float32 and back, and how the terms of a product are taken, one at a
   time of float32, two of bfloat16. */
#define load_float32 LOAD
#define save_float32 STORE
static inline V rounded_float32(V x) { return x; }
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
static inline V rounded_bfloat16(V x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x)), 16));
}
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
