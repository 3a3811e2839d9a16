"""The trellises: rate-1/2 systematic feedback codes for one-dimensional signal sets (Ungerboeck 1982, table I).

State s of v bits; its lowest bit names the codebook. Codebook 0 holds the even fine indices 2k, codebook 1 the odd
ones and zero, 2k - sign(k). An integer k moves to (s >> 1) ^ (s & 1 ? tap0 : 0) ^ (k & 1 ? tap1 : 0): the parity
check of the code.
"""

# v: parity-check polynomials h0, h1, octal as printed
_CHECKS = {3: (0o13, 0o04), 4: (0o23, 0o04), 5: (0o45, 0o10), 6: (0o103, 0o024), 7: (0o235, 0o126), 8: (0o515, 0o362)}

TAPS = {bits: (h0 >> 1, h1 >> 1) for bits, (h0, h1) in _CHECKS.items()}
