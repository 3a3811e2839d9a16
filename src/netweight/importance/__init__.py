"""Stage 2, who matters: estimates of the weight importance matrix.

    stat             Stat: what is known of one tensor
    prior            what is assumed without data
    core, files      Importance, its record, its file
    sums, shrink     sums over samples, the Stat they make, how far it is believed
    completion, naming   a checkpoint's names; what was not measured

With torch:

    measure          the verb: options, the loop over batches
    collect, sites   hooks on every module that holds weights
    maps, norms, blocks   which vectors meet a weight, layer by layer
    accumulate       their sums
    cotangents       what is sent backwards, loss by loss
    second           second derivatives by autograd
    samples          batches, samples, and their random numbers
    hugging_face     networks in folders, text and images
"""
