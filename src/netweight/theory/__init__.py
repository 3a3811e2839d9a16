"""What is possible: rate-distortion functions, bounds and reference codes, in closed form or certified numerically.

The folder stands alone (NumPy and the standard library) and every module answers one question:

    gaussian         R(D) of independent Gaussian weights by weighted water-filling, and a code that reaches it
    correlated       the same for correlated weights and inputs, beside the looser bound that is printed for them
    universal        the same when the decoder does not know the input covariance
    general          lower bounds for any law: Lemma 1 of Gao et al., Shannon's lower bound, an entropy estimate
    laplace          R(D) of Laplacian and exponential weights under absolute error, and codes that reach it
    scalar, gamma    generalised Gaussian laws and their R(D) under squared error
    ecsq, trellis    the best entropy-coded scalar quantiser, and a trellis, beside R(D)
    discrete         R(D) of any finite source by Blahut-Arimoto, with a certificate
    relu, expansion  where the quadratic objective of Gao et al. comes from and how far it can be trusted
    codebooks        optimal weighted k-means on the line
    perturbation     from weight error to output error through the layers (Isik et al.)
    surp             the successively refinable pruner in its textbook form
    compressibility  how sparse a vector is: weak l_q radius, best k-term error, PQ index
    rates            lengths of Shannon, Huffman and Golomb codes, and the ratios of Gao et al.

Rates are nats inside and their names end in `_nats` or `_bits`; a vector's rate is that of the whole vector unless the
name says `per`. Distortions carry the square (or the absolute value) of the weights' unit. All arrays are float64.

`docs/theory.md` has the derivations. "Gao et al." is *Rate Distortion For Model Compression: From Theory To Practice*
(ICML 2019); "Isik et al." is *An Information-Theoretic Justification for Model Pruning* (AISTATS 2022).
"""
