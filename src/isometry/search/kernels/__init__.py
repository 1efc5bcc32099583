"""Inner loops of search over plain arrays. Import the file you need; each names the extra it stands on.

exact    the one routine that defines a score, and exact top-k selection (numpy; numba where it is there)
int8     first stage of exact search: rows of int8 with a proven error bound (numba, torch)
bits     binary codes by bit counting: Hamming distance (numba)
nibbles  codes of 4-bit digits by look-up in registers: product codes, weighted sums of signs (numba)
tables   product codes of one byte a part by table look-up (numba)
maxsim   sums of best matches between sets of vectors (numpy; torch where it is there)
"""
