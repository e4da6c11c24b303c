"""A Keras model that is trained in phases, each with its own loss, variables and optimizer."""

import keras
import numpy as np
import tensorflow as tf

from models.optimizers import FusedAdam


class PhasedModel(keras.Model):
    """What Keras needs to know of such a model: its optimizers, its functions, its figures, its saving.

    A subclass has `phases`, `train_step` and `test_step`, `train_trackers` (its running means, which
    `train_step` fills), `mse_tracker` (which `test_step` fills), and the weight `step`, which counts.
    """

    # Whether there is noise on the input, and dropout, in training.
    disturbs = True

    @property
    def phases(self):
        """What each phase trains: its name to a list of variables, in the order of its optimizer's state."""
        raise NotImplementedError

    def compile(self, jit_compile=False, steps_per_execution=1, **optimizers):
        """Takes one optimizer per phase, e.g. `ae_optimizer`; by default the first seed's Adam for each.

        Args:
            jit_compile: whether XLA compiles the train step: faster on a GPU, slower on a CPU.
            steps_per_execution: train steps per call of the train function.
        """
        # Without optimizer=None, Keras would add an RMSprop that trains nothing.
        super().compile(optimizer=None, jit_compile=jit_compile, steps_per_execution=steps_per_execution)
        for phase, variables in self.phases.items():
            rate = 2e-4 if phase == "d" else 1e-3
            name = f"{phase}_optimizer"
            optimizer = optimizers.pop(name, None) or FusedAdam(rate, epsilon=1e-8, name=name)
            # Keras silently skips optimizers that are not built when it saves or loads a model.
            optimizer.build(variables)
            setattr(self, name, optimizer)
        if optimizers:
            raise TypeError(f"No phase for {', '.join(optimizers)}: there are {', '.join(self.phases)}.")

    def update(self, phase, tape, loss, condition=None, penalty=None):
        """Applies the gradient of a phase's loss to the variables that this phase trains.

        Args:
            condition: a boolean scalar tensor, whether to do so at all; None for always.
            penalty: a further tape and its loss, whose gradient is added; None for none.
        """
        # Gradients are summed over replicas, while every loss is a mean over one replica's batch.
        share = tf.constant(1 / self.distribute_strategy.num_replicas_in_sync)
        variables = self.phases[phase]
        gradients = tape.gradient(loss, variables, output_gradients=share)
        if penalty is not None:
            # On the same tape a weight would have three uses: see `lost_information`.
            tape, loss = penalty
            further = tape.gradient(loss, variables, output_gradients=share)
            gradients = [g if more is None else g + more for g, more in zip(gradients, further, strict=True)]
        optimizer = getattr(self, f"{phase}_optimizer")
        if condition is None:
            optimizer.apply(gradients, variables)
        else:
            optimizer.apply_if(condition, gradients, variables)

    def after_step(self):
        """What follows every train step, once for all replicas; a loop of one's own has to call it, too."""

    def hold(self, images, labels):
        """Keeps the training images where the model computes, so that batches are indices alone.

        Args:
            images: uint8 (N, H, W, C).
            labels: uint8 (N,), or attributes (N, K).
        """
        strategy = self.distribute_strategy

        def of_replica(context):
            devices = strategy.extended.worker_devices
            with tf.device(devices[context.replica_id_in_sync_group % len(devices)]):
                return tf.constant(images), tf.constant(labels)

        if strategy.num_replicas_in_sync == 1:
            self._held = (tf.constant(images), tf.constant(labels))
        else:
            self._held = strategy.experimental_distribute_values_from_function(of_replica)

    @staticmethod
    def _gathered(batch, held):
        """The data of a train step; batches that are not dicts of indices are data already."""
        if not isinstance(batch, dict):
            return batch
        return tuple(tf.gather(values, chosen) for chosen in batch.values() for values in held)

    def step_seeds(self, seed, count):
        """Seeds (count, 2) that depend on a run's seed, the step and the replica alone."""
        key = tf.stack([tf.constant(seed, tf.int64), tf.convert_to_tensor(self.step)])
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.unstack(tf.random.split(tf.random.fold_in(key, replica), count))

    @property
    def metrics(self):
        # Those that Keras resets every epoch; without its own loss tracker, which would stay 0.
        return [*self.train_trackers, self.mse_tracker]

    def running_means(self):
        """What the running means of the figures hold, by their names: total and count of every replica."""
        if self.distribute_strategy.num_replicas_in_sync == 1:
            return {mean.name: [float(v) for v in mean.variables] for mean in self.train_trackers}

        def of_replica():
            return tf.stack([tf.convert_to_tensor(v) for m in self.train_trackers for v in m.variables])[None]

        def of_all():
            return self.distribute_strategy.gather(self.distribute_strategy.run(of_replica), axis=0)

        graphs = vars(self).setdefault("_graphs", {})  # past Keras, and traced once, as in `Prediction`
        if "running_means" not in graphs:
            graphs["running_means"] = tf.function(of_all, autograph=False).get_concrete_function()
        held = np.reshape(graphs["running_means"](), [-1, len(self.train_trackers), 2])
        return {mean.name: held[:, i].ravel().tolist() for i, mean in enumerate(self.train_trackers)}

    def set_running_means(self, means):
        """Goes on with what `running_means` returned; with other replicas, the first gets all of it."""
        strategy = self.distribute_strategy
        held = np.stack([np.reshape(means[mean.name], [-1, 2]) for mean in self.train_trackers], axis=1)
        if len(held) != strategy.num_replicas_in_sync:
            others = np.zeros([strategy.num_replicas_in_sync - 1, *held.shape[1:]])
            held = np.concatenate([held.sum(axis=0, keepdims=True), others])
        held = tf.constant(held, tf.float32)

        def set_replica():
            own = held[tf.distribute.get_replica_context().replica_id_in_sync_group]
            for i, mean in enumerate(self.train_trackers):
                for j, variable in enumerate(mean.variables):
                    variable.assign(own[i, j])

        tf.function(lambda: strategy.run(set_replica), autograph=False).get_concrete_function()()

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            # XLA would copy the held images with every program, so they are gathered outside of it.
            step = self.train_step
            if self.jit_compile:
                step = tf.function(step, jit_compile=True, autograph=False)

            # AutoGraph would spend seconds on a step, which has no control flow that depends on tensors.
            @tf.autograph.experimental.do_not_convert
            def gather_and_step(batch, held):
                step(self._gathered(batch, held))

            @tf.function
            def train_function(iterator):
                for _ in tf.range(self.steps_per_execution):
                    self.distribute_strategy.run(gather_and_step, args=(next(iterator), self._held))
                    self.after_step()
                return {tracker.name: tracker.result() for tracker in self.train_trackers}

            self.train_function = train_function
        return self.train_function

    def disturb(self, disturbs):
        """Says whether training goes on with noise on the input and with dropout."""
        if disturbs != self.disturbs:
            self.disturbs = disturbs
            for network in self.layers:
                network.drops = disturbs
            self.make_train_function(force=True)

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            step = tf.autograph.experimental.do_not_convert(self.test_step)

            @tf.function
            def test_function(iterator):
                # Keras counts as many batches a call as in training, but here the last call may find fewer.
                for _ in tf.range(self.steps_per_execution):
                    batch = iterator.get_next_as_optional()
                    if batch.has_value():
                        self.distribute_strategy.run(step, args=(batch.get_value(),))
                return {self.mse_tracker.name: self.mse_tracker.result()}

            self.test_function = test_function
        return self.test_function

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # The model is built. Keras would average a batch over the workers, and fails where it is a dict.
        pass

    def get_compile_config(self):
        names = [f"{phase}_optimizer" for phase in self.phases]
        there = [name for name in names if hasattr(self, name)]  # none in a model that is only for use
        return {name: keras.optimizers.serialize(getattr(self, name)) for name in there}

    def compile_from_config(self, config):
        self.compile(**{name: keras.optimizers.deserialize(o) for name, o in config.items()})
