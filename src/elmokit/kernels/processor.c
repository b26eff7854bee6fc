/* What the processor at hand can run of this folder. */

/* Which variant this processor can run: 0 none, 1 AVX2, 2 AVX-512, 3 AVX-512 with bfloat16. */
int elmokit_level(void) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw")) return 1;
    return __builtin_cpu_supports("avx512bf16") ? 3 : 2;
}
