"""Inner loops of search over plain arrays. Import the file you need; each names the extra it stands on.

exact    the one routine that defines a score, and exact top-k selection (numpy; numba where it is there)
int8     first stage of exact search: rows of int8 with a proven error bound (numba, torch)
bits     binary codes by bit counting: Hamming, and sums of signed powers of two (numba)
tables   product codes by table look-up (numba)
maxsim   sums of best matches between sets of vectors (numpy; torch where it is there)
"""
