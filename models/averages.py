"""Averages of weights over the train steps (arXiv 1806.04498).

The adversarial game does not settle: the weights go round, and the last ones are no better than those before.
Their average lies in the middle.
"""

import tensorflow as tf

# Train steps from one update to the next: an update takes about as long as that of an optimizer.
EVERY = 10


def take_up_weights(averaged, step, decay, strategy):
    """Takes the weights of networks up into their averages, after every `EVERY`-th step.

    In early steps the weights change much, so the decay of a step is at most (1 + step) / (10 + step).

    Args:
        averaged: pairs of a network that holds averages, and the one that is trained.
        step: number of train steps done, an integer scalar tensor.
        decay: share of an average that a step keeps, in (0, 1).
        strategy: whose replicas each update their own.
    """
    steps = tf.cast(step, tf.float32)
    kept = tf.minimum(decay, (1 + steps) / (10 + steps)) ** EVERY

    def update():
        for average, network in averaged:
            for mean, weight in zip(average.variables, network.variables, strict=True):
                strategy.extended.update(
                    mean.value,
                    lambda mean, weight: mean.assign(weight + kept * (mean - weight)),
                    [weight.value],
                )

    tf.cond(step % EVERY == 0, update, lambda: None)
