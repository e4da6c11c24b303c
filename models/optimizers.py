"""Adam and momentum with one fused operation per variable.

The stock updates of Keras read and write every weight and its state several times; where the networks
are dense and the batch is small, that is a large part of the training time. State, configuration and
results are those of the stock optimizers, whose own updates serve the variants not fused here.
"""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="aae")
class FusedAdam(keras.optimizers.Adam):
    """`keras.optimizers.Adam`, each variable updated by one `ResourceApplyAdam`."""

    # Whether the update that is being traced takes place: a boolean scalar tensor, or None for always.
    _condition = None
    # What the updates of all variables have in common, made once: every operation that is traced takes time.
    _factors = None

    def apply(self, gradients, variables=None):
        try:
            super().apply(gradients, variables)
        finally:
            self._factors = None

    def apply_if(self, condition, gradients, variables):
        """`apply` where the condition, a boolean scalar tensor, holds; otherwise nothing changes.

        It is computed either way and then masked: branches around updates fail on several devices.
        """
        if self.amsgrad:
            raise NotImplementedError("The stock update of amsgrad cannot be masked.")
        self._condition = condition
        self.apply(gradients, variables)
        self._condition = None
        # Adam's bias correction counts the updates that took place.
        self.iterations.assign_sub(tf.cast(~condition, self.iterations.dtype))

    def update_step(self, gradient, variable, learning_rate):
        if self.amsgrad:
            super().update_step(gradient, variable, learning_rate)
            return
        if self._factors is None:
            self._factors = self._common_factors(learning_rate, variable.dtype)
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            grad=tf.cast(gradient, variable.dtype),
            **self._factors,
        )

    def _common_factors(self, learning_rate, dtype):
        """The inputs of `ResourceApplyAdam` that are the same for all variables."""
        step = tf.cast(self.iterations + 1, dtype)
        beta_1, beta_2 = tf.constant(self.beta_1, dtype), tf.constant(self.beta_2, dtype)
        powers = {"beta1_power": beta_1**step, "beta2_power": beta_2**step}
        learning_rate = tf.cast(learning_rate, dtype)
        if self._condition is not None:
            # With these the moments stay as they are and the step is zero.
            beta_1, beta_2 = (tf.where(self._condition, beta, 1.0) for beta in (beta_1, beta_2))
            learning_rate = tf.where(self._condition, learning_rate, 0.0)
        epsilon = tf.constant(self.epsilon, dtype)
        return {**powers, "lr": learning_rate, "beta1": beta_1, "beta2": beta_2, "epsilon": epsilon}


@keras.saving.register_keras_serializable(package="aae")
class FusedSGD(keras.optimizers.SGD):
    """`keras.optimizers.SGD` with momentum, each variable updated by one `ResourceApplyKerasMomentum`."""

    def update_step(self, gradient, variable, learning_rate):
        if self.momentum == 0:
            super().update_step(gradient, variable, learning_rate)
            return
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[self._get_variable_index(variable)].value.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
            momentum=tf.constant(self.momentum, variable.dtype),
            use_nesterov=self.nesterov,
        )
